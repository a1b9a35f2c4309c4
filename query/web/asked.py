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
from .keyset import Key, key
from .parameters import FieldError

PER_PAGE: Final = 50


def _number(column: str, *, descending: bool = False) -> Key:
    return key(column, "number", descending=descending, nullable=True)


_ID: Final = key("query_id")
ORDERS: Final[dict[str, tuple[Key, ...]]] = {
    "newest": (key("created_at", "time", descending=True), _ID),
    "oldest": (key("created_at", "time"), _ID),
    "answered": (_number("reciprocal_rank", descending=True), _number("z_score", descending=True), _ID),
    "missed": (_number("reciprocal_rank"), _number("z_score"), _ID),
    "surest": (_number("probability", descending=True), _ID),
    "unsure": (_number("probability"), _ID),
    "proponent": (_number("z_score", descending=True), _number("score", descending=True), _ID),
    "opponent": (_number("opponent_z"), _number("opponent_score"), _ID),
}
"""Keys of every order."""
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
_RANKED_ALONE: Final = """
right_texts AS (
SELECT query_id, text_hash
FROM (SELECT query_id, unnest(json_extract_string(metadata, '$.passage_ids[*]')) AS passage_id FROM queries)
JOIN passages USING (passage_id)
UNION
SELECT query_id, text_hash
FROM (SELECT query_id, unnest(json_extract_string(metadata, '$.doc_keys[*]')) AS doc_key FROM queries)
JOIN documents USING (doc_key)
JOIN passages USING (doc_id)
),
right_passages AS (
SELECT DISTINCT query_id, passage_id
FROM right_texts
JOIN passages USING (text_hash)
),
right_hits AS (
SELECT trace_id, min(rank) AS rank
FROM hits
JOIN traces USING (trace_id)
JOIN right_passages USING (query_id, passage_id)
WHERE side = 'proponent'
GROUP BY trace_id
),
ranked AS (
SELECT trace_id, coalesce(1 / rank, 0) AS reciprocal_rank
FROM traces
JOIN queries USING (query_id)
LEFT JOIN right_hits USING (trace_id)
WHERE json_exists(queries.metadata, '$.passage_ids') OR json_exists(queries.metadata, '$.doc_keys')
),
""".lstrip()
"""The same from what the queries say, in one statement, for those who read it; pages keep what it takes to find it."""
Ranked = Literal["not", "given", "alone"]
"""Whether a statement has reciprocal ranks: those of its parameters `traces` and `ranks`, or those it finds itself."""
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


def listing(chosen: ChosenQueries, condition: str, by: str, *, ranked: Ranked) -> str:
    """Return the statement that lists queries of a page, which a condition and an order make."""
    more = "" if condition == "true" else f"\n  AND {condition}"
    return (
        f"{_asked(chosen, ranked=ranked)}SELECT * EXCLUDE (place, place_in_method)\nFROM asked\n"
        f"WHERE coalesce(place, 1) = 1{more}\nORDER BY {by}"
    )


def counting(chosen: ChosenQueries) -> str:
    """Return the statement that counts the queries."""
    return f"{_asked(chosen, ranked='not')}SELECT count(DISTINCT query_id) AS n FROM asked"  # noqa: S608


def averaging(chosen: ChosenQueries, *, ranked: Ranked) -> str:
    """Return the statement of the means by method."""
    return _asked(chosen, ranked=ranked) + _MEANS


def drawing(chosen: ChosenQueries) -> str:
    """Return the statement of one of the queries that have a trace, another one each time."""
    return f"{_asked(chosen, ranked='not')}SELECT trace_id FROM asked WHERE place = 1 ORDER BY random() LIMIT 1"  # noqa: S608


def _asked(chosen: ChosenQueries, *, ranked: Ranked) -> str:
    met = conditions(chosen)
    of_traces = [one for one in met if one.startswith("method = ")]
    traced = f"{_TRACED}\n{where(of_traces)}"
    asked = _ASKED.format(rank=_NO_RANK if ranked == "not" else "ranked.reciprocal_rank")
    if ranked != "not":
        asked += "\nLEFT JOIN ranked USING (trace_id)"
    ranks = {"not": "", "given": _RANKED, "alone": _RANKED_ALONE}[ranked]
    return f"WITH tops AS (\n{_TOPS}\n),\ntraced AS (\n{traced}),\n{ranks}asked AS (\n{asked}\n{where(met)})\n"


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
