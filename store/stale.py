"""Encodings of texts that no passage has any more.

Notable: encodings, the norms and the index vectors made of them belong to texts, not to documents. They are stale when
no passage has their text, and a publication that takes passages away takes them along. An encoding run that began
before such a publication may still add some afterwards: nobody sees those, and the next publication that takes
passages away, or `compact`, removes them.
"""

import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.tables import encodings_table

from .lake import LakeStore
from .snapshots import Snapshot

_OF_TEXTS = ("encodings", "index", "norms")


def is_of_texts(table: str) -> bool:
    """Return whether a table's rows belong to texts."""
    return table.partition("_")[0] in _OF_TEXTS


def stale_texts(lake: LakeStore, at: Snapshot, *, gone: pa.Array, coming: pa.Array) -> dict[str, pa.Array]:
    """Return for each table of texts what is stale in it once some documents are gone and some texts have come.

    `gone` holds doc_ids, `coming` the text hashes of passages that appear in the same publication. What was stale
    before is among it.
    """
    passages = lake.table("passages", at=at).to_table(columns=["doc_id", "text_hash"])
    staying = passages.filter(pc.invert(pc.is_in(passages["doc_id"], value_set=gone)))["text_hash"]
    needed = pa.concat_arrays([staying.combine_chunks(), coming.cast(pa.string())])
    stale = {}
    for table in filter(is_of_texts, sorted(at.versions)):
        stored = lake.table(table, at=at).to_table(columns=["text_hash"])["text_hash"].combine_chunks()
        found = stored.filter(pc.invert(pc.is_in(stored, value_set=needed)))
        if len(found):
            stale[table] = found
    return stale


def encoded_texts(lake: LakeStore, at: Snapshot, encoder: str) -> pa.Array:
    """Return the hashes of an encoder's encodings, in stored order, without stale ones."""
    table = encodings_table(encoder)
    if not at.has(table):
        return pa.array([], pa.string())
    stored = lake.table(table, at=at).scanner(columns=["text_hash"], scan_in_order=True).to_table()["text_hash"]
    texts = lake.table("passages", at=at).to_table(columns=["text_hash"])["text_hash"].combine_chunks()
    return stored.combine_chunks().filter(pc.is_in(stored.combine_chunks(), value_set=texts))
