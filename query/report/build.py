"""A report's content from a lake: stored traces, their hits, and what is told beside them.

Notable: passages and documents are shown as they were searched, and everything is computed at the snapshot that was
searched. What has changed since does not change a report; only what was withdrawn since is missing.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import pyarrow as pa

from proponent.query.search import ScoredPassage
from proponent.query.session import Session
from proponent.query.stored import resolve_trace
from proponent.schema import catalog as models
from proponent.schema.errors import EncodingError, InputError, NotFoundError, SettingsError
from proponent.schema.settings import BM25, HYBRID, METHODS, ReportSettings
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot, get_snapshot, readable_snapshots
from proponent.store.withdrawn import withdrawn_hits

from . import methods
from .beside import ERASED, Matches, Told, matching_words, whole_sources
from .content import AskedPart, Beside, Hit, Report, Side, TokenShare, TracedQuery
from .provenance import again, provenance, report_rows
from .sources import rounded

_CONTEXT_CHARACTERS: Final = 2000

Row = dict[str, Any]
Progress = Callable[[int], object]


class Share(Protocol):
    """What one token of a passage adds to its score, as `query.explain` tells it."""

    @property
    def char_start(self) -> int:
        """First character of the text."""

    @property
    def char_end(self) -> int:
        """Character behind the last one."""

    @property
    def share(self) -> float:
        """What it adds to the score."""


Explain = Callable[[Session, str, str], Sequence[Share]]
"""Splits the score of a passage under a trace, by their ids, into shares of its tokens."""


def build_report(
    lake: LakeStore,
    session: Session,
    names: Sequence[str],
    settings: ReportSettings | None = None,
    *,
    explain: Explain | None = None,
    progress: Progress = lambda _n: None,
) -> Report:
    """Collect everything that a report of some traces says.

    `explain` is asked where the settings want tokens; `progress` is told 1 for every trace. The report's date is that
    of its newest trace, so that the same traces give the same report. Raises NotFoundError for a trace that the lake
    does not have, SettingsError for a comparison of other than two, LakeBusyError while others work on group sums.
    """
    settings = settings or ReportSettings()
    ids = list(dict.fromkeys(resolve_trace(lake, name) for name in names))
    if not ids:
        raise InputError("a report needs at least one trace")
    if settings.compare and len(ids) != 2:
        raise SettingsError(f"--compare takes two traces, not {len(ids)}")
    facts = [fact_of(session, trace_id) for trace_id in ids]
    hits = {trace_id: session.trusted("report_hits", {"trace_id": trace_id}).to_pylist() for trace_id in ids}
    queries: dict[str, TracedQuery] = {}
    for some in _by_snapshot(facts):
        with _searched(lake, session, some, hits=hits, settings=settings) as source:
            for fact in some:
                queries[fact["trace_id"]] = source.query(fact, explain if settings.tokens else None)
                progress(1)
    told, name = tuple(queries[trace_id] for trace_id in ids), f"{lake.root.name}, format {lake.config.format}"
    return Report(
        title=settings.title or methods.title(told, compare=settings.compare),
        created_at=max(query.created_at for query in told),
        queries=told,
        provenance=report_rows(name, told, settings),
        lake=name,
        settings=settings,
    )


def fact_of(session: Session, trace_id: str) -> Row:
    """Return a trace with its query, encoder and model, from its id."""
    row: Row = session.trusted("report_trace", {"trace_id": trace_id}).to_pylist()[0]
    return row | {"settings": json.loads(row["settings"])}


def _by_snapshot(facts: Sequence[Row]) -> list[list[Row]]:
    found: dict[int, list[Row]] = defaultdict(list)
    for fact in facts:
        found[fact["snapshot"]].append(fact)
    return list(found.values())


def told_query(
    lake: LakeStore, present: Session, fact: Row, hits: Sequence[Hit], *, beside: Beside, is_erased: bool
) -> TracedQuery:
    """Return a trace, as `fact_of` gives it, with its hits and all that is told of it.

    `is_erased` says that the snapshot that was searched cannot be read any more.
    """
    trace_id, made_with = fact["trace_id"], fact["settings"]
    withdrawn = _withdrawn(lake, present.at, trace_id)
    return TracedQuery(
        **{
            name: fact[name]
            for name in (
                *("trace_id", "query_id", "prompt", "target", "method", "encoder", "curvature", "filter", "k"),
                *("exact", "recall", "n_candidates", "created_at", "target_loss", "query_set"),
            )
        },
        parts=tuple(AskedPart(**part) for part in json.loads(fact["parts"] or "[]")),
        n_target_tokens=fact["target_tokens"],
        completed_by_model=fact["completed"],
        fused=made_with.get("fused", {}).get("method"),
        rank_constant=made_with.get("rank_constant"),
        recomputed=_recomputed(present, trace_id),
        snapshot=str(fact["snapshot"]),
        proponents=tuple(hit for hit in hits if hit.side == "proponent"),
        opponents=tuple(hit for hit in hits if hit.side == "opponent"),
        withdrawn=withdrawn,
        beside=beside,
        provenance=provenance(fact),
        again=again(fact),
        notes=tuple(_notes(present.at, fact, withdrawn, is_erased=is_erased)),
    )


@dataclass(frozen=True)
class _Searched:
    """The lake as some traces searched it, and as it is now."""

    lake: LakeStore
    present: Session
    then: Session
    """Of the snapshot that was searched, or the present one where that is erased."""
    hits: Mapping[str, list[Row]]
    matches: Mapping[str, Matches]
    sources: Mapping[str, Told]
    settings: ReportSettings

    @property
    def is_erased(self) -> bool:
        """Whether the snapshot that was searched cannot be read any more."""
        return self.then is self.present

    def query(self, fact: Row, explain: Explain | None) -> TracedQuery:
        """Return one trace with everything that is told of it."""
        hits = self._hits(fact, explain)
        return told_query(self.lake, self.present, fact, hits, beside=self._beside(fact), is_erased=self.is_erased)

    def _hits(self, fact: Row, explain: Explain | None) -> list[Hit]:
        trace_id, rows = fact["trace_id"], self.hits[fact["trace_id"]]
        passages = self._passages([row["passage_id"] for row in rows])
        if self.is_erased:  # the report says that some hits may be left out
            rows = [row for row in rows if row["passage_id"] in passages]
        parts = parts_of(self.present, trace_id) if fact["method"] == HYBRID else {}
        found = []
        for row in rows:
            explained = explain is not None and fact["method"] in METHODS and row["rank"] <= self.settings.tokens
            shares = _tokens(self.then, trace_id, row["passage_id"], explain) if explained and explain else ()
            found.append(hit_of(row | passages[row["passage_id"]], parts.get(row["passage_id"], ()), shares))
        return found

    def _passages(self, passage_ids: list[str]) -> dict[str, Row]:
        found = self.then.trusted("report_passages", {"passage_ids": passage_ids}).to_pylist()
        return {passage["passage_id"]: passage for passage in found}

    def _beside(self, fact: Row) -> Beside:
        matched, no_words = self.matches.get(fact["trace_id"], ((), None))
        words = self._passages([one.passage_id for one in matched]) if matched else {}
        sources, no_sources = self.sources.get(fact["trace_id"], (None, None))
        return Beside(
            sources=sources,
            sources_missing=no_sources,
            words=tuple(hit_of(_matched(one) | words[one.passage_id], (), ()) for one in matched),
            words_missing=no_words,
        )


@contextmanager
def _searched(
    lake: LakeStore, session: Session, facts: Sequence[Row], *, hits: Mapping[str, list[Row]], settings: ReportSettings
) -> Iterator[_Searched]:
    """Give the lake at the snapshot that some traces searched, with no more of its documents than are shown."""
    number, shown = facts[0]["snapshot"], {row["passage_id"] for fact in facts for row in hits[fact["trace_id"]]}
    matches: dict[str, Matches] = {}
    sources: dict[str, Told] = {}
    if number not in {one.snapshot_id for one in readable_snapshots(lake.catalog)}:
        if settings.words:
            matches = {fact["trace_id"]: ((), ERASED) for fact in facts if fact["method"] not in (BM25, HYBRID)}
        if settings.groups:
            sources = {fact["trace_id"]: (None, ERASED) for fact in facts}
        yield _Searched(lake, session, session, hits, matches, sources, settings)
        return
    at = get_snapshot(lake.catalog, number)
    if settings.words:
        matches = matching_words(lake, at, facts, k=settings.words)
        shown |= {one.passage_id for matched, _ in matches.values() for one in matched}
    if settings.groups:
        sources = whole_sources(lake, at, facts)
    with Session(lake, at, passages=pa.array(sorted(shown), pa.string())) as then:
        yield _Searched(lake, session, then, hits, matches, sources, settings)


def _withdrawn(lake: LakeStore, at: Snapshot, trace_id: str) -> tuple[tuple[Side, int], ...]:
    with lake.catalog.read() as catalog:
        gone = withdrawn_hits(lake, at, catalog.get_one(models.Trace, trace_id))
    return tuple((side, place.rank) for side in ("proponent", "opponent") for place in gone if place.side == side)


def parts_of(session: Session, trace_id: str) -> dict[str, tuple[tuple[str, int, float], ...]]:
    """Return the ranks and scores that a hybrid's hits are made of, by passage_id."""
    of_trace = session.sql("SELECT * FROM fused WHERE trace_id = $trace", {"trace": trace_id}).to_dicts()
    return {
        row["passage_id"]: tuple(
            (method, row[f"{part}_rank"], row[f"{part}_score"])
            for method, part in ((row["influence_method"], "influence"), (BM25, "bm25"))
            if row[f"{part}_rank"] is not None
        )
        for row in of_trace
    }


