"""Taking documents out of a lake: what goes with them, as deletions of one publication."""

from typing import Final

import pyarrow as pa

from proponent.store.commit import Changes, WrittenBatch
from proponent.store.files import written_column
from proponent.store.lake import LakeStore
from proponent.store.rows import in_lists
from proponent.store.snapshots import Snapshot
from proponent.store.stale import stale_texts

OF_DOCUMENTS: Final = ("documents", "passages", "mentions")
"""Tables whose rows belong to documents."""


def remove_documents(lake: LakeStore, at: Snapshot, changes: Changes, doc_ids: pa.Array) -> dict[str, pa.Array]:
    """Add to changes that documents go, with their passages, mentions and the encodings that nobody needs any more.

    Passages that the changes append, those of a new version of the documents, keep the encodings of their texts. Has
    to be called under the commit lock, since other publications decide, too, who needs an encoding. Returns the text
    hashes that go, by table.
    """
    if not len(doc_ids):
        return {}
    coming = _texts_of(lake, changes.appended("passages"))
    if at.has("near_duplicates"):
        for key in ("doc_id", "of_doc_id"):
            for predicate in in_lists(key, doc_ids):
                changes.delete("near_duplicates", predicate)
    for table in OF_DOCUMENTS:
        for predicate in in_lists("doc_id", doc_ids):
            changes.delete(table, predicate)
    stale = stale_texts(lake, at, gone=doc_ids, coming=coming)
    for table, hashes in stale.items():
        for predicate in in_lists("text_hash", hashes):
            changes.delete(table, predicate)
    return stale


def _texts_of(lake: LakeStore, passages: list[WrittenBatch]) -> pa.Array:
    hashes = [written_column(lake, batch, "text_hash") for batch in passages]
    return pa.concat_arrays(hashes) if hashes else pa.array([], pa.string())
