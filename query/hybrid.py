"""Hybrid traces: the ranks of an influence trace and of one by words, joined by reciprocal-rank fusion.

    score(m) = sum over both of 1 / (c + rank(m))          Cormack, Clarke and Buettcher, SIGIR 2009, with c = 60

Notable: both parts are traces of their own, to a depth that does not cut the sum off, and the hybrid names them; their
ranks and scores are joined by passage and never mixed. A passage that only one of them lists has one summand.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Final, NamedTuple

import pyarrow as pa
from sqlalchemy import select

from proponent.encode.encoder import Encoder
from proponent.schema import catalog as models
from proponent.schema.ids import content_id
from proponent.schema.settings import BM25, HYBRID, TraceSettings
from proponent.store.full_text import open_full_text
from proponent.store.lake import LakeStore
from proponent.store.runs import library_versions
from proponent.store.scan import in_list
from proponent.store.snapshots import Snapshot, latest_snapshot

from .lexical import search_text, trace_words
from .questions import Question
from .search import Found, ScoredPassage, SoFar
from .session import Session
from .trace import not_stored, query_row, store_traces, trace

LEAST_DEPTH: Final = 100
_TIMES: Final = 10
"""Each part lists so many times the hits of the hybrid, and at least LEAST_DEPTH."""

Ranks = Mapping[str, int]
"""Ranks from 1, by passage_id."""


class _Parts(NamedTuple):
    """The traces that a hybrid joins."""

    influence: str
    bm25: str


def trace_hybrid(
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
    """Trace questions by influence and by words, join the ranks and store all three; return the hybrids' ids in order.

    Raises what `trace` and `trace_words` raise, before anything is computed where that shows beforehand.
    """
    open_full_text(lake, at)
    for question in questions:
        search_text(question)
    depth = max(LEAST_DEPTH, _TIMES * settings.k)
    by_influence = replace(settings, method=settings.fuse, k=depth)
    by_words = TraceSettings(method=BM25, filter=settings.filter, k=depth)
    pushed = trace(
        lake,
        session,
        at,
        questions,
        by_influence,
        encoder_row=encoder_row,
        encoder=encoder,
        progress=progress,
        scanned=scanned,
        so_far=so_far,
    )
    matched = trace_words(lake, session, at, questions, by_words)
    parts = [_Parts(*both) for both in zip(pushed, matched, strict=True)]
    ids = [_trace_id(both, settings) for both in parts]
    new = not_stored(lake, dict(zip(ids, zip(questions, parts, strict=True), strict=True)))
    if new:
        traces = _traces(lake, {one for _, both in new.values() for one in both})
        ranks = _ranks(lake, list(traces))
        queries = [query_row(question) for question, _ in new.values()]
        rows = [_row(trace_id, settings, both, traces, depth=depth) for trace_id, (_, both) in new.items()]
        found = {
            trace_id: Found(
                fuse(
                    ranks[both.influence],
                    ranks[both.bm25],
                    constant=settings.rank_constant,
                    k=settings.k,
                    n=traces[both.bm25].n_candidates,
                ),
                [],
            )
            for trace_id, (_, both) in new.items()
        }
        store_traces(lake, [*queries, *rows], found)
    return ids


def fuse(influence: Ranks, words: Ranks, *, constant: int, k: int, n: int) -> list[ScoredPassage]:
    """Join two lists of ranks; return the k best of n candidates.

    Equal sums are in the order of their influence, and then of their words.
    """
    scores = {
        passage: sum(1 / (constant + ranks[passage]) for ranks in (influence, words) if passage in ranks)
        for passage in {*influence, *words}
    }
    order = sorted(scores, key=lambda passage: (-scores[passage], influence.get(passage, inf), words.get(passage, inf)))
    values = sorted(scores.values(), reverse=True)
    return [
        ScoredPassage(passage, rank, scores[passage], 100 * (n - _at_least(values, scores[passage])) / n)
        for rank, passage in enumerate(order[:k], start=1)
    ]


def _at_least(descending: Sequence[float], value: float) -> int:
    return next((place for place, other in enumerate(descending) if other < value), len(descending))


def _trace_id(parts: _Parts, settings: TraceSettings) -> str:
    return content_id("hybrid trace", *parts, settings.rank_constant, settings.k)


def _traces(lake: LakeStore, ids: set[str]) -> dict[str, models.Trace]:
    with lake.catalog.read() as session:
        rows = session.scalars(select(models.Trace).where(models.Trace.trace_id.in_(ids)))
        return {row.trace_id: row for row in rows}


def _ranks(lake: LakeStore, ids: list[str]) -> Mapping[str, Ranks]:
    """Return the ranks of traces' proponents."""
    wanted = f"side = 'proponent' AND {in_list('trace_id', pa.array(ids))}"
    hits = lake.table("hits", at=latest_snapshot(lake.catalog)).to_table(
        columns=["trace_id", "passage_id", "rank"], filter=wanted
    )
    ranks: dict[str, dict[str, int]] = {trace_id: {} for trace_id in ids}
    for hit in hits.to_pylist():
        ranks[hit["trace_id"]][hit["passage_id"]] = hit["rank"]
    return ranks


def _row(
    trace_id: str, settings: TraceSettings, parts: _Parts, traces: Mapping[str, models.Trace], *, depth: int
) -> models.Trace:
    influence, words = traces[parts.influence], traces[parts.bm25]
    return models.Trace(
        trace_id=trace_id,
        query_id=influence.query_id,
        encoder=influence.encoder,
        curvature=influence.curvature,
        method=HYBRID,
        filter=influence.filter,
        snapshot=influence.snapshot,
        k=settings.k,
        exact=influence.exact,
        recall=influence.recall,
        n_candidates=words.n_candidates,
        target_loss=influence.target_loss,
        target_tokens=influence.target_tokens,
        completed=influence.completed,
        settings=influence.settings
        | {"tokenizer": words.settings["tokenizer"]}
        | {
            "versions": library_versions(),
            "fused": parts._asdict() | {"method": influence.method},
            "rank_constant": settings.rank_constant,
            "depth": depth,
        },
    )