def _recomputed(session: Session, trace_id: str) -> tuple[tuple[Side, int, float | None], ...]:
    """Return what became of the trace's order with full gradients, by the recomputation of most hits."""
    rows = session.sql(
        "SELECT side, n_texts, tau FROM recomputations WHERE trace_id = $trace "
        "QUALIFY n = max(n) OVER () ORDER BY side DESC",
        {"trace": trace_id},
    )
    return tuple((row["side"], row["n_texts"], row["tau"]) for row in rows.to_dicts())


def _tokens(session: Session, trace_id: str, passage_id: str, explain: Explain) -> tuple[TokenShare, ...]:
    try:
        return token_shares(explain(session, trace_id, passage_id))
    except (EncodingError, NotFoundError):  # of a passage that cannot be encoded again nothing more is told
        return ()


def token_shares(explained: Sequence[Share]) -> tuple[TokenShare, ...]:
    """Return the shares of a passage's tokens; those of tokens that divide a character are told as one."""
    found: list[TokenShare] = []
    for token in explained:
        end = found[-1].end if found else 0
        if token.char_end <= token.char_start:
            continue  # it stands for no text
        if token.char_end <= end:
            found[-1] = found[-1]._replace(share=found[-1].share + token.share)
        else:
            found.append(TokenShare(max(token.char_start, end), token.char_end, token.share))
    return tuple(token._replace(share=rounded(token.share)) for token in found)


