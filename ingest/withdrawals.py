"""Withdrawing documents: out of every table in one snapshot, and out of sight at every snapshot before it.

Notable: earlier snapshots still name files that hold a withdrawn document's text, so readers hide it there
(`hidden_documents`). An ingest leaves a withdrawn document out, so that it does not come back with its corpus's files.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.ids import fresh_id
from proponent.store.commit import Changes, committing, finish_interrupted
from proponent.store.lake import LakeStore
from proponent.store.leases import Lease, lease
from proponent.store.runs import recorded_run
from proponent.store.scan import in_list
from proponent.store.snapshots import Snapshot, latest_snapshot

_OF_DOCUMENTS: Final = ("documents", "passages", "mentions")
_AT_ONCE: Final = 1000
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
    passage_ids: pa.Array
    text_hashes: pa.Array
    """Texts that stand in these documents alone."""


def withdraw(lake: LakeStore, doc_ids: pa.Array, *, reason: str | None = None, dry_run: bool = False) -> Withdrawn:
    """Withdraw documents; return what that touched, or, in a dry run, what it would touch.

    Raises LakeBusyError while one of the documents' corpora is being ingested, or passages are being encoded.
    """
    if dry_run:
        at = latest_snapshot(lake.catalog)
        return _count(lake, at, _parts_of(lake, at, doc_ids))
    with ExitStack() as held:
        leases = [held.enter_context(lease(lake.catalog, name, wait_s=WAIT_S)) for name in _locks(lake, doc_ids)]
        finish_interrupted(lake)
        at = latest_snapshot(lake.catalog)
        parts = _parts_of(lake, at, doc_ids)
        counts = _count(lake, at, parts)
        if counts.documents:
            _publish(lake, at, parts, counts, leases=leases, reason=reason)
    return counts


def _locks(lake: LakeStore, doc_ids: pa.Array) -> list[str]:
    documents = _documents(lake, latest_snapshot(lake.catalog), doc_ids)
    with lake.catalog.read() as session:
        encoders = list(session.scalars(select(models.Encoder.name)))
    corpora = set(documents["corpus"].to_pylist())
    return sorted([f"ingest {corpus}" for corpus in corpora] + [f"encode {encoder}" for encoder in encoders])


def _documents(lake: LakeStore, at: Snapshot, doc_ids: pa.Array) -> pa.Table:
    return _rows(lake, at, "documents", "doc_id", doc_ids, columns=["doc_id", "doc_key", "corpus"])


def _parts_of(lake: LakeStore, at: Snapshot, doc_ids: pa.Array) -> _Parts:
    passages = lake.table("passages", at=at).to_table(columns=["passage_id", "doc_id", "text_hash"])
    theirs = pc.is_in(passages["doc_id"], value_set=doc_ids)
    withdrawn, kept = passages.filter(theirs), passages.filter(pc.invert(theirs))
    hashes = pc.unique(withdrawn["text_hash"].combine_chunks())
    alone = pc.invert(pc.is_in(hashes, value_set=kept["text_hash"].combine_chunks()))
    return _Parts(_documents(lake, at, doc_ids), withdrawn["passage_id"].combine_chunks(), hashes.filter(alone))


def _count(lake: LakeStore, at: Snapshot, parts: _Parts) -> Withdrawn:
    doc_ids = parts.documents["doc_id"].combine_chunks()
    hits = _rows(lake, at, "hits", "passage_id", parts.passage_ids, columns=["trace_id"])
    encoded = [
        _rows(lake, at, table, "text_hash", parts.text_hashes).num_rows
        for table in at.versions
        if table.startswith("encodings_")
    ]
    return Withdrawn(
        documents=parts.documents.num_rows,
        passages=len(parts.passage_ids),
        mentions=_rows(lake, at, "mentions", "doc_id", doc_ids).num_rows,
        hits=hits.num_rows,
        traces=len(pc.unique(hits["trace_id"].combine_chunks())),
        encodings=sum(encoded),
    )


def _rows(
    lake: LakeStore, at: Snapshot, table: str, key: str, ids: pa.Array, *, columns: Sequence[str] = ()
) -> pa.Table:
    dataset = lake.table(table, at=at)
    columns = list(columns) or [key]
    found = [dataset.to_table(columns=columns, filter=in_list(key, some)) for some in _slices(ids)]
    return pa.concat_tables(found) if found else dataset.to_table(columns=columns, limit=0)


def _publish(
    lake: LakeStore, at: Snapshot, parts: _Parts, counts: Withdrawn, *, leases: Sequence[Lease], reason: str | None
) -> None:
    doc_ids = parts.documents["doc_id"].combine_chunks()
    changes = Changes()
    for table in _OF_DOCUMENTS:
        _delete(changes, table, "doc_id", doc_ids)
    if at.has("near_duplicates"):
        for key in ("doc_id", "of_doc_id"):
            _delete(changes, "near_duplicates", key, doc_ids)
    _delete(changes, "hits", "passage_id", parts.passage_ids)
    for table in sorted(at.versions):
        if table.partition("_")[0] in ("encodings", "index", "norms"):
            _delete(changes, table, "text_hash", parts.text_hashes)
    described = {"reason": reason, "documents": counts.documents}
    with recorded_run(lake.catalog, "delete", described) as run, committing(lake, under=leases) as committer:
        rows = [
            models.Withdrawal(withdrawal_id=fresh_id(), run_id=run.run_id, reason=reason, **document)
            for document in parts.documents.to_pylist()
        ]
        committer.publish(run.run_id, changes.take(), rows=rows)
        run.counts = dict(vars(counts))


def _delete(changes: Changes, table: str, key: str, ids: pa.Array) -> None:
    for some in _slices(ids):
        changes.delete(table, in_list(key, some))


def _slices(ids: pa.Array) -> Iterator[pa.Array]:
    for start in range(0, len(ids), _AT_ONCE):
        yield ids.slice(start, _AT_ONCE)
