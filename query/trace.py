"""Tracing: encode queries, search, and store what was found.

Notable: a trace's id is a hash of everything that decides its result, the versions of the searched tables included.
Asking the same thing of the same data again finds the stored trace and changes nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pyarrow as pa
from sqlalchemy import select

from proponent.encode.encoder import Encoder
from proponent.encode.methods import query_vectors
from proponent.observe.events import count
from proponent.schema import catalog as models
from proponent.schema.ids import content_id
from proponent.schema.settings import REFERENCE, SIDES, TraceSettings
from proponent.schema.tables import HITS, QUERIES, codes_of, encodings_table, index_table
from proponent.store.commit import Changes, committing, write_batch
from proponent.store.lake import LakeStore
from proponent.store.runs import library_versions, recorded_run
from proponent.store.snapshots import Snapshot, latest_snapshot
from proponent.store.withdrawn import hidden_documents

from .answers import Answers, answer
from .curvatures import NamedCurvature, scored_by
from .encoded import EncodedQueries, by_question, encode_new, means
from .questions import Question
from .recall import UsableIndex, find_index
from .search import Found, SoFar, searched_tables
from .segments import joined_metadata
from .session import Session

T = TypeVar("T")


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
    scanned: Callable[[int], object] = lambda _n: None,
    so_far: SoFar | None = None,
) -> list[str]:
    """Trace questions at a snapshot and store the results; return the traces' ids in the questions' order.

    A mean over queries is one trace; its queries are encoded and stored like others. `progress` is told queries that
    were encoded, `scanned` texts that were scored; what either raises ends the trace, and nothing is stored. `so_far`
    is handed the hits so far, in the order of the questions that are not stored yet. Raises
    EncodingError for a question that has no encoding, FilterError, ModelMismatchError when the encoder is not made for
    the method, NotFoundError for a curvature or an index that the encoder does not have, and SettingsError for an index
    of too low a recall.
    """
    method, curvature = scored_by(lake, settings, encoder_row, encoder)
    index = None
    if settings.approximate:
        index = find_index(lake, at, encoder_row.name, settings, curvature=curvature.name)
    hidden = hidden_documents(lake.catalog, at)
    ids = [_trace_id(one, settings, at, encoder_row, curvature, index=index, hidden=hidden) for one in questions]
    new = not_stored(lake, dict(zip(ids, questions, strict=True)))
    if not new:
        return ids
    asked = list(new.values())
    queries = [query for question in asked for query in question.queries]
    encoded = encode_new(lake, encoder, queries, name=encoder_row.name, progress=progress)
    vectors = means(asked, query_vectors(method, curvature.curvature, encoded.vectors))
    answers = answer(
        lake,
        session,
        at,
        vectors,
        settings,
        encoder_row=encoder_row,
        method=method,
        curvature=curvature,
        index=index,
        keep_norms=True,
        progress=scanned,
        so_far=so_far,
    )
    rows = _catalog_rows(
        new,
        settings,
        at,
        encoder_row,
        encoded,
        curvature=curvature,
        answers=answers,
        index=index,
        codes=codes_of(lake.table(encodings_table(encoder_row.name), at=at).schema),
    )
    store_traces(
        lake,
        rows,
        dict(zip(new, answers.found, strict=True)),
        queries=lambda now: _query_rows(lake, now, encoder_row.name, queries, encoded),
    )
    return ids


def _trace_id(
    question: Question,
    settings: TraceSettings,
    at: Snapshot,
    row: models.Encoder,
    curvature: NamedCurvature,
    *,
    index: UsableIndex | None,
    hidden: pa.Array,
) -> str:
    indexed = [index_table(row.name)] if index else []
    tables = [*searched_tables(settings.filter), encodings_table(row.name), *indexed]
    return content_id(
        "trace",
        *((question.query_id,) if question.to_json() else (question.prompt, question.target)),
        row.encoder_id,
        settings.method,
        settings.filter or "",
        settings.k,
        int(index is not None),
        *(f"{table}@{at.versions.get(table)}" for table in tables),
        *([curvature.curvature_id] if settings.curvature not in (None, REFERENCE) else []),
        *sorted(hidden.to_pylist()),  # of an earlier snapshot, what was withdrawn since is not searched
        *([f"index {index.index_id}"] if index else []),
    )


def not_stored(lake: LakeStore, by_id: dict[str, T]) -> dict[str, T]:
    """Return what belongs to the traces that are not stored yet."""
    with lake.catalog.read() as session:
        stored = set(session.scalars(select(models.Trace.trace_id).where(models.Trace.trace_id.in_(by_id))))
    return {trace_id: value for trace_id, value in by_id.items() if trace_id not in stored}


def _catalog_rows(
    asked: dict[str, Question],
    settings: TraceSettings,
    at: Snapshot,
    row: models.Encoder,
    encoded: EncodedQueries,
    *,
    curvature: NamedCurvature,
    answers: Answers,
    index: UsableIndex | None,
    codes: str,
) -> list[models.Trace | models.Query]:
    rows: list[models.Trace | models.Query] = []
    values = [by_question([*asked.values()], array) for array in (encoded.losses, encoded.n_tokens)]
    for (trace_id, question), standing, losses, n_tokens in zip(asked.items(), answers.standings, *values, strict=True):
        rows += [query_row(query) for query in (question, *question.members)]
        rows.append(
            models.Trace(
                trace_id=trace_id,
                query_id=question.query_id,
                encoder=row.name,
                curvature=curvature.name,
                method=settings.method,
                filter=settings.filter,
                snapshot=at.snapshot_id,
                k=settings.k,
                exact=index is None,
                recall=index.recall if index else None,
                n_candidates=answers.n_candidates,
                score_mean=standing.mean,
                score_sd=standing.sd,
                score_sample=standing.n,
                target_loss=float(losses.mean()),
                target_tokens=int(n_tokens.sum()),
                completed=question.completed,
                settings={
                    "versions": library_versions(),
                    "encoder_id": row.encoder_id,
                    "curvature": curvature.recorded,
                    "codes": codes,
                    "fidelity": row.fidelity,
                    **({"index": vars(index)} if index else {}),
                },
            )
        )
    return rows


def query_row(question: Question) -> models.Query:
    """Return a question as the catalog keeps it."""
    return models.Query(
        query_id=question.query_id,
        prompt=question.prompt,
        target=question.target,
        parts=question.to_json(),
        chat=question.chat,
        query_set=question.query_set,
        facts=question.metadata,
    )


def describe_again(lake: LakeStore, questions: Sequence[Question]) -> None:
    """Let stored queries say what they were last asked with: the set that they belong to, and their metadata.

    What nothing was said of stays, and so do the answers that a query is a segment of.
    """
    asked = {one.query_id: one for question in questions for one in (question, *question.members)}
    said = {query_id: one for query_id, one in asked.items() if one.query_set is not None or one.metadata is not None}
    changed = []
    with lake.catalog.read() as session:
        for query_id, one in said.items():
            row = session.get(models.Query, query_id)
            if row is not None and _said_now(row, one):
                changed.append(query_id)
    if changed:
        with recorded_run(lake.catalog, "trace", {"described": changed}), lake.catalog.write() as session:
            for query_id in changed:
                row = session.get_one(models.Query, query_id)
                # Another answer may have come since, of which this is a segment, too.
                for name, value in _said_now(row, said[query_id]).items():
                    setattr(row, name, value)


def _said_now(row: models.Query, question: Question) -> dict[str, Any]:
    """Return what a question says otherwise than its stored row."""
    now = {"query_set": question.query_set, "facts": joined_metadata(row.facts, question.metadata)}
    return {name: value for name, value in now.items() if value is not None and value != getattr(row, name)}


def store_traces(
    lake: LakeStore,
    rows: Sequence[models.Trace | models.Query],
    found: dict[str, Found],
    *,
    queries: Callable[[Snapshot], list[dict[str, Any]]] = lambda _now: [],
    command: str = "trace",
) -> None:
    """Publish traces with what they found, by their ids, and the rows of table `queries` that a snapshot lacks."""
    with recorded_run(lake.catalog, command, {"traces": list(found)}) as run, committing(lake) as committer:
        # Somebody else may have stored some of these traces while they were computed here.
        fresh = not_stored(lake, found)
        changes = Changes()
        if new := queries(latest_snapshot(lake.catalog)):
            changes.append(write_batch(lake, "queries", pa.Table.from_pylist(new, QUERIES)))
        if hits := _hit_rows(fresh):
            changes.append(write_batch(lake, "hits", pa.Table.from_pylist(hits, HITS)))
        committer.publish(run.run_id, changes.take(), rows=rows)
        run.counts = {"traces": len(fresh), "hits": len(hits)}
    count("traces", len(fresh))


def _hit_rows(found: dict[str, Found]) -> list[dict[str, Any]]:
    return [
        {"trace_id": trace_id, "side": side, **hit._asdict()}
        for trace_id, both in found.items()
        for side, hits in zip(SIDES, both, strict=True)
        for hit in hits
    ]


def _query_rows(
    lake: LakeStore, at: Snapshot, encoder: str, queries: Sequence[Question], encoded: EncodedQueries
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
