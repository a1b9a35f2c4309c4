"""What went wrong, as a page or as JSON: one clear line with the remedy, and the status that belongs to it."""

import logging
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from proponent.schema.errors import (
    InputError,
    LakeBusyError,
    LakeError,
    ModelError,
    NotFoundError,
    ProponentError,
    SettingsError,
)

from .page import API, METRICS
from .parameters import FieldError
from .render import render

_log = logging.getLogger(__name__)

_TITLES: Final = {
    400: "That cannot be asked so",
    401: "A token is needed",
    403: "Not from here",
    404: "Not here",
    405: "Not in this way",
    408: "That took too long",
    413: "Too much at once",
    414: "The address is too long",
    415: "Not in this form",
    422: "That cannot be used",
    429: "Too many requests",
    500: "Something failed here",
    503: "Busy",
}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong."""

    status: int
    error: str
    """One line: what is wrong, and what to do about it."""
    field: str | None = None
    """The parameter or field that is to blame, where one is."""
    place: list[int] | None = None
    """Characters of it that are to blame, from the first to behind the last, where somebody can tell."""


class RefusedError(ProponentError):
    """A request that is refused as such."""

    def __init__(self, status: int, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


_KINDS: Final[tuple[tuple[type[Exception], int], ...]] = (
    (FieldError, 400),
    (NotFoundError, 404),
    (SettingsError, 422),
    (InputError, 400),
    (LakeBusyError, 503),
    (LakeError, 503),
    (ModelError, 422),
)


def problem_of(error: Exception) -> Problem:
    """Return what is told of an error; one that nobody has named goes to the log."""
    if isinstance(error, RefusedError):
        return Problem(status=error.status, error=str(error))
    if isinstance(error, HTTPException):
        told = {
            404: "there is no such page; the navigation has those there are",
            405: "this address takes other methods",
        }
        return Problem(status=error.status_code, error=told.get(error.status_code, error.detail))
    if isinstance(error, TimeoutError) and not isinstance(error, ProponentError):
        return Problem(status=503, error="the page took too long and was given up; ask for less, or try again")
    for kind, status in _KINDS:
        if isinstance(error, kind):
            if isinstance(error, FieldError):
                return Problem(
                    status=status,
                    error=_one_line(error),
                    field=error.field or None,
                    place=error.place and list(error.place),
                )
            return Problem(status=status, error=_one_line(error))
    _log.error("a request failed", exc_info=error)
    return Problem(status=500, error=f"{type(error).__name__} in the server, whose log says more")


def failed(request: Request, error: Exception, site: dict[str, Any]) -> Response:
    """Return the answer to a request that failed, in the form that was asked for."""
    problem = problem_of(error)
    headers = dict(getattr(error, "headers", None) or {})
    if problem.status in {429, 503}:
        headers.setdefault("Retry-After", "2")
    if is_api(request.url.path):
        return json_response(problem, status=problem.status, headers=headers)
    values = {**site, "title": _TITLES.get(problem.status, "Not possible"), "problem": problem}
    return HTMLResponse(render("error.html.j2", values), status_code=problem.status, headers=headers)


def is_api(path: str) -> bool:
    """Whether a program asks, which is told what is wrong as JSON and sent to no page."""
    return path in (API, METRICS) or path.startswith(f"{API}/")


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a value as JSON."""
    content = msgspec.json.encode(value, enc_hook=_encoded)
    return Response(content, status_code=status, media_type="application/json", headers=headers)


def _encoded(value: Any) -> Any:
    """Return what JSON has no form for as text."""
    return str(value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
