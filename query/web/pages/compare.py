"""Compare: two traces side by side, joined by passage, with what moved; and the way to the second one.

Notable: what there is to say of two traces is said by reports, too, and by the same words. A trace that is missing is
asked for by a job, whose result is the comparison.
"""

from collections.abc import Hashable, Sequence
from datetime import date
from typing import Annotated, Final, Literal

import msgspec

from proponent.query.report import wording
from proponent.query.report.compare import Compared, Comparison, Place
from proponent.query.report.compare import compare as joined
from proponent.query.report.content import Hit, Side, TracedQuery
from proponent.query.statement import literal
from proponent.query.web.choices import Choices, choices
from proponent.query.web.explorer import Explorer
from proponent.query.web.jobs import JobView
from proponent.query.web.keyset import Cursor
from proponent.query.web.page import Action, Page
from proponent.query.web.parameters import FieldError
from proponent.query.web.render import url
from proponent.query.web.traced import Listed, Traced, cards, is_whole_id, read_trace, with_cards
from proponent.query.web.traces import TraceFacts, list_traces, newest_beside
from proponent.schema.settings import BM25

from .home import MOST_HITS, Question, ask

PER_PAGE: Final = 25
AT: Final = 10
"""So many first ranks are compared, besides all."""

_Id = Annotated[str, msgspec.Meta(max_length=64)]
_Name = Annotated[str, msgspec.Meta(max_length=128)]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which two traces, and which of their passages."""

    a: Annotated[_Id | None, msgspec.Meta(description="Id of the first trace, the beginning of one, or `last`.")] = None
    b: Annotated[_Id | None, msgspec.Meta(description="Id of the second.")] = None
    beside: Annotated[
        _Name | None, msgspec.Meta(description="In the place of b: the newest by this method of the same question.")
    ] = None
    side: Annotated[Literal["proponent", "opponent"] | None, msgspec.Meta(description="Only passages of a side.")] = (
        None
    )
    only: Annotated[
        Literal["both", "a", "b"] | None, msgspec.Meta(description="Only passages of both, or of one alone.")
    ] = None
    sort: Annotated[
        Literal["a", "b", "change"], msgspec.Meta(description="By the ranks in a or b, or what moved most.")
    ] = "a"
    find: Annotated[_Name | None, msgspec.Meta(description="Only traces with this in their question.")] = None
    page: Annotated[int, msgspec.Meta(ge=1, le=100_000, description="Page of the passages.")] = 1
    after: Cursor | None = None
    before: Cursor | None = None


class PlaceView(msgspec.Struct, frozen=True, kw_only=True):
    """Where a trace lists a passage."""

    side: str
    rank: int
    score: float
    percentile: float | None
    z_score: float | None


class ComparedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that one of the traces lists, or both; null where one does not."""

    passage_id: str
    a: PlaceView | None
    b: PlaceView | None
    moved: int | None
    """Ranks that it rose from a to b, on the same side."""
    told: str
    title: str
    text: str
    source: str | None
    published: date | None
    url: str | None
    doc_id: str
    doc_key: str


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What the two traces differ in."""

    what: str
    a: str
    b: str


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the first n of a side are the same in both."""

    side: str
    n: int
    shared: int


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How much two traces have in common."""

    same_question: bool
    told: str
    tau: float | None
    """Kendall's tau-b of the proponents that both list."""
    overlaps: list[Overlap]
    differences: list[Difference]


class CompareView(msgspec.Struct, frozen=True, kw_only=True):
    """Two traces side by side, or those to choose from where one is missing."""

    asked: Wanted
    a: TraceFacts | None
    b: TraceFacts | None
    agreement: Agreement | None = None
    rows: list[ComparedRow] = []
    n_rows: int = 0
    opposes: bool = True
    """Whether either has opponents; by words nothing pushes away."""
    traces: list[TraceFacts] = []
    choices: Choices
    before: str | None = None
    """What to give as `before` for the traces before these; null where there are none."""
    after: str | None = None
    """... as `after` for those after them."""
    more: bool = False
    """Whether there are more pages of passages."""
    statement: str = ""


class AskBeside(msgspec.Struct, frozen=True, kw_only=True):
    """The question of a trace once more, asked in another way."""

    a: Annotated[str, msgspec.Meta(min_length=1, max_length=64, description="Id of the trace.")]
    method: _Name = BM25
    encoder: _Name | None = None
    curvature: _Name | None = None


