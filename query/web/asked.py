"""Queries with their traces: which of them are chosen, and the statements that list them and take their means.

Notable: of several traces of a query by one method the latest counts. Whether a hit is right is known of queries whose
metadata says which passages state the fact; the ranks of the first right hits are handed in as parameters.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from sqlalchemy import select

from proponent.query.export.gold import gold_passages
from proponent.query.statement import literal
from proponent.schema import catalog as models

from .corpus import where
from .explorer import Explorer
from .parameters import FieldError

PER_PAGE: Final = 50
ORDERS: Final = {
    "newest": "created_at DESC",
    "oldest": "created_at",
    "answered": "reciprocal_rank DESC NULLS LAST, z_score DESC NULLS LAST",
    "missed": "reciprocal_rank NULLS LAST, z_score NULLS LAST",
    "surest": "probability DESC NULLS LAST",
    "unsure": "probability NULLS LAST",
    "proponent": "z_score DESC NULLS LAST, score DESC NULLS LAST",
    "opponent": "opponent_z NULLS LAST, opponent_score NULLS LAST",
}
Order = Literal["newest", "oldest", "answered", "missed", "surest", "unsure", "proponent", "opponent"]

_TOPS: Final = """
SELECT
    trace_id,
    any_value(score) FILTER (side = 'proponent') AS score,
    any_value(score) FILTER (side = 'opponent') AS opponent_score
FROM hits
WHERE rank = 1
GROUP BY trace_id
""".strip()
_TRACED: Final = """
SELECT
    traces.query_id,
    traces.trace_id,
    traces.method,
    exp(-traces.target_loss) AS probability,
    tops.score,
    (tops.score - traces.score_mean) / traces.score_sd AS z_score,
    tops.opponent_score,
    (tops.opponent_score - traces.score_mean) / traces.score_sd AS opponent_z,
    row_number() OVER (PARTITION BY traces.query_id ORDER BY traces.created_at DESC, traces.trace_id) AS place,
    row_number() OVER (
        PARTITION BY traces.query_id, traces.method ORDER BY traces.created_at DESC, traces.trace_id
    ) AS place_in_method,
    count(*) OVER (PARTITION BY traces.query_id) AS n_traces
FROM traces
LEFT JOIN tops USING (trace_id)
""".strip()
_ASKED: Final = """
SELECT
    queries.query_id,
    prompt,
    target,
    query_set,
    queries.metadata,
    queries.created_at,
    traced.* EXCLUDE (query_id),
    {rank} AS reciprocal_rank
FROM queries
LEFT JOIN traced USING (query_id)
""".strip()
_RANKED: Final = """
ranked AS (
SELECT unnest($traces) AS trace_id, unnest($ranks) AS reciprocal_rank
),
""".lstrip()
_NO_RANK: Final = "NULL::DOUBLE"
_MEANS: Final = """
SELECT
    method,
    count(*) AS queries,
    count(reciprocal_rank) AS judged,
    avg(reciprocal_rank) AS mrr,
    avg((reciprocal_rank = 1)::INTEGER) AS first,
    avg(probability) AS probability,
    avg(z_score) AS z_score,
    avg(opponent_z) AS opponent_z
FROM asked
WHERE place_in_method = 1
GROUP BY method
ORDER BY queries DESC, method
""".strip()

_Text = Annotated[str, msgspec.Meta(max_length=10_000)]


class ChosenQueries(msgspec.Struct, frozen=True, kw_only=True):
    """Which queries are looked at."""

    find: Annotated[_Text | None, msgspec.Meta(description="A part of prompt or target.")] = None
    query_set: _Text | None = None
    method: Annotated[_Text | None, msgspec.Meta(description="Only queries traced so, and those traces.")] = None
    field: Annotated[_Text | None, msgspec.Meta(description="A field of the queries' metadata.")] = None
    value: Annotated[_Text | None, msgspec.Meta(description="What that field has to be.")] = None


class QueryRow(msgspec.Struct, frozen=True, kw_only=True):
    """A query, with its latest trace."""

    query_id: str
    prompt: str
    target: str
    query_set: str | None
    metadata: str | None
    created_at: datetime
    trace_id: str | None
    method: str | None
    probability: float | None
    """Of the target, by the model."""
    score: float | None
    z_score: float | None
    opponent_score: float | None
    opponent_z: float | None
    n_traces: int | None
    reciprocal_rank: float | None
    """One over the rank of the first right proponent, 0 for none; null where nobody says which are right."""

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Fields of the metadata that are one value."""
        facts = json.loads(self.metadata) if self.metadata else {}
        return [(name, str(value)) for name, value in facts.items() if isinstance(value, str | int | float)]


class MethodMeans(msgspec.Struct, frozen=True, kw_only=True):
    """MethodMeans of a method over the queries that were traced with it."""

    method: str
    queries: int
    judged: int
    """Queries of which somebody says which passages are right."""
    mrr: float | None
    first: float | None
    """Share of those whose first proponent is right."""
    probability: float | None
    z_score: float | None
    opponent_z: float | None