def _matched(found: ScoredPassage) -> Row:
    return {"side": "proponent", "rank": found.rank, "score": found.score, "percentile": None, "z_score": None}


def hit_of(row: Row, parts: tuple[tuple[str, int, float], ...], tokens: tuple[TokenShare, ...]) -> Hit:
    """Return a hit from its row of `report_hits` joined with that of `report_passages`."""
    return Hit(
        **{
            name: row[name]
            for name in (
                *(
                    "side",
                    "rank",
                    "passage_id",
                    "score",
                    "percentile",
                    "z_score",
                    "text",
                    "doc_id",
                    "doc_key",
                    "corpus",
                    "source",
                ),
                *("published", "published_precision", "title", "url", "license", "trained_on"),
            )
        },
        before=(row["before"] or "")[-_CONTEXT_CHARACTERS:],
        after=(row["after"] or "")[:_CONTEXT_CHARACTERS],
        entities=tuple(row["entities"]),
        parts=parts,
        tokens=tokens,
    )


def _notes(at: Snapshot, fact: Row, withdrawn: Sequence[tuple[Side, int]], *, is_erased: bool) -> Iterator[str]:
    if is_erased:
        yield (
            f"Snapshot {fact['snapshot']}, which was searched, has been erased since, because withdrawn documents were "
            f"forgotten. Passages are shown as snapshot {at.snapshot_id} has them; those that it does not have are "
            "left out."
        )
    if withdrawn:
        yield methods.withdrawn(withdrawn)
