"""A hit by itself: the passage in its document, and the tokens that carry its influence."""

from typing import Annotated, Final

import msgspec

from proponent.query.report.build import token_shares
from proponent.query.report.content import Hit, TracedQuery
from proponent.query.stored import require_gradients
from proponent.query.web.asker import Asker
from proponent.query.web.explorer import Explorer
from proponent.query.web.jobs import Job, JobView
from proponent.query.web.page import Action, Page
from proponent.query.web.traced import one_hit, read_trace, with_cards
from proponent.schema.settings import METHODS

BESIDE: Final = 20
"""Passages of the document on either side that a page shows."""

_Place = Annotated[int, msgspec.Meta(ge=0, le=1 << 30)]


class OneHit(msgspec.Struct, frozen=True, kw_only=True):
    """Which hit."""

    trace: Annotated[str, msgspec.Meta(max_length=64, description="Id of the trace, the beginning of one, or `last`.")]
    passage: Annotated[str, msgspec.Meta(max_length=64, description="Id of the passage.")]


class InDocument(OneHit, frozen=True, kw_only=True):
    """Which hit, and which part of its document."""

    first: Annotated[_Place | None, msgspec.Meta(description="First passage that is shown, from 0.")] = None


class DocumentPassage(msgspec.Struct, frozen=True, kw_only=True):
    """A passage of the document."""

    passage_id: str
    ordinal: int
    text: str
    is_this: bool


class PassageView(msgspec.Struct, frozen=True, kw_only=True):
    """A hit, and its document around it."""

    query: TracedQuery
    hit: Hit
    strongest: float
    can_explain: bool
    """Whether its score can be split into shares of tokens, and was not yet."""
    passages: list[DocumentPassage]
    n_passages: int
    first: int


def _load(explorer: Explorer, params: InDocument) -> PassageView:
    traced = read_trace(explorer, params.trace)
    hit = one_hit(explorer, traced, params.passage)
    table = explorer.lake.table("passages", at=traced.documents)
    of_document = f"doc_id = '{hit.doc_id}'"  # ids are letters and digits
    columns = ["passage_id", "ordinal"]
    places = {
        row["passage_id"]: row["ordinal"] for row in table.to_table(columns=columns, filter=of_document).to_pylist()
    }
    first = params.first if params.first is not None else max(0, places[hit.passage_id] - BESIDE)
    shown = f"{of_document} AND ordinal >= {first} AND ordinal <= {first + 2 * BESIDE}"
    rows = table.to_table(columns=[*columns, "text"], filter=shown).to_pylist()
    return PassageView(
        query=with_cards(traced, [hit]),
        hit=hit,
        strongest=traced.strongest,
        can_explain=traced.query.method in METHODS and not hit.tokens,
        passages=[
            DocumentPassage(**row, is_this=row["passage_id"] == hit.passage_id)
            for row in sorted(rows, key=lambda row: int(row["ordinal"]))
        ],
        n_passages=len(places),
        first=first,
    )


def _explain(explorer: Explorer, fields: OneHit) -> JobView:
    traced = read_trace(explorer, fields.trace)
    hit = one_hit(explorer, traced, fields.passage)
    trace_id = traced.query.trace_id
    require_gradients(trace_id, traced.query.method)
    address = f"/traces/{trace_id}/passages/{hit.passage_id}"

    def work(asker: Asker, job: Job) -> tuple[str | None, str | None]:
        job.at("splitting the score by tokens")
        found = asker.explain(trace_id, hit.passage_id)
        explorer.remember(("tokens", trace_id, hit.passage_id), token_shares(found.tokens))
        return address, None

    return explorer.ask("tokens", f"Tokens of {hit.title or hit.doc_key}", work, again=address)


PAGE = Page(
    name="passage",
    path="/traces/{trace}/passages/{passage}",
    title="Passage",
    summary="A hit in its document, with the shares of its tokens where they were computed",
    params=InDocument,
    data=PassageView,
    load=_load,
)

ACTIONS = (
    Action(
        name="explain",
        path="/traces/{trace}/passages/{passage}/tokens",
        summary="Split a hit's score into shares of its tokens; the answer is a job",
        fields=OneHit,
        answer=JobView,
        act=_explain,
        page=PAGE,
        then=lambda view: f"/jobs/{view.job}",
        writes=False,
        status=202,
    ),
)
