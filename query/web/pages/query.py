"""One query with its traces side by side: what each method lists, and which of it is right."""

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from proponent.query.statement import literal
from proponent.query.web.asked import right_passages
from proponent.query.web.evaluated import Measured
from proponent.query.web.explorer import Explorer
from proponent.query.web.page import Page
from proponent.schema.errors import NotFoundError

MOST_TRACES: Final = 8
MOST_HITS: Final = 10

_QUERY: Final = "SELECT query_id, prompt, target, query_set, metadata FROM queries WHERE query_id = $query_id"
_TRACES: Final = """
SELECT trace_id, method, encoder, curvature, filter, k, exp(-target_loss) AS probability, created_at
FROM traces WHERE query_id = $query_id ORDER BY created_at DESC, trace_id
"""
_HITS: Final = """
SELECT trace_id, method, side, rank, score, z_score, percentile, passage_id, doc_id, title, doc_key, source, text
FROM influence
WHERE query_id = {query_id} AND rank <= {most}
ORDER BY trace_id, side DESC, rank
""".strip()


class OneQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which query."""

    query_id: Annotated[str, msgspec.Meta(max_length=128, description="Id of the query.")]


class ColumnHit(msgspec.Struct, frozen=True, kw_only=True):
    """A hit."""

    side: str
    rank: int
    score: float
    z_score: float | None
    percentile: float | None
    passage_id: str
    doc_id: str | None
    title: str | None
    doc_key: str | None
    source: str | None
    text: str | None
    right: bool | None
    """Whether it states what is asked; null where nobody says what does."""


class TraceColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A trace with its first hits."""

    trace_id: str
    method: str
    encoder: str | None
    curvature: str | None
    filter: str | None
    k: int
    probability: float | None
    created_at: datetime
    proponents: list[ColumnHit]
    opponents: list[ColumnHit]


class QueryView(msgspec.Struct, frozen=True, kw_only=True):
    """A query with its latest traces, the last one first."""

    query_id: str
    prompt: str
    target: str
    query_set: str | None
    metadata: str | None
    traces: list[TraceColumn]
    n_traces: int
    judged: bool
    measured: list[Measured]
    sql: str


def _load(explorer: Explorer, params: OneQuery) -> QueryView:
    asked = {"query_id": params.query_id}
    statement = _HITS.format(query_id=literal(params.query_id), most=MOST_HITS)
    right = right_passages(explorer).get(params.query_id)
    with explorer.session() as session:
        found = session.sql(_QUERY, asked).to_dicts()
        if not found:
            raise NotFoundError(
                f"there is no query {params.query_id[:60]!r}; the page of queries has those that there are"
            )
        traces, hits = session.sql(_TRACES, asked).to_dicts(), session.sql(statement).to_dicts()
    [query] = found
    for hit in hits:
        hit["right"] = None if right is None or hit["side"] != "proponent" else hit["passage_id"] in right
    return msgspec.convert(
        query
        | {
            "traces": [_with_hits(trace, hits) for trace in traces[:MOST_TRACES]],
            "n_traces": len(traces),
            "judged": right is not None,
            "measured": [
                one
                for of_one in explorer.evaluations.values()
                for one in of_one.by_question.get((query["prompt"], query["target"]), ())
            ],
            "sql": statement,
        },
        QueryView,
        from_attributes=True,
    )


def _with_hits(trace: dict[str, Any], hits: list[dict[str, Any]]) -> dict[str, Any]:
    own = [hit for hit in hits if hit["trace_id"] == trace["trace_id"]]
    return trace | {f"{side}s": [hit for hit in own if hit["side"] == side] for side in ("proponent", "opponent")}


PAGE = Page(
    name="query",
    path="/queries/{query_id}",
    title="Query",
    summary="A query with its traces side by side",
    params=OneQuery,
    data=QueryView,
    load=_load,
)
