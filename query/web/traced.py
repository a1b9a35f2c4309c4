"""A stored trace for the pages that show one: what reports tell of it, its hits in short, and cards of some of them.

Notable: facets and pages of a list need no texts, so the hits are read in short and kept, and texts are looked up for
those that are shown. Passages are shown as they were searched, as in reports.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from proponent.query.report.beside import ERASED, Told, whole_sources
from proponent.query.report.build import fact_of, hit_of, parts_of, told_query
from proponent.query.report.content import Beside, Hit, Precision, Side, TokenShare, TracedQuery
from proponent.query.stored import resolve_trace
from proponent.schema.errors import NotFoundError, ProponentError
from proponent.schema.settings import HYBRID
from proponent.store.rows import rows_with
from proponent.store.scan import in_list
from proponent.store.snapshots import Snapshot, get_snapshot, readable_snapshots

from .explorer import Explorer

_ID_LENGTH = 26
_OF_DOCUMENTS = (
    *("doc_id", "doc_key", "corpus", "source", "published", "published_precision", "title", "url", "license"),
    "trained_on",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A hit without its texts."""

    side: Side
    rank: int
    score: float
    percentile: float | None
    z_score: float | None
    passage_id: str
    doc_id: str
    source: str | None
    published: date | None
    published_precision: Precision | None
    title: str | None
    entities: tuple[str, ...]


@dataclass(frozen=True)
class Traced:
    """A trace: `query` has no hits of its own, `hits` are all of them, `documents` is where their texts are read."""

    query: TracedQuery
    hits: tuple[Listed, ...]
    documents: Snapshot
    parts: dict[str, tuple[tuple[str, int, float], ...]]

    @property
    def strongest(self) -> float:
        """The largest absolute score of any hit."""
        return max((abs(hit.score) for hit in self.hits), default=0.0)


def is_whole_id(name: str) -> bool:
    """Whether a text is a whole id of a trace: `last` and beginnings of ids may come to name another one."""
    return len(name) == _ID_LENGTH


def read_trace(explorer: Explorer, name: str) -> Traced:
    """Return a trace by its id, the beginning of one, or `last`. Raises NotFoundError."""
    trace_id = resolve_trace(explorer.lake, name)
    return explorer.kept_of_trace(trace_id, "hits", lambda: _read(explorer, trace_id))


def traced_query(explorer: Explorer, name: str) -> TracedQuery:
    """Return a trace with the cards of all its hits. Raises NotFoundError."""
    traced = read_trace(explorer, name)
    return with_cards(traced, cards(explorer, traced, traced.hits))


def with_cards(traced: Traced, shown: Sequence[Hit]) -> TracedQuery:
    """Return what is told of a trace, with some of its hits."""
    sides = {side: tuple(hit for hit in shown if hit.side == side) for side in ("proponent", "opponent")}
    return replace(traced.query, proponents=sides["proponent"], opponents=sides["opponent"])


def cards(explorer: Explorer, traced: Traced, hits: Sequence[Listed]) -> list[Hit]:
    """Return hits with their texts, and with the shares of their tokens where those were computed."""
    passages = passages_of(explorer, traced.documents, [hit.passage_id for hit in hits])
    trace_id = traced.query.trace_id
    found = []
    for hit in hits:
        row = passages[hit.passage_id] | {name: getattr(hit, name) for name in Listed.__slots__}
        tokens: tuple[TokenShare, ...] = explorer.remembered(("tokens", trace_id, hit.passage_id)) or ()
        found.append(hit_of(row, traced.parts.get(hit.passage_id, ()), tokens))
    return found


def weigh(explorer: Explorer, trace_id: str) -> Told:
    """Find out where a trace's influence comes from over the whole corpus, and remember it. Raises LakeBusyError."""
    name = _sources_of(explorer, trace_id)
    with explorer.session() as session:
        fact = fact_of(session, trace_id)
    if fact["snapshot"] in {one.snapshot_id for one in readable_snapshots(explorer.lake.catalog)}:
        at = get_snapshot(explorer.lake.catalog, fact["snapshot"])
        told = whole_sources(explorer.lake, at, [fact])[trace_id]
    else:
        told = None, ERASED
    explorer.remember(name, told)
    return told


def weighed(explorer: Explorer, trace_id: str) -> Told | None:
    """Return what `weigh` found, or None where nobody has asked yet."""
    told: Told | None = explorer.remembered(_sources_of(explorer, trace_id))
    return told


