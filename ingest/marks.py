"""Marking documents as those that the model was, or was not, trained on.

Notable: a mark changes one column of the documents' rows, which are written anew in one published snapshot. Their
content hash stays, so that the mark outlives another ingest of the same rows.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.tables import DOCUMENTS
from proponent.store.commit import Changes, committing, write_batch
from proponent.store.lake import LakeStore
from proponent.store.leases import lease
from proponent.store.rows import in_lists, rows_with
from proponent.store.runs import recorded_run
from proponent.store.snapshots import Snapshot, latest_snapshot

WAIT_S = 5.0
"""Seconds to wait for an ingest to end."""
_ROWS_AT_ONCE: Final = 8192


@dataclass(frozen=True)
class Marked:
    """What a mark touches."""

    documents: int
    """Documents that were meant."""
    changed: int
    """Those of them that said something else before."""


def mark(lake: LakeStore, doc_ids: pa.Array, *, trained_on: bool | None, where: str, dry_run: bool = False) -> Marked:
    """Say of documents whether the model was trained on them; return what that changes, or, dry, would change.

    None says that nobody knows. `where` is what chose the documents, for the record. Raises LakeBusyError while one of
    their corpora is being ingested.
    """
    at = latest_snapshot(lake.catalog)
    if dry_run:
        return _count(_meant(lake, at, doc_ids), trained_on)
    corpora = _meant(lake, at, doc_ids)["corpus"].to_pylist()
    with ExitStack() as held:
        names = sorted({f"ingest {corpus}" for corpus in corpora})
        leases = [held.enter_context(lease(lake.catalog, name, wait_s=WAIT_S)) for name in names]
        committer = held.enter_context(committing(lake, under=leases))
        at = latest_snapshot(lake.catalog)
        meant = _meant(lake, at, doc_ids)
        marked = _count(meant, trained_on)
        if marked.changed:
            said = {True: "yes", False: "no", None: "unknown"}[trained_on]
            with recorded_run(lake.catalog, "mark", {"trained_on": said, "where": where}) as run:
                committer.publish(run.run_id, _rewritten(lake, at, _others(meant, trained_on), trained_on).take())
                run.counts = dict(vars(marked))
    return marked


def _meant(lake: LakeStore, at: Snapshot, doc_ids: pa.Array) -> pa.Table:
    return rows_with(lake.table("documents", at=at), "doc_id", doc_ids, columns=["doc_id", "corpus", "trained_on"])


def _others(meant: pa.Table, trained_on: bool | None) -> pa.Array:
    """Return the ids of the documents that say something else."""
    same = pc.is_in(meant["trained_on"], value_set=pa.array([trained_on], pa.bool_()))
    return meant.filter(pc.invert(same))["doc_id"].combine_chunks()


def _count(meant: pa.Table, trained_on: bool | None) -> Marked:
    return Marked(meant.num_rows, len(_others(meant, trained_on)))


def _rewritten(lake: LakeStore, at: Snapshot, doc_ids: pa.Array, trained_on: bool | None) -> Changes:
    changes, column = Changes(), DOCUMENTS.get_field_index("trained_on")
    for predicate in in_lists("doc_id", doc_ids):
        changes.delete("documents", predicate)
    for batch in lake.table("documents", at=at).scanner(batch_size=_ROWS_AT_ONCE).to_batches():
        rows = pa.Table.from_batches([batch]).filter(pc.is_in(batch["doc_id"], value_set=doc_ids))
        if rows.num_rows:
            said = pa.array([trained_on] * rows.num_rows, pa.bool_())
            changes.append(write_batch(lake, "documents", rows.set_column(column, DOCUMENTS.field(column), said)))
    return changes
