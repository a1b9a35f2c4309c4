"""What a migration of tables changes."""

from dataclasses import dataclass

from proponent.store.commit import Change


@dataclass(frozen=True)
class Plan:
    """What is published with a migration's snapshot; nothing, where a lake has the new form already."""

    changes: tuple[Change, ...] = ()
    adopt: tuple[str, ...] = ()
    """Tables whose newest version the snapshot takes: those that the migration has made."""
