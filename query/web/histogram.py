"""Hits over time as a picture that can be brushed: proponents above the line, opponents below it."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from proponent.query.report.charts import WIDTH, drawing, units

from .listing import Bin

_HALF: Final = 44
_LABELS: Final = 18


def histogram(bins: Sequence[Bin], *, ident: str, title: str) -> Markup:
    """Draw one column for each stretch of time; an empty Markup without any.

    Each column's group says in `data-since` and `data-until` what it is of, for the script by which it is brushed.
    """
    if not bins:
        return Markup()
    above = max(one.n_proponents for one in bins)
    below = max(one.n_opponents for one in bins)
    scale = _HALF / (max(above, below) or 1)
    zero = above * scale + 6
    foot = zero + below * scale
    pitch = min(WIDTH / len(bins), WIDTH / 3)
    frame = _Frame(pitch, zero, scale, foot)
    parts = [_column(one, place * pitch, frame) for place, one in enumerate(bins)]
    end = units(pitch * len(bins))
    parts.append(Markup('<line class="axis" x1="0" x2="{}" y1="{}" y2="{}"/>').format(end, units(zero), units(zero)))
    parts.append(Markup('<text class="label" x="0" y="{}">{}</text>').format(units(foot + 16), bins[0].since))
    if len(bins) > 1:
        parts.append(
            Markup('<text class="label" x="{}" y="{}" text-anchor="end">{}</text>').format(
                end if len(bins) > 2 else WIDTH, units(foot + 16), bins[-1].until
            )
        )
    described = "; ".join(
        f"{one.label}: {one.n_proponents} and {one.n_opponents}" for one in bins if one.n_proponents or one.n_opponents
    )
    return drawing(parts, height=round(foot + _LABELS + 4), ident=ident, title=title, described=described)


class _Frame(NamedTuple):
    """What all columns share: their distance, the line at zero, units for a hit, and the lowest point."""

    pitch: float
    zero: float
    scale: float
    foot: float


def _column(one: Bin, left: float, frame: _Frame) -> Markup:
    pitch, zero, scale, foot = frame
    width = max(pitch - min(2.0, pitch / 4), 0.5)
    rects = [
        Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
            kind, units(left), units(top), units(width), units(height)
        )
        for kind, top, height in (
            ("bar", zero - one.n_proponents * scale, one.n_proponents * scale),
            ("bar away", zero, one.n_opponents * scale),
        )
        if height
    ]
    behind = Markup('<rect class="behind" x="{}" y="0" width="{}" height="{}"/>').format(
        units(left), units(pitch), units(foot)
    )
    return Markup('<g class="bin{}" data-since="{}" data-until="{}">{}{}</g>').format(
        " chosen" if one.chosen else "", one.since, one.until, behind, Markup("").join(rects)
    )
