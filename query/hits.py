"""Hits of stored traces, with all that belongs to them."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from proponent.store.lake import LakeStore
from proponent.store.rows import rows_with
from proponent.store.snapshots import Snapshot

from .results import Result
from .session import Session


def hits_of(
    lake: LakeStore,
    at: Snapshot,
    trace_ids: Sequence[str],
    *,
    documents: Snapshot | None = None,
    fused: bool = False,
    recomputed: int | None = None,
) -> Result:
    """Return the rows of relation `influence` for some traces in their order, proponents first, best first.

    Passages and documents are those of the snapshot `documents`, by default of `at`. With `fused` the rows have the
    columns of relation `fused`, too, and with `recomputed` those of `recomputed` for so many hits of each side.
    """
    ids = [name for name in trace_ids if name.isascii() and name.isalnum()]  # no other text is an id
    hits = rows_with(lake.table("hits", at=at), "trace_id", pa.array(ids, pa.string()), columns=["passage_id"])
    name = "hits_fused" if fused else "hits" if recomputed is None else "hits_recomputed"
    asked = {"ids": ids} if recomputed is None else {"ids": ids, "n": recomputed}
    with Session(lake, at, documents=documents, passages=pc.unique(hits["passage_id"].combine_chunks())) as session:
        return Result(session.trusted(name, asked))
