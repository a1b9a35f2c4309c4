"""What two versions of a table do not have in common, found by where its rows are stored and not by comparing them.

Notable: a data file never changes, so a row that lies in the same place of the same file is the same row. Only files
that one version has alone are read, and of files that lost rows, the rows that they lost.
"""

import lance
import numpy as np
import pyarrow as pa

_OFFSET = 0xFFFFFFFF
"""The part of a row's address that is its place in the data file; above it is the number of the fragment."""


def files_of(fragment: lance.LanceFragment) -> str:
    """Return the names of a fragment's data files, which are those of no other fragment, at any version."""
    return " ".join(file.path for file in fragment.data_files())


def differing(one: lance.LanceDataset, other: lance.LanceDataset, column: str) -> pa.ChunkedArray:
    """Return a column's values in the rows that only one of two versions of a table has."""
    found = [*_only_in(one, other, column), *_only_in(other, one, column)]
    return pa.chunked_array(found, one.schema.field(column).type)


def _only_in(here: lance.LanceDataset, there: lance.LanceDataset, column: str) -> list[pa.Array]:
    twins = {files_of(fragment): fragment for fragment in there.get_fragments()}
    found = []
    for fragment in here.get_fragments():
        twin = twins.get(files_of(fragment))
        if twin is not None and twin.deletion_file() == fragment.deletion_file():
            continue
        rows = here.scanner(fragments=[fragment], columns=[column], with_row_address=True).to_table()
        if twin is not None:
            addresses = there.scanner(fragments=[twin], columns=[], with_row_address=True).to_table()["_rowaddr"]
            rows = rows.filter(np.isin(_offsets(rows["_rowaddr"]), _offsets(addresses), invert=True))
        found += rows[column].chunks
    return found


def _offsets(addresses: pa.ChunkedArray) -> np.ndarray:
    offsets: np.ndarray = addresses.to_numpy() & _OFFSET
    return offsets
