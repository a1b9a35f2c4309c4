"""One of the queries, drawn at random, among those that are chosen: a browser goes on to its results."""

import msgspec

from proponent.query.web import asked
from proponent.query.web.asked import ChosenQueries
from proponent.query.web.explorer import Explorer
from proponent.query.web.page import Page
from proponent.schema.errors import NotFoundError


class DrawnQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The latest trace of the query."""

    trace_id: str


def _load(explorer: Explorer, params: ChosenQueries) -> DrawnQuery:
    rows = explorer.rows(asked.drawing(params))
    if not rows:
        raise NotFoundError("there is no traced query like that to draw from; the page of queries has those there are")
    return DrawnQuery(trace_id=rows[0]["trace_id"])


PAGE = Page(
    name="random_query",
    path="/queries/random",
    title="A random query",
    summary="One of the traced queries, drawn at random",
    params=ChosenQueries,
    data=DrawnQuery,
    load=_load,
    moved=lambda drawn: f"/traces/{drawn.trace_id}",
)
