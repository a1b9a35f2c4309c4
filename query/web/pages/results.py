"""Results: what a trace found on either side, with facets of the list, and where all influence comes from."""

from collections.abc import Hashable
from dataclasses import replace
from typing import Annotated, Any, Final

import msgspec

from proponent.query.report.content import Beside, Sources, TracedQuery
from proponent.query.stored import resolve_trace
from proponent.query.web.asker import Asker
from proponent.query.web.explorer import Explorer
from proponent.query.web.jobs import Job, JobView
from proponent.query.web.listing import Chosen, Facets, Order, facets, filter_of, ordered, select, statement
from proponent.query.web.page import Action, Page
from proponent.query.web.pages.home import Question, ask
from proponent.query.web.parameters import FieldError
from proponent.query.web.render import url
from proponent.query.web.traced import Listed, Traced, cards, is_whole_id, read_trace, weigh, weighed, with_cards

PER_PAGE: Final = 20
MOST_PER_PAGE: Final = 100

_Id = Annotated[str, msgspec.Meta(max_length=64, description="Id of the trace, the beginning of one, or `last`.")]


class Wanted(Chosen, frozen=True, kw_only=True):
    """Which trace, and what of it."""

    trace: _Id
    sort: Annotated[Order, msgspec.Meta(description="Order of each side's list.")] = "rank"
    page: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    per: Annotated[int, msgspec.Meta(ge=1, le=MOST_PER_PAGE, description="Hits of a side on a page.")] = PER_PAGE


class OneTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Which trace."""

    trace: _Id


class ChosenOf(Chosen, frozen=True, kw_only=True):
    """What is to be searched again."""

    trace: _Id


class ResultsView(msgspec.Struct, frozen=True, kw_only=True):
    """A trace, with the hits of a page of its list as reports have them."""

    query: TracedQuery
    strongest: float
    n_proponents: int
    """Of the whole list, before anything is chosen."""
    n_opponents: int
    chosen_proponents: int
    chosen_opponents: int
    page: int
    pages: int
    chosen: Wanted
    facets: Facets
    sources: Sources | None
    """Where the influence comes from, over the whole corpus; null until it was weighed."""
    sources_missing: str | None
    can_weigh: bool
    weighing: JobView | None
    """The job that adds up whole sources now."""
    filter_before: str | None
    """What is chosen here as a filter before the search, joined with the trace's own."""
    sql: str
    ask_again: str
    """Address of the form with this question."""


