"""Results: what a trace found, proponents and opponents side by side."""

from typing import Annotated

import msgspec

from proponent.query.report.content import TracedQuery
from proponent.query.web.explorer import Explorer
from proponent.query.web.page import Page
from proponent.query.web.traced import traced_query


class OneTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Which trace."""

    trace: Annotated[str, msgspec.Meta(max_length=64, description="Id of the trace, the beginning of one, or `last`.")]


class ResultsView(msgspec.Struct, frozen=True, kw_only=True):
    """A trace, with its hits as reports have them."""

    query: TracedQuery


def _load(explorer: Explorer, params: OneTrace) -> ResultsView:
    return ResultsView(query=traced_query(explorer, params.trace))


PAGE = Page(
    name="results",
    path="/traces/{trace}",
    title="Results",
    summary="A trace, with its proponents and opponents",
    params=OneTrace,
    data=ResultsView,
    load=_load,
)
