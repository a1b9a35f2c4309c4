"""Traces that are stored: found by what people call them, and the questions that they answer."""

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.errors import NotFoundError, SettingsError
from proponent.schema.settings import METHODS, METHODS_WITHOUT_CURVATURE, TraceSettings
from proponent.store.lake import LakeStore

from .questions import Part, Question

_LEAST: Final = 4
"""Characters of an id that name it."""


def resolve_trace(lake: LakeStore, name: str) -> str:
    """Return a trace's id from the id, the beginning of one (at least 4 characters), or `last` for the newest.

    Raises NotFoundError when there is none, or more than one.
    """
    with lake.catalog.read() as session:
        if name == "last":
            newest = (
                select(models.Trace.trace_id).order_by(models.Trace.created_at.desc(), models.Trace.trace_id).limit(1)
            )
            found = list(session.scalars(newest))
        elif may_be_id(name):
            found = list(session.scalars(select(models.Trace.trace_id).where(models.Trace.trace_id.startswith(name))))
        else:
            found = []
    if len(found) == 1:
        return found[0]
    if name == "last":
        raise NotFoundError("the lake has no traces yet; ask a question with `proponent trace`")
    problem = f"{len(found)} traces begin with {name!r}; give more of the id" if found else f"no trace {name!r}"
    raise NotFoundError(
        f"{problem}; list them with: SELECT trace_id, prompt, target FROM traces JOIN queries USING (query_id)"  # noqa: S608
    )


def may_be_id(name: str) -> bool:
    """Return whether a text can be the id of a trace or a query, or enough of its beginning to name it."""
    return len(name) >= _LEAST and name.isascii() and name.isalnum()


def scored_as(method: str, curvature: str | None) -> TraceSettings:
    """Return a stored trace's method and curvature as settings; some methods take none, whatever the trace says."""
    return TraceSettings(method=method, curvature=None if method in METHODS_WITHOUT_CURVATURE else curvature)


def require_gradients(trace_id: str, method: str) -> None:
    """Raise SettingsError for a trace whose scores are not dot products of gradients."""
    if method not in METHODS:
        raise SettingsError(
            f"trace {trace_id} is by method {method!r}, whose scores are not of gradients; "
            f"take one by {', '.join(METHODS)}"
        )


def stored_question(trace: Mapping[str, Any]) -> Question:
    """Return the question of a trace, from its query's prompt, target and parts as the catalog keeps them."""
    parts = json.loads(trace["parts"] or "[]")
    if not any("query" in part for part in parts):
        return Question(trace["prompt"], trace["target"], parts=tuple(Part(**part) for part in parts))
    members: list[list[Part]] = []
    firsts: dict[str, Any] = {}
    for part in parts:  # no query has two equal parts, so its first one begins it anew
        if part == firsts.setdefault(part["query"], part):
            members.append([])
        members[-1].append(Part(**{name: value for name, value in part.items() if name != "query"}))
    queries = tuple(Question(some[0].prompt, some[0].target, parts=tuple(some)) for some in members)
    return Question(trace["prompt"], trace["target"], members=queries)
