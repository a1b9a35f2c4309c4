"""Files of tables as they lie on disk: deleted rows, and files that no version names, included."""

from collections.abc import Sequence
from typing import Final

import lance
import pyarrow as pa
from lance.file import LanceFileReader

from proponent.schema.errors import DamagedLakeError

from .commit import WrittenBatch
from .lake import LakeStore, has_versions
from .objects import storage_error
from .place import LakePath, lance_options, names_in, sizes_below

Named = dict[int, frozenset[str]]
"""For every version of a table, the files of rows and deletions, and the indexes, that it names, by their path in the
table's folder."""
_PARTS: Final = {"data": 1, "_deletions": 1, "_indices": 2}
"""Folders of a table's files, and how many names lead on from there to a file."""


def read_columns(path: LakePath, columns: Sequence[str]) -> pa.Table:
    """Return some columns of a data file. Raises DamagedLakeError when the file cannot be read."""
    try:
        reader = LanceFileReader(str(path), columns=list(columns), storage_options=lance_options(path))
        return reader.read_all().to_table()
    except (OSError, ValueError) as error:
        if (away := storage_error(error)) is not None:
            raise away from error
        told = str(error).splitlines()[0]
        raise DamagedLakeError(f"{path} cannot be read: {told}; restore it from a backup") from error


def written_column(lake: LakeStore, batch: WrittenBatch, column: str) -> pa.Array:
    """Return one column of rows that lie in a table's folder, whether or not a version of the table names them."""
    folder = lake.table_dir(batch.table) / "data"
    parts = [read_columns(folder / file, [column])[column].combine_chunks() for file in batch.files]
    return pa.concat_arrays(parts) if parts else pa.array([], lake.schema(batch.table).field(column).type)


def tables_on_disk(lake: LakeStore) -> list[str]:
    """Return the names of all tables that have a version, whether or not a snapshot names them."""
    folders = [name for name in names_in(lake.tables_dir) if name.endswith(".lance")]
    return [name.removesuffix(".lance") for name in folders if has_versions(lake.tables_dir / name)]


def named_files(lake: LakeStore, table: str) -> Named:
    """Return what every version of a table names."""
    newest = lake.table(table)
    return {one["version"]: names_of(newest.checkout_version(one["version"])) for one in newest.versions()}


def names_of(dataset: lance.LanceDataset) -> frozenset[str]:
    """Return what one version of a table names."""
    fragments = dataset.get_fragments()
    data = {f"data/{file.path}" for fragment in fragments for file in fragment.data_files()}
    deletions = {name for fragment in fragments if (name := fragment.deletion_file())}
    segments = [segment for index in dataset.describe_indices() for segment in index.segments]
    return frozenset(data | deletions | {f"_indices/{segment.uuid}" for segment in segments})


def files_on_disk(lake: LakeStore, table: str) -> dict[str, int]:
    """Return the sizes of what `Named` has of a table and of its like, by their path in the table's folder."""
    sizes: dict[str, int] = {}
    for file, size in sorted(sizes_below(lake.table_dir(table)).items()):
        folder, *rest = file.split("/")
        if folder in _PARTS and len(rest) == _PARTS[folder]:
            name = f"{folder}/{rest[0]}"
            sizes[name] = sizes.get(name, 0) + size
    return sizes
