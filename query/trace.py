"""Tracing: encode queries, search, and store what was found.

Notable: a trace's id is a hash of everything that decides its result, the versions of the searched tables included.
Asking the same thing of the same data again finds the stored trace and changes nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from sqlalchemy import select

from proponent.encode.encoder import Encoder, Encodings
from proponent.encode.gradients import Example
from proponent.encode.methods import METHODS, query_vectors, require_moments
from proponent.encode.tokens import query_example
from proponent.schema import catalog as models
from proponent.schema.errors import EncodingError, SettingsError
from proponent.schema.ids import content_id, query_id
from proponent.schema.settings import IDENTITY, REFERENCE, TraceSettings
from proponent.schema.tables import HITS, QUERIES, encodings_table, index_table
from proponent.store.commit import Changes, committing, write_batch
from proponent.store.indexes import UsableIndex, find_index
from proponent.store.lake import LakeStore
from proponent.store.runs import library_versions, recorded_run
from proponent.store.snapshots import Snapshot, latest_snapshot

from .curvatures import NamedCurvature, find_curvature
from .search import Found, find_candidates, search
from .session import Session

T = TypeVar("T")
_SEARCHED = ("documents", "passages", "mentions")


class Question(NamedTuple):
    """What is asked: why the model says this target after this prompt."""

    prompt: str
    target: str
    completed: bool = False
    """Whether the model chose the target itself."""
    query_set: str | None = None


def trace(
    lake: LakeStore,
    session: Session,
    at: Snapshot,
    questions: Sequence[Question],
    settings: TraceSettings,
    *,
    encoder_row: models.Encoder,
    encoder: Encoder,
    progress: Callable[[int], object] = lambda _n: None,
) -> list[str]:
    """Trace questions at a snapshot and store the results; return the traces' ids in the questions' order.

    Raises EncodingError for a question that has no encoding, FilterError, ModelMismatchError when the encoder is not
    made for the method, NotFoundError for a curvature that the encoder does not have, and SettingsError for an
    approximate search that the index cannot do.
    """
    method = METHODS[settings.method]
    require_moments(method, encoder=encoder_row.name, moments=encoder_row.moments)
    index = _index(lake, settings, encoder_row)
    named = settings.curvature or (REFERENCE if method.whitened else IDENTITY)
    curvature = find_curvature(lake, encoder_row, encoder, named)
    ids = [_trace_id(question, settings, at, encoder_row, curvature) for question in questions]
    new = _not_stored(lake, dict(zip(ids, questions, strict=True)))
    if not new:
        return ids
    asked = list(new.values())
    encoded = _encode(encoder, asked, progress)
    vectors = query_vectors(method, curvature.curvature, encoded.encodings.vectors).numpy()
    candidates = find_candidates(lake, session, at, encoder=encoder_row.name, where=settings.filter)
    found = search(
        lake,
        at,
        encoder=encoder_row.name,
        queries=np.ascontiguousarray(vectors),
        candidates=candidates,
        k=settings.k,
        unit_norm=method.unit_norm,
        index=index,
        norms=curvature.norms(lake, at, allowed=candidates.text_hashes) if method.unit_norm else None,
    )
    rows = _catalog_rows(
        new, settings, at, encoder_row, encoded, curvature=curvature, n_candidates=len(candidates), index=index
    )
    _store(lake, encoder_row.name, rows, encoded, dict(zip(new, found, strict=True)))
    return ids


class _Encoded(NamedTuple):
    examples: list[Example]
    encodings: Encodings


def _index(lake: LakeStore, settings: TraceSettings, row: models.Encoder) -> UsableIndex | None:
    if not settings.approximate:
        return None
    if settings.filter:
        raise SettingsError("the index cannot search under a filter; leave out --approximate")
    method = METHODS[settings.method]
    if not (method.unit_norm and method.whitened):
        raise SettingsError(f"the index is for whitened unit vectors, which method {method.name!r} does not use")
    return find_index(lake, row.name)


def _trace_id(
    question: Question, settings: TraceSettings, at: Snapshot, row: models.Encoder, curvature: NamedCurvature
) -> str:
    tables = [*_SEARCHED, encodings_table(row.name), *([index_table(row.name)] if settings.approximate else [])]
    return content_id(
        "trace",
        question.prompt,
        question.target,
        row.encoder_id,
        settings.method,
        settings.filter or "",
        settings.k,
        int(settings.approximate),
        *(f"{table}@{at.versions.get(table)}" for table in tables),
        *([curvature.curvature_id] if settings.curvature not in (None, REFERENCE) else []),
    )


def _not_stored(lake: LakeStore, by_id: dict[str, T]) -> dict[str, T]:
    with lake.catalog.read() as session:
        stored = set(session.scalars(select(models.Trace.trace_id).where(models.Trace.trace_id.in_(by_id))))
    return {trace_id: value for trace_id, value in by_id.items() if trace_id not in stored}


def _encode(encoder: Encoder, questions: Sequence[Question], progress: Callable[[int], object]) -> _Encoded:
    tokenizer = encoder.projector.checkpoint.tokenizer
    examples = [
        query_example(tokenizer, question.prompt, question.target, context_length=encoder.context_length)
        for question in questions
    ]
    encodings = encoder.encode(examples, progress=progress)
    norms = encodings.vectors.norm(dim=1)
    for question, norm, loss in zip(questions, norms.tolist(), encodings.losses.tolist(), strict=True):
        if not (np.isfinite(norm) and np.isfinite(loss) and norm > 0):
            raise EncodingError(f"the gradient of {question.target!r} after {question.prompt!r} is zero or not finite")
    return _Encoded(examples, encodings)


def _catalog_rows(
    asked: dict[str, Question],
    settings: TraceSettings,
    at: Snapshot,
    row: models.Encoder,
    encoded: _Encoded,
    *,
    curvature: NamedCurvature,
    n_candidates: int,
    index: UsableIndex | None,
) -> list[models.Trace | models.Query]:
    rows: list[models.Trace | models.Query] = []
    for place, (trace_id, question) in enumerate(asked.items()):
        asked_id = query_id(question.prompt, question.target)
        rows.append(
            models.Query(
                query_id=asked_id, prompt=question.prompt, target=question.target, query_set=question.query_set
            )
        )
        rows.append(
            models.Trace(
                trace_id=trace_id,
                query_id=asked_id,
                encoder=row.name,
                curvature=curvature.name,
                method=settings.method,
                filter=settings.filter,
                snapshot=at.snapshot_id,
                k=settings.k,
                exact=index is None,
                recall=index.recall if index else None,
                n_candidates=n_candidates,
                target_loss=float(encoded.encodings.losses[place]),
                target_tokens=encoded.examples[place].n_loss,
                completed=question.completed,
                settings={
                    "versions": library_versions(),
                    "encoder_id": row.encoder_id,
                    "curvature": curvature.recorded,
                },
            )
        )
    return rows


def _store(
    lake: LakeStore,
    encoder: str,
    rows: Sequence[models.Trace | models.Query],
    encoded: _Encoded,
    found: dict[str, Found],
) -> None:
    query_ids = [row.query_id for row in rows if isinstance(row, models.Trace)]
    with recorded_run(lake.catalog, "trace", {"traces": list(found)}) as run, committing(lake) as committer:
        # Somebody else may have stored some of these traces while they were computed here.
        fresh = _not_stored(lake, found)
        changes = Changes()
        if queries := _query_rows(lake, latest_snapshot(lake.catalog), encoder, query_ids, encoded):
            changes.append(write_batch(lake, "queries", pa.Table.from_pylist(queries, QUERIES)))
        if hits := _hit_rows(fresh):
            changes.append(write_batch(lake, "hits", pa.Table.from_pylist(hits, HITS)))
        committer.publish(run.run_id, changes.take(), rows=rows)
        run.counts = {"traces": len(fresh), "hits": len(hits)}


def _hit_rows(found: dict[str, Found]) -> list[dict[str, Any]]:
    return [
        {"trace_id": trace_id, "side": side, **hit._asdict()}
        for trace_id, both in found.items()
        for side, hits in (("proponent", both.proponents), ("opponent", both.opponents))
        for hit in hits
    ]


def _query_rows(
    lake: LakeStore, at: Snapshot, encoder: str, query_ids: Sequence[str], encoded: _Encoded
) -> list[dict[str, Any]]:
    stored = lake.table("queries", at=at).to_table(columns=["query_id"], filter=f"encoder = '{encoder}'")
    known = set(stored["query_id"].to_pylist())
    rows = {}
    for place, asked in enumerate(query_ids):
        if asked not in known:
            vector = encoded.encodings.vectors[place]
            rows[asked] = {
                "query_id": asked,
                "encoder": encoder,
                "norm": float(vector.norm()),
                "loss": float(encoded.encodings.losses[place]),
                "n_tokens": encoded.examples[place].n_loss,
                "vector": vector.numpy(),
            }
    return list(rows.values())
