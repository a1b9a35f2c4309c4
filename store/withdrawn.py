"""Documents that were withdrawn: hidden in every snapshot from before, whatever its files still hold."""

from typing import NamedTuple

import pyarrow as pa
from sqlalchemy import select

from proponent.schema import catalog as models

from .catalog import Catalog
from .lake import LakeStore
from .snapshots import Snapshot, readable_snapshots


class Place(NamedTuple):
    """Where a hit stands in its trace."""

    side: str
    rank: int


def hidden_documents(catalog: Catalog, at: Snapshot) -> pa.Array:
    """Return the ids of the documents that a snapshot has and nobody may see any more."""
    later = (
        select(models.Withdrawal.doc_id)
        .join(models.Snapshot, models.Snapshot.run_id == models.Withdrawal.run_id)
        .where(models.Snapshot.snapshot_id > at.snapshot_id)
        .distinct()
    )
    with catalog.read() as session:
        return pa.array(session.scalars(later).all(), pa.string())


def withdrawn_documents(catalog: Catalog, corpus: str) -> set[str]:
    """Return the ids of a corpus's documents that were withdrawn."""
    with catalog.read() as session:
        return set(session.scalars(select(models.Withdrawal.doc_id).where(models.Withdrawal.corpus == corpus)))


def withdrawn_hits(lake: LakeStore, at: Snapshot, trace: models.Trace) -> list[Place]:
    """Return the places of a trace's hits that are gone at a snapshot, with the documents that they were of.

    They are found in the snapshots before the withdrawals, and by gaps between the ranks where those are erased.
    """
    when = (
        select(models.Snapshot.snapshot_id)
        .join(models.Withdrawal, models.Withdrawal.run_id == models.Snapshot.run_id)
        .where(models.Snapshot.snapshot_id > trace.snapshot, models.Snapshot.snapshot_id <= at.snapshot_id)
        .distinct()
    )
    with lake.catalog.read() as session:
        withdrawals = list(session.scalars(when))
    readable = {one.snapshot_id: one for one in readable_snapshots(lake.catalog)}
    before = [readable[number - 1] for number in withdrawals if number - 1 in readable]
    there = _places(lake, at, trace.trace_id)
    known = {place for snapshot in before for place in _places(lake, snapshot, trace.trace_id)}
    known |= {Place(side, rank) for side, last in there for rank in range(1, last)}
    return sorted(known - there)


def _places(lake: LakeStore, at: Snapshot, trace_id: str) -> set[Place]:
    rows = lake.table("hits", at=at).to_table(columns=["side", "rank"], filter=f"trace_id = '{trace_id}'")
    return set(map(Place, rows["side"].to_pylist(), rows["rank"].to_pylist()))
