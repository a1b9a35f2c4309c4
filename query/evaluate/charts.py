"""Charts of an evaluation as inline SVG: means with their intervals, and shares of kinds by rank.

Notable: colours come from the page by class, and every chart says in its `<desc>` what it shows. The page has the same
numbers in a table.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from proponent.query.report.charts import WIDTH, drawing, fitting, units
from proponent.query.report.text import plain

_ROW: Final = 34
_HEIGHT: Final = 90
_FOOT: Final = 18


class Mean(NamedTuple):
    """A mean with its interval."""

    label: str
    mean: float
    low: float
    high: float


def interval_chart(means: Sequence[Mean], *, ident: str, title: str) -> Markup:
    """Draw a row for each mean: a dot, and a line over its interval. No means give no chart: an empty Markup."""
    if not means:
        return Markup()
    least, most = min(0.0, *(one.low for one in means)), max(0.0, *(one.high for one in means))
    span = (most - least) or 1.0
    rows = [_interval(one, place * _ROW, least, span) for place, one in enumerate(means)]
    zero = Markup('<line class="axis" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(
        units(_x(0.0, least, span)), len(means) * _ROW
    )
    described = "; ".join(f"{plain(one.label)}: {one.mean:.4g} ({one.low:.4g} to {one.high:.4g})" for one in means)
    return drawing([zero, *rows], height=len(means) * _ROW, ident=ident, title=title, described=described)


def _interval(one: Mean, top: int, least: float, span: float) -> Markup:
    low, mean, high = (units(_x(value, least, span)) for value in (one.low, one.mean, one.high))
    return Markup(
        '<text class="label" x="0" y="{}">{}</text><text class="value" x="{}" y="{}" text-anchor="end">{:.4g}</text>'
        '<line class="whisker" x1="{}" x2="{}" y1="{}" y2="{}"/><circle class="dot" cx="{}" cy="{}" r="4"/>'
    ).format(
        *(top + 13, fitting(one.label), WIDTH, top + 13, one.mean),
        *(low, high, top + 23, top + 23, mean, top + 23),
    )


def _x(value: float, least: float, span: float) -> float:
    return 6 + (WIDTH - 12) * (value - least) / span


def kinds_chart(by_rank: Sequence[Mapping[str, float]], kinds: Sequence[str], *, ident: str, title: str) -> Markup:
    """Draw a column for each rank, cut into the shares of kinds, the first at the foot. Nothing gives no chart."""
    if not any(by_rank):
        return Markup()
    pitch = WIDTH / len(by_rank)
    parts = []
    for place, shares in enumerate(by_rank):
        left, foot = place * pitch + pitch * 0.1, float(_HEIGHT)
        for which, kind in enumerate(kinds):
            height = _HEIGHT * shares.get(kind, 0.0)
            foot -= height
            parts.append(
                Markup('<rect class="kind k{}" x="{}" y="{}" width="{}" height="{}"/>').format(
                    which, units(left), units(foot), units(pitch * 0.8), units(height)
                )
            )
        parts.append(
            Markup('<text class="label" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                units(left + pitch * 0.4), _HEIGHT + 14, place + 1
            )
        )
    described = "; ".join(
        f"rank {place}: " + ", ".join(f"{kind} {shares.get(kind, 0.0):.0%}" for kind in kinds)
        for place, shares in enumerate(by_rank, start=1)
    )
    return drawing(parts, height=_HEIGHT + _FOOT, ident=ident, title=title, described=described)
