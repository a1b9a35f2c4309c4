"""Ask: a prompt and a target, how to search, and what was asked before.

Notable: opening an address fills the form in and asks nothing. A question is checked here as far as that needs no
model; what only the model finds out is told by the job.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec

from proponent.query.filter import parse_filter
from proponent.query.questions import read_ask
from proponent.query.web.asker import Asker
from proponent.query.web.choices import Choices, choices
from proponent.query.web.explorer import Explorer
from proponent.query.web.jobs import Job, JobView
from proponent.query.web.keyset import Cursor
from proponent.query.web.page import Action, Page
from proponent.query.web.parameters import FieldError
from proponent.query.web.render import url
from proponent.query.web.so_far import SoFar
from proponent.query.web.traced import try_to_weigh
from proponent.query.web.traces import TraceFacts, list_traces
from proponent.schema.errors import FilterError, InputError, SettingsError
from proponent.schema.settings import BM25, METHODS_WITHOUT_CURVATURE, TraceSettings
from proponent.schema.tables import encodings_table
from proponent.store.snapshots import latest_snapshot

PER_PAGE: Final = 20
MOST_TEXT: Final = 20_000
"""Characters of a prompt or a target."""
MOST_HITS: Final = 1000
"""Hits of a side that the explorer asks for."""

_Text = Annotated[str, msgspec.Meta(max_length=MOST_TEXT)]
_Name = Annotated[str, msgspec.Meta(max_length=128)]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question, and how it is searched."""

    prompt: Annotated[_Text, msgspec.Meta(description="What the model reads.")] = ""
    target: Annotated[_Text | None, msgspec.Meta(description="What it says; by default its own completion.")] = None
    instead: Annotated[_Text | None, msgspec.Meta(description="Why the target, and not this?")] = None
    method: Annotated[_Name, msgspec.Meta(description="How passages are compared with the question.")] = "trackstar"
    encoder: Annotated[_Name | None, msgspec.Meta(description="By default the only one that fits.")] = None
    curvature: Annotated[_Name | None, msgspec.Meta(description="By default the encoder's own.")] = None
    filter: Annotated[_Text | None, msgspec.Meta(description="Only passages that meet this are searched.")] = None
    k: Annotated[int, msgspec.Meta(ge=1, le=MOST_HITS, description="Hits of each side.")] = 20
    chat: Annotated[bool, msgspec.Meta(description="Whether the prompt is a user's turn in a chat.")] = False


class Ask(Question, frozen=True, kw_only=True):
    """What fills the form in, and which of the traces are listed."""

    find: Annotated[_Name | None, msgspec.Meta(description="Only traces with this in their question.")] = None
    after: Cursor | None = None
    before: Cursor | None = None