def conditions(chosen: ChosenQueries) -> list[str]:
    """Return the conditions on queries with their traces. Raises FieldError for a field without its value."""
    found = []
    if chosen.find:
        found.append(f"contains(lower(prompt || target), {literal(chosen.find.lower())})")
    if chosen.query_set:
        found.append(f"query_set = {literal(chosen.query_set)}")
    if chosen.method:
        found.append(f"method = {literal(chosen.method)}")
    if chosen.field and chosen.value is not None:
        pointer = "/" + chosen.field.replace("~", "~0").replace("/", "~1")
        found.append(f"(queries.metadata ->> {literal(pointer)}) = {literal(chosen.value)}")
    elif chosen.field or chosen.value is not None:
        given, missing = ("field", "value") if chosen.field else ("value", "field")
        raise FieldError(given, f"a {given} needs its {missing}, as field relation and value capital")
    return found


def listing(chosen: ChosenQueries, order: str, *, page: int, ranked: bool) -> str:
    """Return the statement that lists a page of queries; with `ranked` it takes parameters `traces` and `ranks`."""
    return (
        f"{_asked(chosen, ranked=ranked)}SELECT * EXCLUDE (place, place_in_method)\nFROM asked\n"
        f"WHERE coalesce(place, 1) = 1\nORDER BY {ORDERS[order]}, query_id\n"
        f"LIMIT {PER_PAGE + 1} OFFSET {(page - 1) * PER_PAGE}"
    )


def counting(chosen: ChosenQueries) -> str:
    """Return the statement that counts the queries."""
    return f"{_asked(chosen, ranked=False)}SELECT count(DISTINCT query_id) AS n FROM asked"  # noqa: S608


def averaging(chosen: ChosenQueries, *, ranked: bool) -> str:
    """Return the statement of the means by method."""
    return _asked(chosen, ranked=ranked) + _MEANS


def drawing(chosen: ChosenQueries) -> str:
    """Return the statement of one of the queries that have a trace, another one each time."""
    return f"{_asked(chosen, ranked=False)}SELECT trace_id FROM asked WHERE place = 1 ORDER BY random() LIMIT 1"  # noqa: S608


def _asked(chosen: ChosenQueries, *, ranked: bool) -> str:
    met = conditions(chosen)
    of_traces = [one for one in met if one.startswith("method = ")]
    traced = f"{_TRACED}\n{where(of_traces)}"
    asked = _ASKED.format(rank="ranked.reciprocal_rank" if ranked else _NO_RANK)
    if ranked:
        asked += "\nLEFT JOIN ranked USING (trace_id)"
    return (
        f"WITH tops AS (\n{_TOPS}\n),\ntraced AS (\n{traced}),\n{_RANKED if ranked else ''}"
        f"asked AS (\n{asked}\n{where(met)})\n"
    )


def right_passages(explorer: Explorer) -> dict[str, set[str]]:
    """Return the passages that state what queries ask, by query_id, of those that say so; a set may be empty."""
    return explorer.kept("right passages", lambda: _right_passages(explorer))


def _right_passages(explorer: Explorer) -> dict[str, set[str]]:
    with explorer.lake.catalog.read() as session:
        queries = list(session.scalars(select(models.Query)))
    says = [one for one in queries if any(name in (one.facts or {}) for name in ("passage_ids", "doc_keys"))]
    with explorer.session() as session:
        found = gold_passages(session, says)
    return {one.query_id: found.get(one.query_id, set()) for one in says}


def right_ranks(explorer: Explorer) -> dict[str, list[Any]]:
    """Return `traces`, and in `ranks` one over the rank of their first right proponent, 0 for none listed."""
    return explorer.kept("right ranks", lambda: _right_ranks(explorer))


def _right_ranks(explorer: Explorer) -> dict[str, list[Any]]:
    right = right_passages(explorer)
    if not right:
        return {"traces": [], "ranks": []}
    of_traces = {row["trace_id"]: row["query_id"] for row in explorer.rows("SELECT trace_id, query_id FROM traces")}
    ranks = {trace_id: 0.0 for trace_id, query_id in of_traces.items() if query_id in right}
    with explorer.session() as session:
        hits = session.trusted("right_hits", _pairs(of_traces, right)).to_pylist()
    for hit in hits:
        ranks[hit["trace_id"]] = 1 / hit["rank"]
    return {"traces": list(ranks), "ranks": list(ranks.values())}


def _pairs(of_traces: dict[str, str], right: dict[str, set[str]]) -> dict[str, Iterable[str]]:
    pairs = [(query_id, passage_id) for query_id, passages in right.items() for passage_id in sorted(passages)]
    return {"queries": [query_id for query_id, _ in pairs], "passages": [passage_id for _, passage_id in pairs]}
