"""What a page is, an action, and a download. One module of `pages/` has each.

A page is a function from parameters to one plain value, which is shown as HTML at its path, by the template of its
name, and as JSON at `/api` and the same path. Parameters and value are msgspec types (structs or dataclasses), of which
the checks of what comes in and the text of OpenAPI are both made.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from .explorer import Explorer

API = "/api"
METRICS = "/metrics"


class NoParameters(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a page that takes none."""


def _never(_params: Any) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Page:
    """Something to look at. `load` runs on a thread and may read from the explorer, and nothing else.

    A FieldError of `load` stands beside its field, and the page shows what there is without that field; the JSON twin
    answers with the error.

    `params` is a struct: fields whose names are in `path` as `{name}` are taken from there, the others from the query
    string. `nav` is what the navigation calls the page, None for a page that it does not list. `moved` may return an
    address to go to in place of the page, such as a result that has come.

    What `slow` is true of may take long, and runs on threads of its own, so that nobody else waits for it. `still` is
    for a page that does something because its parameters say so: it returns parameters that show the same and do
    nothing. They are taken where another site's page leads here, and to show the page with what is wrong beside its
    field, where it could not be done.

    `keeps` returns what the page depends on besides its parameters: while that is the same, it is not made again. None
    is for a page that is made anew for everybody who asks.
    """

    name: str
    path: str
    title: str
    summary: str
    data: type[Any]
    load: Callable[["Explorer", Any], Any]
    params: type[Any] = NoParameters
    nav: str | None = None
    moved: Callable[[Any], str | None] = lambda _data: None
    slow: Callable[[Any], bool] = _never
    still: Callable[[Any], Any] | None = None
    keeps: Callable[["Explorer", Any], Hashable | None] = lambda _explorer, _params: None
    scripts: tuple[str, ...] = ()
    """Files of `static/` that the page wants besides `explorer.js`."""

    @property
    def template(self) -> str:
        """Name of its template."""
        return f"{self.name}.html.j2"


@dataclass(frozen=True, kw_only=True)
class Action:
    """Something to do, by POST: of a form at its path, of a JSON body at `/api` and its path.

    `act` runs on a thread, takes `fields` (those of the path among them) and returns `answer`. A browser goes where
    `then` says, or without it is shown the answer as the data of `page`. Where the fields are refused, `page` is shown
    again with what was typed and what is wrong with it; its parameters are the fields of the same names. `writes` says
    that a read-only explorer refuses it.
    """

    name: str
    path: str
    summary: str
    fields: type[Any]
    answer: type[Any]
    act: Callable[["Explorer", Any], Any]
    page: Page
    then: Callable[[Any], str] | None = None
    writes: bool = True
    slow: Callable[[Any], bool] = _never
    """As of a page, by the fields."""
    status: int = 200
    """Status of the JSON answer."""


class File(NamedTuple):
    """A file that is handed out: open at its beginning, and closed by whoever sends it."""

    name: str
    media_type: str
    size: int
    content: IO[bytes]


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file to be had by GET at `/api` and its path. `make` runs as long as `time_s` on a thread for what is slow."""

    name: str
    path: str
    summary: str
    params: type[Any]
    make: Callable[["Explorer", Any], File]
    media_types: tuple[str, ...]
    time_s: float


@dataclass(frozen=True)
class Form:
    """What somebody typed, by field, and what is wrong with it; templates fill their inputs from it."""

    values: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    place: tuple[int, int] | None = None
    """Characters of the wrong field that are to blame, where somebody can tell."""

    def value(self, name: str, default: Any = "") -> Any:
        """Return what a field holds."""
        found = self.values.get(name)
        return default if found is None else found

    def error(self, name: str) -> str:
        """Return what is wrong with a field, or nothing."""
        return self.errors.get(name, "")