class HomeView(msgspec.Struct, frozen=True, kw_only=True):
    """What the page shows."""

    asked: Ask
    choices: Choices
    traces: list[TraceFacts]
    before: str | None
    """What to give as `before` for the traces before these; null where there are none."""
    after: str | None
    """... as `after` for those after them."""
    jobs: list[JobView]


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What the model is to go on from."""

    prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_TEXT)]
    encoder: _Name | None = None
    chat: bool = False
    method: _Name = "trackstar"
    curvature: _Name | None = None
    filter: _Text | None = None
    k: Annotated[int, msgspec.Meta(ge=1, le=MOST_HITS)] = 20


def _load(explorer: Explorer, params: Ask) -> HomeView:
    listed = explorer.kept(
        ("traces", params.find, params.after, params.before),
        lambda: list_traces(explorer, find=params.find, after=params.after, before=params.before, most=PER_PAGE),
    )
    return HomeView(
        asked=params,
        choices=choices(explorer),
        traces=listed.traces,
        before=listed.before,
        after=listed.after,
        jobs=explorer.jobs.active(),
    )


def ask(explorer: Explorer, question: Question, *, result: Callable[[str], str] = "/traces/{}".format) -> JobView:
    """Queue a question; `result` says where its trace is shown.

    Raises FieldError for one that cannot be asked, LakeBusyError when too many wait.
    """
    settings = _settings(explorer, question)
    asked = {
        name: value
        for name in ("prompt", "target", "instead", "chat")
        if (value := getattr(question, name)) is not None
    }
    try:
        read_ask(asked)
    except InputError as error:
        raise FieldError("instead", str(error)) from error

    def work(asker: Asker, job: Job) -> tuple[str | None, str | None]:
        advance = job.at("loading the model" if settings["method"] != BM25 else "searching by words")
        scanned, so_far = _Scanned(explorer, job, settings), SoFar(explorer, job)
        [trace_id] = asker.trace_all([asked], progress=advance, scanned=scanned, so_far=so_far, **settings)
        job.at("adding up whole sources")
        job.url, job.weighs = result(trace_id), trace_id
        try_to_weigh(explorer, trace_id)
        return job.url, None

    again = url("/", msgspec.to_builtins(question))
    return explorer.ask("trace", _title(question), work, again=again)


def _settings(explorer: Explorer, question: Question) -> dict[str, Any]:
    """Return the settings of the trace. Raises FieldError for what cannot be, beside the field that it is about."""
    if not question.prompt and not question.target:
        raise FieldError("prompt", "write a prompt, a target, or both")
    given = choices(explorer)
    encoder, curvature = question.encoder, question.curvature
    if question.method == BM25:
        encoder = curvature = None  # words need neither, whatever the form still holds
    if question.method in METHODS_WITHOUT_CURVATURE:
        curvature = None
    by_name = {one.name: one for one in given.encoders}
    if encoder is not None and encoder not in by_name:
        raise FieldError("encoder", f"there is no encoder {encoder!r}; there are: {', '.join(by_name) or 'none yet'}")
    known = by_name[encoder].curvatures if encoder else given.curvatures
    if curvature is not None and curvature not in known:
        raise FieldError("curvature", f"there is no curvature {curvature!r}; there are: {', '.join(known)}")
    if question.method == BM25 and question.target is None:
        raise FieldError("target", "a search by words needs a target; it loads no model that could complete the prompt")
    chosen: dict[str, Any] = {
        "method": question.method,
        "encoder": encoder,
        "curvature": curvature,
        "filter": question.filter,
        "k": question.k,
    }
    try:
        TraceSettings(**chosen)
    except SettingsError as error:
        name = str(error).split(" ", 1)[0]
        raise FieldError(name if name in chosen else "method", str(error)) from error
    try:
        if question.filter is not None:
            parse_filter(question.filter)
    except FilterError as error:
        raise FieldError("filter", str(error)) from error
    return chosen


class _Scanned:
    """Is told how many texts were scored, and turns to that stage with the first."""

    def __init__(self, explorer: Explorer, job: Job, settings: dict[str, Any]) -> None:
        self._explorer, self._job, self._settings = explorer, job, settings
        self._advance: Any = None

    def __call__(self, n: int) -> None:
        if self._advance is None:
            self._advance = self._job.at("scoring passages", self._total())
        self._advance(n)

    def _total(self) -> int:
        """Return how many texts there are, 0 where a filter leaves that open."""
        if self._settings["filter"]:
            return 0
        at, lake = latest_snapshot(self._explorer.lake.catalog), self._explorer.lake
        encoders = [self._settings["encoder"]] if self._settings["encoder"] else []
        encoders = encoders or [one.name for one in choices(self._explorer).encoders]
        counts = [
            lake.table(encodings_table(name), at=at).count_rows() for name in encoders if at.has(encodings_table(name))
        ]
        return counts[0] if len(counts) == 1 else 0


def _title(question: Question) -> str:
    target = question.target if question.target is not None else " …"
    return f"{question.prompt[-120:]}{target[:60]}"


def _complete(explorer: Explorer, fields: Completion) -> JobView:
    given = msgspec.to_builtins(fields)

    def work(asker: Asker, job: Job) -> tuple[str | None, str | None]:
        job.at("loading the model")
        text = asker.complete(fields.prompt, encoder=fields.encoder or _only(explorer, fields), chat=fields.chat)
        return url("/", given | {"target": text}), text

    return explorer.ask("completion", fields.prompt[-120:], work, again=url("/", given))


def _only(explorer: Explorer, fields: Completion) -> str | None:
    """Return the encoder whose model completes: all of the lake's encoders may well be of one model."""
    encoders = choices(explorer).encoders
    if len({one.model for one in encoders}) > 1:
        raise FieldError("encoder", "the lake has several models; choose an encoder")
    return encoders[0].name if encoders else None


PAGE = Page(
    name="home",
    path="/",
    title="Ask",
    summary="The question form, and the traces that there are",
    nav="Ask",
    params=Ask,
    data=HomeView,
    load=_load,
    keeps=lambda explorer, _params: (explorer.state(), *explorer.jobs.active()),
    scripts=("ask.js",),
)

ACTIONS = (
    Action(
        name="ask",
        path="/traces",
        summary="Ask a question; the answer is a job, whose url is the result once it is done",
        fields=Question,
        answer=JobView,
        act=ask,
        page=PAGE,
        then=lambda view: f"/jobs/{view.job}",
        status=202,
    ),
    Action(
        name="complete",
        path="/completions",
        summary="Let the model complete a prompt; the answer is a job, whose value is the text once it is done",
        fields=Completion,
        answer=JobView,
        act=_complete,
        page=PAGE,
        then=lambda view: f"/jobs/{view.job}",
        writes=False,
        status=202,
    ),
)
