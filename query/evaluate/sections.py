"""Parts of an evaluation's results as people read them: a table of texts, and charts of the same numbers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from .charts import Mean, interval_chart


class Chart(NamedTuple):
    """A picture, and what stands above it."""

    title: str
    svg: Markup


class Section(NamedTuple):
    """A part of the results: a table, and charts of the same numbers."""

    title: str
    note: str
    rows: list[dict[str, str]]
    charts: tuple[Chart, ...] = ()
    legend: tuple[str, ...] = ()
    """What the colours of the charts stand for, in order."""


def interval_charts(means: Sequence[Mean], *, ident: str, title: str) -> tuple[Chart, ...]:
    """Return the chart of some means; one alone needs none."""
    return (Chart(title, interval_chart(means, ident=ident, title=title)),) if len(means) > 1 else ()


def mean_cell(found: Mapping[str, float] | None, digits: int = 3) -> str:
    """Return a mean with its interval as a table has it."""
    if found is None:
        return ""
    return f"{found['mean']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def drawn_mean(label: str, found: Mapping[str, float]) -> Mean:
    """Return a mean with its interval as a chart has it."""
    return Mean(label, found["mean"], found["low"], found["high"])
