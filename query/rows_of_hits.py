"""Hits, with the passages, documents and mentions that they belong to, looked up by their ids.

DuckDB tells a scan of a Lance table nothing of what it is joined with, so a join of a thousand hits with a million
passages reads every text. And every trace is a fragment of table `hits`, which takes longer to open than to read.
"""

from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.tables import DOCUMENTS
from proponent.store.lake import LakeStore
from proponent.store.rows import AT_ONCE, rows_with
from proponent.store.snapshots import Snapshot
from proponent.store.withdrawn import hidden_documents

from .memo import Memo

MOST_HITS: Final = 200_000
"""Hits of which a session keeps rows of its own: some 20 MB."""


class RowsOfHits(NamedTuple):
    """Hits, and the rows of `passages`, `documents` and `mentions` that they belong to, by table; or none of them."""

    tables: dict[str, pa.Table]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(one.nbytes for one in self.tables.values())


def rows_of_hits(lake: LakeStore, at: Snapshot, documents: Snapshot, *, memo: Memo) -> dict[str, pa.Table]:
    """Return the hits of a snapshot, and the rows of `passages`, `documents` and `mentions` that they belong to.

    Passages and documents are those of the snapshot `documents`. Very many hits are left out themselves. Returns
    nothing where they are of so many passages that reading whole tables takes less time.
    """
    hidden = hidden_documents(lake.catalog, documents)
    # All sessions of a snapshot want the same.
    versions = at.versions["hits"], *(documents.versions[name] for name in ("passages", "documents", "mentions"))
    key = "rows of hits", versions, tuple(hidden.to_pylist())
    return memo.get(key, lambda: _found(lake, at, documents, hidden)).tables


def _found(lake: LakeStore, at: Snapshot, documents: Snapshot, hidden: pa.Array) -> RowsOfHits:
    hits = lake.table("hits", at=at)
    ids = pc.unique(hits.to_table(columns=["passage_id"])["passage_id"].combine_chunks())
    if len(ids) > AT_ONCE:
        return RowsOfHits({})

    def found(table: str, key: str, wanted: pa.Array, columns: list[str]) -> pa.Table:
        return rows_with(lake.table(table, at=documents), key, wanted, columns=columns)

    every = found("passages", "passage_id", ids, ["passage_id", "doc_id", "ordinal", "text"])
    is_hidden = pc.is_in(every["doc_id"], value_set=hidden)
    passages, gone = every.filter(pc.invert(is_hidden)), every.filter(is_hidden)["passage_id"].combine_chunks()
    of_documents, of_passages = (pc.unique(passages[key].combine_chunks()) for key in ("doc_id", "passage_id"))
    tables = {
        "passages": passages,
        "documents": found("documents", "doc_id", of_documents, DOCUMENTS.names),
        "mentions": found("mentions", "passage_id", of_passages, ["passage_id", "doc_id", "entity"]),
    }
    if hits.count_rows() <= MOST_HITS:
        rows = hits.to_table()
        tables["hits"] = rows.filter(pc.invert(pc.is_in(rows["passage_id"], value_set=gone)))
    return RowsOfHits(tables)
