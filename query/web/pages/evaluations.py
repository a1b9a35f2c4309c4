"""Evaluations: the tables and charts of those that `proponent serve --evaluation` was given."""

from typing import Annotated, Any

import msgspec

from proponent.query.evaluate.sections import Section
from proponent.query.web.evaluated import Evaluated
from proponent.query.web.explorer import Explorer
from proponent.query.web.page import Page
from proponent.schema.errors import NotFoundError

_Name = Annotated[str, msgspec.Meta(max_length=255)]


class OneEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Which evaluation."""

    of: Annotated[_Name | None, msgspec.Meta(description="Its name; by default the first.")] = None


class EvaluationsView(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation, and the names of all."""

    names: list[str]
    name: str | None
    told: list[str]
    results: Any
    """All of it, as its `results.json` has it."""

    @property
    def sections(self) -> list[Section]:
        """Its tables and charts."""
        return Evaluated(self.name, self.results).sections if self.name is not None else []


def _load(explorer: Explorer, params: OneEvaluation) -> EvaluationsView:
    given = explorer.evaluations
    if params.of is not None and params.of not in given:
        raise NotFoundError(f"there is no evaluation {params.of!r} here; there are: {', '.join(given) or 'none'}")
    name = params.of or next(iter(given), None)
    chosen = given[name] if name is not None else None
    return EvaluationsView(
        names=list(given),
        name=name,
        told=chosen.told if chosen else [],
        results=chosen.results if chosen else None,
    )


PAGE = Page(
    name="evaluations",
    path="/evaluations",
    title="Evaluations",
    summary="Tables and charts of the evaluations that are shown beside the lake",
    params=OneEvaluation,
    data=EvaluationsView,
    load=_load,
)
