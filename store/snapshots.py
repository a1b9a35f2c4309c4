"""Snapshots: which version of every Lance table belongs together."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.errors import DamagedLakeError, NotFoundError

from .catalog import Catalog


@dataclass(frozen=True)
class Snapshot:
    """A version of the whole lake; readers open exactly the table versions that it names."""

    snapshot_id: int
    versions: dict[str, int]
    run_id: str
    created_at: datetime

    def has(self, table: str) -> bool:
        """Return whether the lake had the table then."""
        return table in self.versions


def _snapshot(row: models.Snapshot) -> Snapshot:
    return Snapshot(row.snapshot_id, dict(row.versions), row.run_id, row.created_at)


def latest_snapshot(catalog: Catalog) -> Snapshot:
    """Return the newest snapshot. Raises DamagedLakeError when there is none."""
    with catalog.read() as session:
        row = session.scalars(select(models.Snapshot).order_by(models.Snapshot.snapshot_id.desc()).limit(1)).first()
    if row is None:
        raise DamagedLakeError("the catalog names no snapshot; restore it from a backup")
    return _snapshot(row)


def get_snapshot(catalog: Catalog, snapshot_id: int) -> Snapshot:
    """Return a snapshot by its number. Raises NotFoundError when there is none."""
    with catalog.read() as session:
        row = session.get(models.Snapshot, snapshot_id)
    if row is None:
        newest = latest_snapshot(catalog).snapshot_id
        raise NotFoundError(f"no snapshot {snapshot_id}; the lake has 1 to {newest}")
    return _snapshot(row)
