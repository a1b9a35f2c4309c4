"""Tracing: encode queries, search, and store what was found.

Notable: a trace's id is a hash of everything that decides its result, the versions of the searched tables included.
Asking the same thing of the same data again finds the stored trace and changes nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import torch
from sqlalchemy import select

from proponent.encode.encoder import Encoder
from proponent.encode.gradients import Example
from proponent.encode.methods import METHODS, query_vectors, require_moments
from proponent.encode.tokens import query_example
from proponent.schema import catalog as models
from proponent.schema.errors import EncodingError, SettingsError
from proponent.schema.ids import content_id
from proponent.schema.settings import TraceSettings
from proponent.schema.tables import HITS, QUERIES, codes_of, encodings_table, index_table
from proponent.store.commit import Changes, committing, write_batch
from proponent.store.indexes import UsableIndex, find_index
from proponent.store.lake import LakeStore
from proponent.store.runs import library_versions, recorded_run
from proponent.store.snapshots import Snapshot, latest_snapshot

from .questions import Question, naming
from .search import Found, find_candidates, search
from .session import Session

T = TypeVar("T")
_SEARCHED = ("documents", "passages", "mentions")


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

    A mean over queries is one trace; its queries are encoded and stored like others. Raises EncodingError for a
    question that has no encoding, FilterError, ModelMismatchError when the encoder is not made for the method, and
    SettingsError for an approximate search that the index cannot do.
    """
    method = METHODS[settings.method]
    require_moments(method, encoder=encoder_row.name, moments=encoder_row.moments)
    index = _index(lake, settings, encoder_row)
    ids = [_trace_id(question, settings, at, encoder_row) for question in questions]
    new = _not_stored(lake, dict(zip(ids, questions, strict=True)))
    if not new:
        return ids
    asked = list(new.values())
    queries = [query for question in asked for query in question.queries]
    encoded = _encode(encoder, queries, progress)
    vectors = _means(asked, query_vectors(method, encoder, encoded.vectors))
    candidates = find_candidates(lake, session, at, encoder=encoder_row.name, where=settings.filter)
    found = search(
        lake,
        at,
        encoder=encoder_row.name,
        queries=vectors,
        candidates=candidates,
        k=settings.k,
        unit_norm=method.unit_norm,
        index=index,
    )
    codes = codes_of(lake.table(encodings_table(encoder_row.name), at=at).schema)
    rows = _catalog_rows(
        new, settings, at, encoder_row, encoded, n_candidates=len(candidates), index=index, codes=codes
    )
    _store(lake, encoder_row.name, rows, dict(zip(new, found, strict=True)), queries=queries, encoded=encoded)
    return ids


class _Encoded(NamedTuple):
    """Queries, each the weighted sum of its parts, in order."""

    vectors: torch.Tensor
    """psi, (q, d) float32."""
    losses: np.ndarray
    """Mean of the targets' summed cross-entropies in nats, without what is taken off, (q,) float32."""
    n_tokens: np.ndarray
    """Tokens of the targets, without those of what is taken off, (q,) int64."""


def _index(lake: LakeStore, settings: TraceSettings, row: models.Encoder) -> UsableIndex | None:
    if not settings.approximate:
        return None
    if settings.filter:
        raise SettingsError("the index cannot search under a filter; leave out --approximate")
    if not METHODS[settings.method].unit_norm:
        raise SettingsError(f"the index is for unit vectors, which method {settings.method!r} does not use")
    return find_index(lake, row.name)


def _trace_id(question: Question, settings: TraceSettings, at: Snapshot, row: models.Encoder) -> str:
    tables = [*_SEARCHED, encodings_table(row.name), *([index_table(row.name)] if settings.approximate else [])]
    return content_id(
        "trace",
        *((question.query_id,) if question.to_json() else (question.prompt, question.target)),
        row.encoder_id,
        settings.method,
        settings.filter or "",
        settings.k,
        int(settings.approximate),
        *(f"{table}@{at.versions.get(table)}" for table in tables),
    )


def _not_stored(lake: LakeStore, by_id: dict[str, T]) -> dict[str, T]:
    with lake.catalog.read() as session:
        stored = set(session.scalars(select(models.Trace.trace_id).where(models.Trace.trace_id.in_(by_id))))
    return {trace_id: value for trace_id, value in by_id.items() if trace_id not in stored}


