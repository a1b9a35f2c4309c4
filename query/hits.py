"""Hits of stored traces, with all that belongs to them."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from proponent.store.lake import LakeStore
from proponent.store.rows import rows_with
from proponent.store.snapshots import Snapshot

from .results import Result
from .session import Session


def hits_of(lake: LakeStore, at: Snapshot, trace_ids: Sequence[str]) -> Result:
    """Return the rows of relation `influence` for some traces in their order, proponents first, best first."""
    ids = [name for name in trace_ids if name.isascii() and name.isalnum()]  # no other text is an id
    hits = rows_with(lake.table("hits", at=at), "trace_id", pa.array(ids, pa.string()), columns=["passage_id"])
    with Session(lake, at, passages=pc.unique(hits["passage_id"].combine_chunks())) as session:
        return session.sql(
            "SELECT * FROM influence WHERE trace_id IN (SELECT unnest($ids)) "
            "ORDER BY list_position($ids, trace_id), side DESC, rank",
            {"ids": ids},
        )