def _sources_of(explorer: Explorer, trace_id: str) -> tuple[str, ...]:
    """Return what a trace's sources are remembered by: withdrawing documents changes those of every trace."""
    return "sources", trace_id, str(explorer.state().settled)


def try_to_weigh(explorer: Explorer, trace_id: str) -> None:
    """Weigh what may as well be weighed later."""
    try:
        weigh(explorer, trace_id)
    except ProponentError:
        return


def _read(explorer: Explorer, trace_id: str) -> Traced:
    lake = explorer.lake
    with explorer.session() as session:
        fact = fact_of(session, trace_id)
        rows = session.trusted("report_hits", {"trace_id": trace_id}).to_pylist()
        is_erased = fact["snapshot"] not in {one.snapshot_id for one in readable_snapshots(lake.catalog)}
        documents = session.at if is_erased else get_snapshot(lake.catalog, fact["snapshot"])
        query = told_query(lake, session, fact, [], beside=Beside(), is_erased=is_erased)
        parts = parts_of(session, trace_id) if fact["method"] == HYBRID else {}
    ids = pa.array(sorted({row["passage_id"] for row in rows}), pa.string())
    passages = rows_with(lake.table("passages", at=documents), "passage_id", ids, columns=["passage_id", "doc_id"])
    of = dict(zip(passages["passage_id"].to_pylist(), passages["doc_id"].to_pylist(), strict=True))
    facts = _documents(explorer, documents, passages, ["source", "published", "published_precision", "title"])
    entities = _entities(explorer, documents, ids)
    hits = tuple(
        Listed(**row, **facts[of[row["passage_id"]]], entities=entities.get(row["passage_id"], ()))
        for row in rows
        if row["passage_id"] in of  # in an erased snapshot's place, the present one may lack some
    )
    return Traced(query, hits, documents, parts)


def _documents(explorer: Explorer, at: Snapshot, passages: pa.Table, columns: Sequence[str]) -> dict[str, Any]:
    """Return some columns of passages' documents, by doc_id."""
    ids = pc.unique(passages["doc_id"].combine_chunks())
    names = list(dict.fromkeys(["doc_id", *columns]))
    rows = rows_with(explorer.lake.table("documents", at=at), "doc_id", ids, columns=names)
    return {row["doc_id"]: row for row in rows.to_pylist()}


def _entities(explorer: Explorer, at: Snapshot, ids: pa.Array) -> dict[str, tuple[str, ...]]:
    columns = ["passage_id", "entity"]
    rows = rows_with(explorer.lake.table("mentions", at=at), "passage_id", ids, columns=columns)
    found: dict[str, set[str]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["passage_id"], set()).add(row["entity"])
    return {passage: tuple(sorted(names)) for passage, names in found.items()}


def passages_of(explorer: Explorer, at: Snapshot, passage_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return passages with their documents and the texts beside them, by id."""
    table = explorer.lake.table("passages", at=at)
    ids = pa.array(sorted(set(passage_ids)), pa.string())
    if not len(ids):
        return {}
    rows = rows_with(table, "passage_id", ids, columns=["passage_id", "doc_id", "ordinal", "text"])
    documents = _documents(explorer, at, rows, _OF_DOCUMENTS)
    beside = sorted({ordinal + step for ordinal in rows["ordinal"].to_pylist() for step in (-1, 1)})
    wanted = (
        f"{in_list('doc_id', pa.array(sorted(documents), pa.string()))} AND ordinal IN ({json.dumps(beside)[1:-1]})"
    )
    near = table.to_table(columns=["doc_id", "ordinal", "text"], filter=wanted).to_pylist()
    texts = {(row["doc_id"], row["ordinal"]): row["text"] for row in near}
    return {
        row["passage_id"]: row
        | documents[row["doc_id"]]
        | {
            "before": texts.get((row["doc_id"], row["ordinal"] - 1)),
            "after": texts.get((row["doc_id"], row["ordinal"] + 1)),
        }
        for row in rows.to_pylist()
    }


def one_hit(explorer: Explorer, traced: Traced, passage_id: str) -> Hit:
    """Return the card of one hit. Raises NotFoundError for a passage that the trace does not list."""
    listed = [hit for hit in traced.hits if hit.passage_id == passage_id]
    if not listed:
        raise NotFoundError(f"trace {traced.query.trace_id} does not list passage {passage_id!r}")
    return cards(explorer, traced, listed[:1])[0]
