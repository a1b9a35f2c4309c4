"""Hashes of the files that a version of a table names beside its rows: manifest, deleted rows, indexes.

Notable: rows have a hash for each batch that was written; these files have one of their bytes, recorded with the
snapshot that first names them, since nothing in them would show a flipped byte either.
"""

from typing import NamedTuple

import lance
from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.ids import stream_id

from .lake import LakeStore
from .place import LakePath, chunks_of

_AT_ONCE = 1000


class TrackedFile(NamedTuple):
    """A file that a version of a table names."""

    path: str
    """In the table's folder."""
    kind: str
    """manifest, data file, deletion file, transaction file or index file."""

    @property
    def is_hashed_whole(self) -> bool:
        """Whether the file's bytes have a hash: all but rows, which have their own, and the notes of transactions."""
        return self.kind in ("manifest", "deletion file", "index file")


def file_hash(path: LakePath) -> str:
    """Return the hash of a file's bytes."""
    return stream_id("file", chunks_of(path))


def tracked_files(dataset: lance.LanceDataset) -> list[TrackedFile]:
    """Return the files that a table's version, as it is open, names."""
    version, found = dataset.version, list[TrackedFile]()
    for batch in dataset.tracked_files(min_version=version):
        rows = batch.filter(batch["version"].cast("int64").to_numpy() == version) if batch.num_rows else batch
        found += map(TrackedFile, rows["path"].to_pylist(), rows["type"].to_pylist())
    return sorted(found)


def new_hashes(lake: LakeStore, table: str, dataset: lance.LanceDataset) -> list[models.StoredFile]:
    """Return the hashes of those files of a table, as it is open, that have none yet, as rows for the catalog."""
    paths = sorted(file.path for file in tracked_files(dataset) if file.is_hashed_whole)
    of_table = select(models.StoredFile.path).where(models.StoredFile.table_name == table)
    with lake.catalog.read() as session:
        some = (paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE))
        known = {path for part in some for path in session.scalars(of_table.where(models.StoredFile.path.in_(part)))}
    return [_hashed(lake, table, path) for path in paths if path not in known]


def _hashed(lake: LakeStore, table: str, path: str) -> models.StoredFile:
    file = lake.table_dir(table) / path
    return models.StoredFile(table_name=table, path=path, size=file.stat().st_size, content_hash=file_hash(file))
