"""Rows of a table by their ids, however many those are."""

from collections.abc import Iterator, Sequence

import lance
import pyarrow as pa

from .scan import in_list

AT_ONCE = 10_000
"""Ids in one predicate: every predicate of a deletion is a commit of its own, and its ids are kept in the catalog."""


def in_lists(key: str, ids: pa.Array) -> Iterator[str]:
    """Yield Lance predicates that together are met by the rows with any of the ids."""
    for start in range(0, len(ids), AT_ONCE):
        yield in_list(key, ids.slice(start, AT_ONCE))


def rows_with(dataset: lance.LanceDataset, key: str, ids: pa.Array, *, columns: Sequence[str]) -> pa.Table:
    """Return some columns of the rows with any of the ids."""
    found = [dataset.to_table(columns=list(columns), filter=one) for one in in_lists(key, ids)]
    return pa.concat_tables(found) if found else dataset.to_table(columns=list(columns), limit=0)