def _load(explorer: Explorer, params: Wanted) -> CompareView:
    a, b = (_facts(explorer, name) if name else None for name in (params.a, params.b))
    if a and not b and params.beside:
        b = newest_beside(explorer, a, params.beside)
    if a and b:
        return _compared(explorer, params, a, b)
    return _to_choose(explorer, params, a, b)


def _facts(explorer: Explorer, name: str) -> TraceFacts:
    query = read_trace(explorer, name).query
    known = {one: getattr(query, one) for one in TraceFacts.__struct_fields__ if one != "snapshot"}
    return TraceFacts(**known, snapshot=int(query.snapshot))


def _to_choose(explorer: Explorer, params: Wanted, a: TraceFacts | None, b: TraceFacts | None) -> CompareView:
    known = a or b
    found = list_traces(
        explorer, find=params.find, after=params.after, before=params.before, most=PER_PAGE, beside=known
    )
    return CompareView(
        asked=params,
        a=a,
        b=b,
        traces=found.traces,
        before=found.before,
        after=found.after,
        choices=choices(explorer),
    )


def _compared(explorer: Explorer, params: Wanted, a: TraceFacts, b: TraceFacts) -> CompareView:
    if a.trace_id == b.trace_id:
        raise FieldError("b", "a and b are the same trace; choose another one to put beside it")
    first, second = (read_trace(explorer, one.trace_id) for one in (a, b))
    comparison = joined(_without_texts(first), _without_texts(second))
    rows = _chosen_rows(comparison, params)
    skipped = (params.page - 1) * PER_PAGE
    shown = rows[skipped : skipped + PER_PAGE]
    hits = _with_texts(explorer, first, second, shown)
    return CompareView(
        asked=params,
        a=a,
        b=b,
        agreement=_agreement(comparison),
        rows=[_row(one, hits[one.hit.passage_id]) for one in shown],
        n_rows=len(rows),
        more=len(rows) > skipped + PER_PAGE,
        opposes=any(hit.side == "opponent" for hit in (*first.hits, *second.hits)),
        choices=choices(explorer),
        statement=_statement(params, a, b),
    )


def _without_texts(traced: Traced) -> TracedQuery:
    """Return a trace with its hits as far as they are compared."""
    hits = [
        Hit(**{name: getattr(hit, name) for name in Listed.__slots__}, text="", doc_key="", corpus="")
        for hit in traced.hits
    ]
    return with_cards(traced, hits)


def _with_texts(explorer: Explorer, first: Traced, second: Traced, shown: Sequence[Compared]) -> dict[str, Hit]:
    """Return the hits that are shown, each as the first trace searched it that lists it, by passage_id."""
    wanted = {one.hit.passage_id for one in shown}
    found: dict[str, Hit] = {}
    for traced in (first, second):
        listed = [hit for hit in traced.hits if hit.passage_id in wanted - set(found)]
        found |= {hit.passage_id: hit for hit in cards(explorer, traced, listed)}
    return found


def _chosen_rows(comparison: Comparison, params: Wanted) -> list[Compared]:
    rows = {"proponent": comparison.proponents, "opponent": comparison.opponents}
    found = [one for side, some in rows.items() if params.side in (None, side) for one in some]
    if params.only == "both":
        found = [one for one in found if one.first and one.second]
    elif params.only:
        found = [one for one in found if (one.second if params.only == "a" else one.first) is None]
    if params.sort == "b":
        # Sides stay apart, as they do by ranks of a.
        towards = {one.hit.passage_id for one in comparison.proponents}
        found.sort(key=lambda one: (one.hit.passage_id not in towards, *_rank(one.second), *_rank(one.first)))
    elif params.sort == "change":
        found.sort(key=lambda one: (one.moved is None, -abs(one.moved or 0), *_rank(one.first), *_rank(one.second)))
    return found


def _rank(place: Place | None) -> tuple[bool, int]:
    return place is None, place.rank if place else 0


def _row(one: Compared, hit: Hit) -> ComparedRow:
    return ComparedRow(
        passage_id=hit.passage_id,
        a=_place(one.first),
        b=_place(one.second),
        moved=one.moved,
        told=wording.moved(one),
        title=wording.title_of(hit),
        text=hit.text,
        source=hit.source,
        published=hit.published,
        url=hit.url,
        doc_id=hit.doc_id,
        doc_key=hit.doc_key,
    )