def _load(explorer: Explorer, params: Wanted) -> ResultsView:
    traced = read_trace(explorer, params.trace)
    chosen = select(traced.hits, params)
    sides = {
        side: ordered([hit for hit in chosen if hit.side == side], params.sort) for side in ("proponent", "opponent")
    }
    first = (params.page - 1) * params.per
    shown: list[Listed] = [hit for side in sides.values() for hit in side[first : first + params.per]]
    weighing = _weighing(explorer, traced.query.trace_id)
    sources, missing = weighed(explorer, traced.query.trace_id) or (None, None)
    query = with_cards(traced, cards(explorer, traced, shown))
    return ResultsView(
        query=replace(query, beside=Beside(sources=sources, sources_missing=missing)),
        strongest=traced.strongest,
        n_proponents=sum(hit.side == "proponent" for hit in traced.hits),
        n_opponents=sum(hit.side == "opponent" for hit in traced.hits),
        chosen_proponents=len(sides["proponent"]),
        chosen_opponents=len(sides["opponent"]),
        page=params.page,
        pages=max(1, -(-max(map(len, sides.values())) // params.per)),
        chosen=params,
        facets=facets(traced.hits, params),
        sources=sources,
        sources_missing=missing,
        can_weigh=sources is None and missing is None and weighing is None and not explorer.settings.read_only,
        weighing=weighing if sources is None and missing is None else None,
        filter_before=_joined(traced.query.filter, filter_of(params)),
        sql=statement(traced.query.trace_id, params, params.sort, most=params.per, skipped=first),
        ask_again=url("/", msgspec.to_builtins(_question(traced))) if _is_plain(traced.query) else "/",
    )


def _joined(own: str | None, chosen: str | None) -> str | None:
    if own is None or chosen is None:
        return own or chosen
    return f"({own})\nAND {chosen}"  # a comment at the end of one's own filter must not swallow the rest


def _is_plain(query: TracedQuery) -> bool:
    """Whether the form can hold the question."""
    return query.n_queries == 1 and len(query.targets) == 1 and query.method in {*_ASKED, query.fused}


_ASKED: Final = ("trackstar", "logra", "trak", "gradcos", "graddot", "bm25", "hybrid")


def _question(traced: Traced, where: str | None = None) -> Question:
    """Return the question of a trace, to be asked again."""
    query = traced.query
    own_curvature = query.curvature not in {None, "reference", "identity"}
    return Question(
        prompt=query.prompt,
        target=query.targets[0],
        instead=query.instead[0] if query.instead else None,
        method=query.method,
        encoder=query.encoder,
        curvature=query.curvature if own_curvature or _is_identity(query) else None,
        filter=query.filter if where is None else where,
        k=min(query.k, 1000),
        chat=query.chat,
    )


def _is_identity(query: TracedQuery) -> bool:
    """Whether somebody chose no curvature, where the method has one of its own."""
    return query.curvature == "identity" and query.method not in {"gradcos", "graddot", "bm25"}


def _again(explorer: Explorer, fields: ChosenOf) -> JobView:
    traced = read_trace(explorer, fields.trace)
    if fields.is_all:
        raise FieldError("", "choose a source, an entity or a time first; then the search is among those only")
    if not _is_plain(traced.query):
        raise FieldError("", "a mean of several questions is searched again by `proponent trace --filter`")
    return ask(explorer, _question(traced, _joined(traced.query.filter, filter_of(fields))))


def _weigh(explorer: Explorer, fields: OneTrace) -> JobView:
    trace_id = read_trace(explorer, fields.trace).query.trace_id

    def work(_asker: Asker, job: Job) -> tuple[str | None, str | None]:
        job.at("adding up whole sources")
        job.weighs = trace_id
        weigh(explorer, trace_id)
        return f"/traces/{trace_id}#shares", None

    return explorer.ask(
        "shares", f"Where the influence of trace {trace_id} comes from", work, again=f"/traces/{trace_id}"
    )


def _done(view: Any) -> str:
    return f"/jobs/{view.job}"


def _weighing(explorer: Explorer, trace_id: str) -> JobView | None:
    return next((job for job in explorer.jobs.active() if job.weighs == trace_id), None)


def _depends(explorer: Explorer, params: Wanted) -> Hashable:
    name = params.trace if is_whole_id(params.trace) else resolve_trace(explorer.lake, params.trace)
    weighing = _weighing(explorer, name)
    known = explorer.state_of_trace(name), weighing and weighing.job
    return known if is_whole_id(params.trace) else (explorer.state(), known)


PAGE = Page(
    name="results",
    path="/traces/{trace}",
    title="Results",
    summary="A trace, with its proponents and opponents, chosen by source, entity and time",
    params=Wanted,
    data=ResultsView,
    load=_load,
    keeps=_depends,
    scripts=("results.js",),
)

ACTIONS = (
    Action(
        name="search_again",
        path="/traces/{trace}/again",
        summary="Ask a trace's question again among what is chosen only; the answer is a job",
        fields=ChosenOf,
        answer=JobView,
        act=_again,
        page=PAGE,
        then=_done,
        status=202,
    ),
    Action(
        name="weigh",
        path="/traces/{trace}/shares",
        summary="Add up the influence of the whole corpus by source and by time; the answer is a job",
        fields=OneTrace,
        answer=JobView,
        act=_weigh,
        page=PAGE,
        then=_done,
        status=202,
    ),
)
