"""Withdrawing documents: out of every table in one snapshot, and out of sight at every snapshot before it.

Notable: earlier snapshots still name files that hold a withdrawn document's text, so readers hide it there
(`hidden_documents`). An ingest leaves a withdrawn document out, so that it does not come back with its corpus's files.
"""

from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.ids import fresh_id
from proponent.store.commit import Changes, Committer, committing
from proponent.store.lake import LakeStore
from proponent.store.leases import lease
from proponent.store.rows import in_lists, rows_with
from proponent.store.runs import recorded_run
from proponent.store.snapshots import Snapshot, latest_snapshot

from .removals import remove_documents

WAIT_S = 5.0
"""Seconds to wait for an ingest or an encoding to end."""


@dataclass
class Withdrawn:
    """What a withdrawal touches."""

    documents: int = 0
    passages: int = 0
    mentions: int = 0
    hits: int = 0
    traces: int = 0
    """Traces that lose hits."""
    encodings: int = 0
    """Encodings of texts that no other document has."""


@dataclass(frozen=True)
class _Parts:
    """Everything of a lake that belongs to some documents."""

    documents: pa.Table
    changes: Changes
    """What takes all of it out."""
    counts: Withdrawn


def withdraw(lake: LakeStore, doc_ids: pa.Array, *, reason: str | None = None, dry_run: bool = False) -> Withdrawn:
    """Withdraw documents; return what that touched, or, in a dry run, what it would touch.

    Raises LakeBusyError while one of the documents' corpora is being ingested, or passages are being encoded.
    """
    if dry_run:
        return _parts_of(lake, latest_snapshot(lake.catalog), doc_ids).counts
    with ExitStack() as held:
        leases = [held.enter_context(lease(lake.catalog, name, wait_s=WAIT_S)) for name in _locks(lake, doc_ids)]
        committer = held.enter_context(committing(lake, under=leases))
        parts = _parts_of(lake, latest_snapshot(lake.catalog), doc_ids)
        if parts.counts.documents:
            _publish(lake, committer, parts, reason=reason)
    return parts.counts


def _locks(lake: LakeStore, doc_ids: pa.Array) -> list[str]:
    documents = _documents(lake, latest_snapshot(lake.catalog), doc_ids)
    with lake.catalog.read() as session:
        encoders = list(session.scalars(select(models.Encoder.name)))
    corpora = set(documents["corpus"].to_pylist())
    return sorted([f"ingest {corpus}" for corpus in corpora] + [f"encode {encoder}" for encoder in encoders])


def _documents(lake: LakeStore, at: Snapshot, doc_ids: pa.Array) -> pa.Table:
    return rows_with(lake.table("documents", at=at), "doc_id", doc_ids, columns=["doc_id", "doc_key", "corpus"])


def _parts_of(lake: LakeStore, at: Snapshot, doc_ids: pa.Array) -> _Parts:
    documents, changes = _documents(lake, at, doc_ids), Changes()
    ids = documents["doc_id"].combine_chunks()
    passages = rows_with(lake.table("passages", at=at), "doc_id", ids, columns=["passage_id"])["passage_id"]
    hits = rows_with(lake.table("hits", at=at), "passage_id", passages.combine_chunks(), columns=["trace_id"])
    stale = remove_documents(lake, at, changes, ids)
    for predicate in in_lists("passage_id", passages.combine_chunks()):
        changes.delete("hits", predicate)
    counts = Withdrawn(
        documents=documents.num_rows,
        passages=len(passages),
        mentions=rows_with(lake.table("mentions", at=at), "doc_id", ids, columns=["doc_id"]).num_rows,
        hits=hits.num_rows,
        traces=len(pc.unique(hits["trace_id"].combine_chunks())),
        encodings=sum(len(hashes) for table, hashes in stale.items() if table.startswith("encodings_")),
    )
    return _Parts(documents, changes, counts)


def _publish(lake: LakeStore, committer: Committer, parts: _Parts, *, reason: str | None) -> None:
    described = {"reason": reason, "documents": parts.counts.documents}
    with recorded_run(lake.catalog, "delete", described) as run:
        rows = [
            models.Withdrawal(withdrawal_id=fresh_id(), run_id=run.run_id, reason=reason, **document)
            for document in parts.documents.to_pylist()
        ]
        committer.publish(run.run_id, parts.changes.take(), rows=rows)
        run.counts = dict(vars(parts.counts))
