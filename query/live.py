"""Answers that are made while a statement runs and not stored: hits with what relation `influence` says of one.

Notable: questions of one batch that are asked in the same way share one pass over the encodings, and a question that is
asked twice is answered once.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import lance
import pyarrow as pa
import pyarrow.compute as pc

from proponent.encode.encoder import Encoder
from proponent.encode.methods import METHODS, Method, query_vectors
from proponent.schema import catalog as models
from proponent.schema.settings import SIDES, TraceSettings
from proponent.store.lake import LakeStore
from proponent.store.rows import rows_with
from proponent.store.snapshots import Snapshot

from .answers import answer
from .curvatures import NamedCurvature, scored_by
from .encoded import encode_new, means
from .hit_columns import LIVE_HITS, OF_DOCUMENTS, OF_PASSAGES
from .questions import Ask, resolve_all
from .recall import find_index
from .scored import Scored
from .search import Found
from .session import Session
from .standing import Standing

Progress = Callable[[int], object]


class Load(Protocol):
    """Finds an encoder by its name, or the only one that a method can use, and loads it unless it is loaded."""

    def __call__(self, name: str | None, *, with_moments: bool) -> tuple[models.Encoder, Encoder]:
        """Return it with its row. Raises NotFoundError when there is none, or several to choose from."""


def trace_live(
    lake: LakeStore,
    session: Session,
    asks: Sequence[Ask],
    settings: TraceSettings,
    *,
    load: Load,
    progress: Progress,
) -> list[pa.Table]:
    """Answer questions as `trace` does, without storing anything; return for each a table of LIVE_HITS.

    Raises what `trace` raises.
    """
    at = session.at
    encoder_row, encoder = load(settings.encoder, with_moments=METHODS[settings.method].needs_moments)
    method, curvature = scored_by(lake, settings, encoder_row, encoder)
    index = None
    if settings.approximate:
        index = find_index(lake, at, encoder_row.name, settings, curvature=curvature.name)
    questions = resolve_all(asks, encoder, query_set=None, average=False)
    asked = {question.query_id: question for question in questions}
    encoded = encode_new(lake, encoder, [*asked.values()], name=encoder_row.name, progress=progress)
    vectors = means([*asked.values()], query_vectors(method, curvature.curvature, encoded.vectors))
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
        keep_norms=False,
        progress=progress,
    )
    told = {
        query_id: _hits(
            lake,
            at,
            {"query_id": query_id, "prompt": question.prompt, "target": question.target}
            | _scoring(method, curvature, encoder_row, at, exact=index is None),
            _both(found, standing),
        )
        for (query_id, question), found, standing in zip(asked.items(), *answers[1:], strict=True)
    }
    return [told[question.query_id] for question in questions]


def side_live(
    lake: LakeStore,
    session: Session,
    asked: Scored,
    settings: TraceSettings,
    *,
    side: str,
    progress: Progress,
) -> pa.Table:
    """Return one side's hits of a stored query as a table of LIVE_HITS; nothing is stored. Raises FilterError."""
    at = session.at
    answers = answer(
        lake,
        session,
        at,
        asked.vector,
        settings,
        encoder_row=asked.encoder_row,
        method=asked.method,
        curvature=asked.curvature,
        index=None,
        keep_norms=False,
        progress=progress,
    )
    rows = [row for row in _both(answers.found[0], answers.standings[0]) if row["side"] == side]
    told = {"query_id": asked.query_id, "prompt": asked.prompt, "target": asked.target}
    return _hits(lake, at, told | _scoring(asked.method, asked.curvature, asked.encoder_row, at, exact=True), rows)


def _scoring(
    method: Method, curvature: NamedCurvature, encoder_row: models.Encoder, at: Snapshot, *, exact: bool
) -> dict[str, Any]:
    return {
        "method": method.name,
        "encoder": encoder_row.name,
        "curvature": curvature.name,
        "snapshot": at.snapshot_id,
        "exact": exact,
    }


def _both(found: Found, standing: Standing) -> list[dict[str, Any]]:
    return [
        {"side": side, **hit._asdict(), "z_score": standing.z_score(hit.score)}
        for side, hits in zip(SIDES, found, strict=True)
        for hit in hits
    ]


def _hits(lake: LakeStore, at: Snapshot, told: dict[str, Any], rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return hits as a table of LIVE_HITS, each with what is told of all of them, its passage and its document."""
    ids = pa.array([row["passage_id"] for row in rows], pa.string())
    passages = _looked_up(lake.table("passages", at=at), "passage_id", ids, [*OF_PASSAGES, "doc_id"])
    of = passages["doc_id"].combine_chunks()
    documents = _looked_up(lake.table("documents", at=at), "doc_id", of, OF_DOCUMENTS)
    columns = {name: pa.array([value] * len(rows), LIVE_HITS.field(name).type) for name, value in told.items()}
    for name in LIVE_HITS.names:
        if name in columns:
            continue
        if name == "entities":
            columns[name] = _entities(lake, at, ids)
        elif name in documents.column_names:
            columns[name] = documents[name]
        elif name in passages.column_names:
            columns[name] = passages[name]
        else:
            columns[name] = pa.array([row[name] for row in rows], LIVE_HITS.field(name).type)
    return pa.table([columns[name] for name in LIVE_HITS.names], schema=LIVE_HITS)


def _looked_up(table: lance.LanceDataset, key: str, ids: pa.Array, columns: Sequence[str]) -> pa.Table:
    """Return the rows of a table that have some ids, in the order of the ids."""
    wanted = pc.unique(ids)
    found = rows_with(table, key, wanted, columns=[*dict.fromkeys([key, *columns])])
    return found.take(pc.index_in(ids, value_set=found[key].combine_chunks()))


def _entities(lake: LakeStore, at: Snapshot, ids: pa.Array) -> pa.Array:
    named: dict[str, set[str]] = {}
    mentions = rows_with(lake.table("mentions", at=at), "passage_id", ids, columns=["passage_id", "entity"])
    for passage, entity in zip(mentions["passage_id"].to_pylist(), mentions["entity"].to_pylist(), strict=True):
        named.setdefault(passage, set()).add(entity)
    return pa.array([sorted(named.get(passage, ())) for passage in ids.to_pylist()], pa.list_(pa.string()))
