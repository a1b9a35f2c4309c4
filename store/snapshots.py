"""Snapshots: which version of every Lance table belongs together."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.errors import DamagedLakeError, NotFoundError
from proponent.schema.tables import TABLE_MIGRATION

from .catalog import Catalog

_NAMED: Final = 5
"""Snapshots that a message lists."""


@dataclass(frozen=True)
class Snapshot:
    """A version of the whole lake; readers open exactly the table versions that it names."""

    snapshot_id: int
    versions: dict[str, int]
    run_id: str
    created_at: datetime
    table_migration: int = TABLE_MIGRATION
    """Number of the last migration of the tables that these versions have had."""

    def has(self, table: str) -> bool:
        """Return whether the lake had the table then."""
        return table in self.versions


def as_snapshot(row: models.Snapshot) -> Snapshot:
    """Return what a row of the catalog says."""
    return Snapshot(row.snapshot_id, dict(row.versions), row.run_id, row.created_at, row.table_migration)


def latest_snapshot(catalog: Catalog) -> Snapshot:
    """Return the newest snapshot. Raises DamagedLakeError when there is none."""
    with catalog.read() as session:
        row = session.scalars(select(models.Snapshot).order_by(models.Snapshot.snapshot_id.desc()).limit(1)).first()
    if row is None:
        raise DamagedLakeError("the catalog names no snapshot; restore it from a backup")
    return as_snapshot(row)


def get_snapshot(catalog: Catalog, snapshot_id: int) -> Snapshot:
    """Return a snapshot by its number. Raises NotFoundError when there is none, or none any more."""
    with catalog.read() as session:
        row = session.get(models.Snapshot, snapshot_id)
    if row is None:
        newest = latest_snapshot(catalog).snapshot_id
        raise NotFoundError(f"no snapshot {snapshot_id}; the lake has 1 to {newest}")
    if row.erased_at is not None:
        left = ", ".join(str(snapshot.snapshot_id) for snapshot in readable_snapshots(catalog)[-_NAMED:])
        raise NotFoundError(
            f"snapshot {snapshot_id} was erased on {row.erased_at:%Y-%m-%d} with documents that `compact --forget` "
            f"forgot; the newest that can be read are {left}"
        )
    return as_snapshot(row)


def readable_snapshots(catalog: Catalog) -> list[Snapshot]:
    """Return the snapshots whose data are there, oldest first."""
    kept = select(models.Snapshot).where(models.Snapshot.erased_at.is_(None)).order_by(models.Snapshot.snapshot_id)
    with catalog.read() as session:
        return [as_snapshot(row) for row in session.scalars(kept)]