def _place(place: Place | None) -> PlaceView | None:
    return PlaceView(**place._asdict()) if place else None


def _agreement(comparison: Comparison) -> Agreement:
    first, second = comparison.first, comparison.second
    overlaps: list[Overlap] = []
    sides: tuple[tuple[Side, int], ...] = (
        ("proponent", min(len(first.proponents), len(second.proponents))),
        ("opponent", min(len(first.opponents), len(second.opponents))),
    )
    for side, most in sides:
        depths = sorted({min(AT, most), most} - {0})
        overlaps += [Overlap(side=side, n=n, shared=comparison.overlap(side, n)) for n in depths]
    differences = [Difference(what=what, a=a, b=b) for what, a, b in wording.differing(comparison)]
    return Agreement(
        same_question=comparison.same_question,
        told=wording.agreement(comparison),
        tau=comparison.tau,
        overlaps=overlaps,
        differences=differences,
    )


def _statement(params: Wanted, a: TraceFacts, b: TraceFacts) -> str:
    """Return the SELECT of the rows; a passage on opposite sides, one row on the page, is two of it."""
    meets = [f"side = {literal(params.side)}"] if params.side else []
    meets += {
        "both": ["rank_a IS NOT NULL AND rank_b IS NOT NULL"],
        "a": ["rank_b IS NULL"],
        "b": ["rank_a IS NULL"],
    }.get(params.only or "", [])
    where = f"\nWHERE {' AND '.join(meets)}" if meets else ""
    order = {
        "a": "side DESC, rank_a NULLS LAST, rank_b",
        "b": "side DESC, rank_b NULLS LAST, rank_a",
        "change": "abs(rank_change) DESC NULLS LAST, rank_a, rank_b",
    }[params.sort]
    return (
        "SELECT side, rank_a, rank_b, rank_change, score_a, score_b, z_score_a, z_score_b, source, title, text\n"
        f"FROM compare({literal(a.trace_id)}, {literal(b.trace_id)}){where}\nORDER BY {order}"
    )


def _ask_beside(explorer: Explorer, fields: AskBeside) -> JobView:
    query = read_trace(explorer, fields.a).query
    if query.n_queries > 1 or len(query.targets) > 1:
        raise FieldError(
            "a", "its question is of several prompts or targets; `proponent trace --queries` asks it again"
        )
    question = Question(
        prompt=query.parts[0].prompt if query.parts else query.prompt,
        target=query.targets[0],
        instead=query.instead[0] if query.instead else None,
        method=fields.method,
        encoder=fields.encoder or query.encoder,
        curvature=fields.curvature,
        filter=query.filter,
        k=min(query.k, MOST_HITS),
        chat=query.chat,
    )
    return ask(explorer, question, result=lambda trace_id: url("/compare", a=query.trace_id, b=trace_id))


def _moved(view: CompareView) -> str | None:
    """Return the address that names both traces, where one was found by its method."""
    if view.asked.b or not (view.a and view.b):
        return None
    asked = msgspec.to_builtins(view.asked) | {"a": view.a.trace_id, "b": view.b.trace_id, "beside": None}
    return url("/compare", {name: value for name, value in asked.items() if value not in ("a", 1) or name in "ab"})


def _depends(explorer: Explorer, params: Wanted) -> Hashable:
    if params.a and params.b and is_whole_id(params.a) and is_whole_id(params.b):
        return explorer.state_of_trace(params.a), explorer.state_of_trace(params.b)
    return explorer.state()


PAGE = Page(
    name="compare",
    path="/compare",
    title="Compare",
    summary="Two traces side by side, or the traces to choose from",
    nav="Compare",
    params=Wanted,
    data=CompareView,
    load=_load,
    moved=_moved,
    keeps=_depends,
)

ACTIONS = (
    Action(
        name="ask_beside",
        path="/compare",
        summary="Ask the question of a trace in another way; the answer is a job, whose url is the comparison",
        fields=AskBeside,
        answer=JobView,
        act=_ask_beside,
        page=PAGE,
        then=lambda view: f"/jobs/{view.job}",
        status=202,
    ),
)