def _encode(encoder: Encoder, queries: Sequence[Question], progress: Callable[[int], object]) -> _Encoded:
    examples = [example for query in queries for example in _examples(encoder, query)]
    encodings = encoder.encode(examples, progress=progress)
    parts = [part for query in queries for part in query.summed]
    of = torch.tensor([place for place, query in enumerate(queries) for _ in query.summed])
    weights = torch.tensor([part.weight for part in parts])
    towards = weights.clamp(min=0)
    n_tokens = torch.tensor([example.n_loss for example in examples]) * (weights > 0)
    n = len(queries)
    encoded = _Encoded(
        torch.zeros(n, encodings.vectors.shape[1]).index_add_(0, of, weights[:, None] * encodings.vectors),
        torch.zeros(n).index_add_(0, of, towards * encodings.losses).numpy(),
        torch.zeros(n, dtype=torch.long).index_add_(0, of, n_tokens).numpy(),
    )
    norms = encoded.vectors.norm(dim=1)
    for query, norm, loss in zip(queries, norms.tolist(), encoded.losses.tolist(), strict=True):
        with naming(query.origin):
            if not (np.isfinite(norm) and np.isfinite(loss) and norm > 0):
                raise EncodingError(f"the gradient of {query.target!r} after {query.prompt!r} is zero or not finite")
    return encoded


def _examples(encoder: Encoder, query: Question) -> list[Example]:
    with naming(query.origin):
        examples = [
            query_example(
                encoder.projector.checkpoint.tokenizer,
                part.prompt if part.rendered is None else part.rendered,
                part.target,
                context_length=encoder.context_length,
                rendered=part.rendered is not None,
            )
            for part in query.summed
        ]
        if len(set(examples)) < len(examples):  # their difference would be rounding errors, brought to unit length
            raise EncodingError(f"two of these are the same tokens to the model's tokenizer: {query.target}")
    return examples


def _means(questions: Sequence[Question], vectors: torch.Tensor) -> np.ndarray:
    """Return the questions' vectors (n, d): the means of those of their queries (q, d), which a method has made.

    A mean is not normalised again, so that a passage's score is the mean of its scores.
    """
    return np.stack([group.mean(0) for group in _by_question(questions, vectors.numpy())])


def _by_question(questions: Sequence[Question], values: np.ndarray) -> list[np.ndarray]:
    """Cut what there is for each query (q, ...) into groups, one for each question."""
    return np.split(values, np.cumsum([len(question.queries) for question in questions])[:-1])


def _catalog_rows(
    asked: dict[str, Question],
    settings: TraceSettings,
    at: Snapshot,
    row: models.Encoder,
    encoded: _Encoded,
    *,
    n_candidates: int,
    index: UsableIndex | None,
    codes: str,
) -> list[models.Trace | models.Query]:
    rows: list[models.Trace | models.Query] = []
    values = [_by_question([*asked.values()], array) for array in (encoded.losses, encoded.n_tokens)]
    for (trace_id, question), losses, n_tokens in zip(asked.items(), *values, strict=True):
        rows += [_query_row(query) for query in (question, *question.members)]
        rows.append(
            models.Trace(
                trace_id=trace_id,
                query_id=question.query_id,
                encoder=row.name,
                curvature="reference",
                method=settings.method,
                filter=settings.filter,
                snapshot=at.snapshot_id,
                k=settings.k,
                exact=index is None,
                recall=index.recall if index else None,
                n_candidates=n_candidates,
                target_loss=float(losses.mean()),
                target_tokens=int(n_tokens.sum()),
                completed=question.completed,
                settings={"versions": library_versions(), "encoder_id": row.encoder_id, "codes": codes},
            )
        )
    return rows


def _query_row(question: Question) -> models.Query:
    return models.Query(
        query_id=question.query_id,
        prompt=question.prompt,
        target=question.target,
        parts=question.to_json(),
        chat=question.chat,
        query_set=question.query_set,
    )


def _store(
    lake: LakeStore,
    encoder: str,
    rows: Sequence[models.Trace | models.Query],
    found: dict[str, Found],
    *,
    queries: Sequence[Question],
    encoded: _Encoded,
) -> None:
    with recorded_run(lake.catalog, "trace", {"traces": list(found)}) as run, committing(lake) as committer:
        # Somebody else may have stored some of these traces while they were computed here.
        fresh = _not_stored(lake, found)
        changes = Changes()
        if new := _query_rows(lake, latest_snapshot(lake.catalog), encoder, queries, encoded):
            changes.append(write_batch(lake, "queries", pa.Table.from_pylist(new, QUERIES)))
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
    lake: LakeStore, at: Snapshot, encoder: str, queries: Sequence[Question], encoded: _Encoded
) -> list[dict[str, Any]]:
    stored = lake.table("queries", at=at).to_table(columns=["query_id"], filter=f"encoder = '{encoder}'")
    known = set(stored["query_id"].to_pylist())
    rows = {}
    for place, query in enumerate(queries):
        asked = query.query_id
        if asked not in known:
            vector = encoded.vectors[place]
            rows[asked] = {
                "query_id": asked,
                "encoder": encoder,
                "norm": float(vector.norm()),
                "loss": float(encoded.losses[place]),
                "n_tokens": int(encoded.n_tokens[place]),
                "vector": vector.numpy(),
            }
    return list(rows.values())
