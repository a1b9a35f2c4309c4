"""Which documents damage is about, as far as the tables that are sound can tell."""

from collections.abc import Iterator, Mapping

import lance
import pyarrow as pa
import pyarrow.compute as pc

from .findings import BACKUP, Finding, named
from .rules import miscounted, passages_by_document
from .tables import CheckedTable


def documents_concerned(tables: Mapping[str, CheckedTable]) -> Iterator[Finding]:
    """Yield the documents that have lost passages, or that have passages and are not there any more."""
    documents, passages = tables.get("documents"), tables.get("passages")
    if documents is None or passages is None or documents.dataset is None or passages.dataset is None:
        return
    if documents.is_sound and passages.damaged:
        counts = passages_by_document(passages.dataset, _sound_fragments(passages))
        keys = miscounted(documents.dataset, counts)["doc_key"].to_pylist()
        if keys:
            what = f"{len(keys):,} documents have passages in damaged files: {named(keys)}"
            yield Finding("damage", "concerned", "passages", what, BACKUP, "passages")
    elif passages.is_sound and documents.damaged:
        there = [fragment.to_table(columns=["doc_id"])["doc_id"] for fragment in _sound_fragments(documents)]
        known = pa.chunked_array([chunk for part in there for chunk in part.chunks], pa.string())
        ids = pc.unique(passages.dataset.to_table(columns=["doc_id"])["doc_id"])
        lost = ids.filter(pc.invert(pc.is_in(ids, value_set=known))).to_pylist()
        if lost:
            what = f"{len(lost):,} documents, by their ids, are in damaged files: {named(lost)}"
            yield Finding("damage", "concerned", "documents", what, BACKUP, "documents")


def _sound_fragments(table: CheckedTable) -> list[lance.LanceFragment]:
    """Return the fragments of a table that can be read, without those whose deleted rows nobody knows."""
    assert table.dataset is not None
    return [
        fragment
        for fragment in table.dataset.get_fragments()
        if fragment.deletion_file() not in table.damaged
        and not any(f"data/{file.path}" in table.damaged for file in fragment.data_files())
    ]
