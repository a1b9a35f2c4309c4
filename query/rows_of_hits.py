"""Rows of passages, documents and mentions that hits belong to, looked up by their ids.

DuckDB tells a scan of a Lance table nothing of what it is joined with, so a join of a thousand hits with a million
passages reads every text.
"""

import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.tables import DOCUMENTS
from proponent.store.lake import LakeStore
from proponent.store.rows import AT_ONCE, rows_with
from proponent.store.snapshots import Snapshot
from proponent.store.withdrawn import hidden_documents


def rows_of_hits(lake: LakeStore, at: Snapshot, documents: Snapshot) -> dict[str, pa.Table]:
    """Return the rows of `passages`, `documents` and `mentions` that the hits of a snapshot belong to, by table.

    Passages and documents are those of the snapshot `documents`. Returns nothing where there are so many that reading
    whole tables takes less time.
    """
    ids = pc.unique(lake.table("hits", at=at).to_table(columns=["passage_id"])["passage_id"].combine_chunks())
    if len(ids) > AT_ONCE:
        return {}
    hidden = hidden_documents(lake.catalog, documents)

    def found(table: str, key: str, wanted: pa.Array, columns: list[str]) -> pa.Table:
        rows = rows_with(lake.table(table, at=documents), key, wanted, columns=columns)
        return rows.filter(pc.invert(pc.is_in(rows["doc_id"], value_set=hidden)))

    passages = found("passages", "passage_id", ids, ["passage_id", "doc_id", "ordinal", "text"])
    of_documents = pc.unique(passages["doc_id"].combine_chunks())
    return {
        "passages": passages,
        "documents": found("documents", "doc_id", of_documents, DOCUMENTS.names),
        "mentions": found("mentions", "passage_id", ids, ["passage_id", "doc_id", "entity"]),
    }
