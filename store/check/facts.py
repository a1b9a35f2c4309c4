"""What the catalog says at one moment, and who is at work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from proponent.schema import catalog as models
from proponent.store.catalog import Catalog
from proponent.store.leases import is_alive
from proponent.store.snapshots import Snapshot, as_snapshot

READERS = ("check ", "backup")
"""Locks of those who hold the lake against `compact` and write nothing."""


@dataclass(frozen=True)
class Facts:
    """The catalog's rows that a check compares with what is on disk."""

    snapshots: list[Snapshot]
    """All that can be read, oldest first."""
    batches: Mapping[str, list[models.Batch]]
    """By table."""
    hashes: Mapping[str, Mapping[str, models.StoredFile]]
    """By table and path."""
    rows: Mapping[str, list[Any]] = field(default_factory=dict)
    """All rows of some of the catalog's tables, by the table's name."""

    @property
    def at(self) -> Snapshot:
        """The newest snapshot."""
        return self.snapshots[-1]

    @property
    def at_work(self) -> list[str]:
        """What writers that live are doing at present, by their locks and units."""
        locks = [one.name for one in self.rows["locks"] if is_alive(one) and not one.name.startswith(READERS)]
        units = [f"unit of run {one.run_id}" for one in self.rows["units"] if one.status == "leased" and is_alive(one)]
        return sorted(locks + units)


_WHOLE = (
    models.Lock, models.Unit, models.Run, models.Corpus, models.Model, models.Encoder, models.Curvature,
    models.IndexBuild, models.Withdrawal, models.Publication, models.Query, models.Trace,
)  # fmt: skip


def read_facts(catalog: Catalog) -> Facts:
    """Read what a check needs from the catalog, as it is at one moment."""
    with catalog.moment() as session:
        kept = select(models.Snapshot).where(models.Snapshot.erased_at.is_(None)).order_by(models.Snapshot.snapshot_id)
        snapshots = [as_snapshot(row) for row in session.scalars(kept)]
        return Facts(
            snapshots, _batches(session), _hashes(session), {one.__tablename__: _rows(session, one) for one in _WHOLE}
        )


def _batches(session: Session) -> dict[str, list[models.Batch]]:
    batches: dict[str, list[models.Batch]] = {}
    for batch in session.scalars(select(models.Batch)):
        batches.setdefault(batch.table_name, []).append(batch)
    return batches


def _hashes(session: Session) -> dict[str, dict[str, models.StoredFile]]:
    hashes: dict[str, dict[str, models.StoredFile]] = {}
    for file in session.scalars(select(models.StoredFile)):
        hashes.setdefault(file.table_name, {})[file.path] = file
    return hashes


def _rows(session: Session, model: type[models.Base]) -> list[Any]:
    """Return a table's rows; of publications the open ones, whose plan is still needed."""
    chosen = select(model)
    if model is models.Publication:
        chosen = chosen.where(models.Publication.snapshot_id.is_(None))
    return list(session.scalars(chosen))
