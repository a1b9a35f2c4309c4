"""Bar charts as inline SVG: no script, no font, no colour of their own.

Colours come from the page's custom properties by class (`bar`, `bar away`, `bar rest`, `axis`, `label`, `value`), so
that dark mode and print need nothing here. A chart says in its `<desc>` what it shows; the page puts a table beside it.
Drawn 360 units wide, about the width of a phone, because labels in an SVG shrink with it. Values below zero go the
other way from a line at zero.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from .content import Span
from .text import plain

WIDTH: Final = 360
_ROW: Final = 36  # a bar's row: its label, and the bar below it
_VALUE_WIDTH: Final = 64  # the numbers stand in a column of their own
_MAX_ROWS: Final = 12
_PLOT_HEIGHT: Final = 104
_TOP: Final = 20  # room for the numbers above the columns
_REST_WIDTH: Final = 72  # the undated column stands apart, because it has no place in time
_STEPS: Final[dict[Span, tuple[int, ...]]] = {
    "month": (1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200, 6000),
    "year": (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
    "decade": (1, 2, 5, 10, 20, 50, 100),
    "century": (1, 2, 5, 10),
}
_YEARS: Final[dict[Span, int]] = {"year": 1, "decade": 10, "century": 100}
_LABEL_WIDTH: Final = 46  # in Latin letters


class Bar(NamedTuple):
    """One bar or column: its value, the number as it is written, and its place on a time axis if it has one."""

    label: str
    value: float
    shown: str
    known: bool = True
    place: int | None = None


class _Column(NamedTuple):
    centre: float
    width: float
    bar: Bar


def bar_chart(bars: Sequence[Bar], *, ident: str, title: str) -> Markup:
    """Draw one horizontal bar per value, the twelve first; more are counted in a last line.

    `ident` makes the ids of this chart unique on the page. No bars give no chart: an empty Markup.
    """
    if not bars:
        return Markup()
    drawn = bars[:_MAX_ROWS]
    low, high = _range(drawn)
    room = WIDTH - _VALUE_WIDTH
    zero = room * -low / (high - low)
    rows = [_bar(bar, index * _ROW, zero, room / (high - low)) for index, bar in enumerate(drawn)]
    height = len(drawn) * _ROW
    if low < 0:
        rows.append(_line(zero, zero, 0, height))
    if len(bars) > len(drawn):
        more = f"and {len(bars) - len(drawn)} more, in the table"
        rows.append(Markup('<text class="label" x="0" y="{}">{}</text>').format(height + 14, more))
        height += 22
    return _svg(rows, height=height, ident=ident, title=title, bars=bars)


def column_chart(bars: Sequence[Bar], *, ident: str, title: str, span: Span) -> Markup:
    """Draw one column per span of time, so that a gap in time is a gap in the picture; those without a place apart.

    Where no bar has a place in time there is no chart: an empty Markup.
    """
    if not any(bar.place is not None for bar in bars):
        return Markup()
    low, high = _range(bars)
    scale = _PLOT_HEIGHT / (high - low)
    zero = _TOP + high * scale
    foot = _TOP + _PLOT_HEIGHT + (14 if low < 0 else 0)  # room for the numbers below the columns
    parts = [_column(column, zero, scale) for column in _columns(bars)]
    parts.append(_line(0, WIDTH, zero, zero))
    parts.extend(
        Markup('<text class="label" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            units(x), units(foot + 18), label
        )
        for x, label in _ticks(bars, span)
    )
    return _svg(parts, height=foot + 26, ident=ident, title=title, bars=bars)


def _range(bars: Sequence[Bar]) -> tuple[float, float]:
    low, high = min(0.0, *(bar.value for bar in bars)), max(0.0, *(bar.value for bar in bars))
    return (low, high) if high > low else (0.0, 1.0)


def _svg(parts: Sequence[Markup], *, height: int, ident: str, title: str, bars: Sequence[Bar]) -> Markup:
    described = "; ".join(f"{plain(bar.label)}: {bar.shown}" for bar in bars)
    return drawing(parts, height=height, ident=ident, title=title, described=described)


def drawing(parts: Sequence[Markup], *, height: int, ident: str, title: str, described: str) -> Markup:
    """Return an SVG of parts, WIDTH units wide, with what it shows in words."""
    return Markup(
        '<svg class="chart" role="img" viewBox="0 0 {width} {height}" aria-labelledby="{ident}-title {ident}-desc">\n'
        '<title id="{ident}-title">{title}</title>\n<desc id="{ident}-desc">{described}</desc>\n{body}\n</svg>'
    ).format(
        width=WIDTH, height=height, ident=ident, title=plain(title), described=described, body=Markup("\n").join(parts)
    )


def _bar(bar: Bar, top: int, zero: float, scale: float) -> Markup:
    length = abs(bar.value) * scale
    start = zero if bar.value >= 0 else zero - length
    return Markup(
        '<text class="label" x="0" y="{}">{}</text>'
        '<rect class="{}" x="{}" y="{}" width="{}" height="10" rx="2"/>'
        '<text class="value" x="{}" y="{}" text-anchor="end">{}</text>'
    ).format(
        *(top + 13, fitting(bar.label)),
        *(_bar_class(bar), units(start), top + 19, units(length)),
        *(WIDTH, top + 28, bar.shown),
    )


def _column(column: _Column, zero: float, scale: float) -> Markup:
    bar, height = column.bar, abs(column.bar.value) * scale
    top = zero - height if bar.value >= 0 else zero
    drawn = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        _bar_class(bar),
        units(column.centre - column.width / 2),
        units(top),
        units(column.width),
        units(height),
    )
    if column.width < 6 * len(bar.shown):  # numbers would run into each other; the table has them
        return drawn
    number = top - 5 if bar.value >= 0 else top + height + 13
    return drawn + Markup('<text class="value" x="{}" y="{}" text-anchor="middle">{}</text>').format(
        units(column.centre), units(number), bar.shown
    )


def _line(x1: float, x2: float, y1: float, y2: float) -> Markup:
    return Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(*map(units, (x1, x2, y1, y2)))


def _columns(bars: Sequence[Bar]) -> Iterator[_Column]:
    first, pitch = _time_axis(bars)
    width = max(2.0, min(34.0, pitch * 0.75))
    apart = [bar for bar in bars if bar.place is None]
    for bar in bars:
        if bar.place is not None:
            centre = (bar.place - first + 0.5) * pitch
            yield _Column(max(centre, width / 2), width, bar)
    if apart:  # one column: a second would need a label where there is no room for it
        yield _Column(WIDTH - _REST_WIDTH / 2, 34.0, apart[-1])


def _ticks(bars: Sequence[Bar], span: Span) -> Iterator[tuple[float, str]]:
    first, pitch = _time_axis(bars)
    last = max(bar.place for bar in bars if bar.place is not None)
    wide = 58 if span == "month" else 42
    step = next((step for step in _STEPS[span] if step * pitch >= wide), _STEPS[span][-1])
    for place in [place for place in range(first, last + 1) if place % step == 0] or [first]:
        half = wide / 2 - 4
        yield min(max((place - first + 0.5) * pitch, half), WIDTH - half), _tick(place, span)
    apart = [bar for bar in bars if bar.place is None]
    if apart:
        yield WIDTH - _REST_WIDTH / 2, apart[-1].label


def _tick(place: int, span: Span) -> str:
    return f"{place // 12}-{place % 12 + 1:02}" if span == "month" else str(place * _YEARS[span])


def _time_axis(bars: Sequence[Bar]) -> tuple[int, float]:
    """Return the first place and the width of one."""
    places = [bar.place for bar in bars if bar.place is not None]
    room = WIDTH - (_REST_WIDTH if len(places) < len(bars) else 0)
    # Three places at least: one column alone, as wide as the page, would look like a measurement of something.
    return min(places), min(room / (max(places) - min(places) + 1), room / 3)


def fitting(label: str) -> str:
    """Shorten a label to the room it has; East Asian characters take twice as much."""
    used = 0
    shown = plain(label)
    for index, character in enumerate(shown):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > _LABEL_WIDTH:
            return shown[:index].rstrip() + "…"
    return shown


def _bar_class(bar: Bar) -> str:
    if not bar.known:
        return "bar rest"
    return "bar away" if bar.value < 0 else "bar"


def units(value: float) -> str:
    """Write a coordinate or a length."""
    return f"{value:.1f}"
