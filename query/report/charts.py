"""Bar charts as inline SVG: no script, no font, no colour of their own.

Colours come from the page's custom properties by class (`bar`, `bar rest`, `axis`, `label`, `value`), so that dark
mode and print need nothing here. A chart says in its `<desc>` what it shows; the page puts a table beside it. Drawn
360 units wide, about the width of a phone, because labels in an SVG shrink with it.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from .content import Share
from .text import plain

WIDTH = 360
_ROW = 36  # a bar's row: its label, and the bar below it
_MAX_ROWS = 10
_PLOT_HEIGHT = 104
_TOP = 20  # room for the numbers above the columns
_REST_WIDTH = 72  # the undated column stands apart, because it has no place in time
_TICK_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_LABEL_WIDTH = 44  # in Latin letters


class Column(NamedTuple):
    """One column of the year chart: where it stands, how wide it is, and what it counts."""

    centre: float
    width: float
    share: Share


def bar_chart(shares: Sequence[Share], *, ident: str, title: str) -> Markup:
    """Draw one horizontal bar per share, the ten first; more are summed into one bar.

    `ident` makes the ids of this chart unique on the page. Empty shares give no chart: an empty Markup.
    """
    rows = _with_rest(shares)
    if not rows:
        return Markup()
    most = max(share.n_hits for share in rows)
    body = Markup("\n").join(_bar(share, index * _ROW, most) for index, share in enumerate(rows))
    return _svg(body, height=len(rows) * _ROW, ident=ident, title=title, shares=rows)


def column_chart(shares: Sequence[Share], *, ident: str, title: str) -> Markup:
    """Draw one column per year on a time axis, so that a gap in time is a gap in the picture; undated ones apart.

    Labels of known shares are years. Without a single known year there is no chart: an empty Markup.
    """
    if not any(share.known for share in shares):
        return Markup()
    most = max(share.n_hits for share in shares)
    base = _TOP + _PLOT_HEIGHT
    parts = [_column(column, base, most) for column in _columns(shares)]
    parts.append(Markup('<line class="axis" x1="0" x2="{}" y1="{}" y2="{}"/>').format(WIDTH, base, base))
    parts.extend(
        Markup('<text class="label" x="{}" y="{}" text-anchor="middle">{}</text>').format(_n(x), base + 18, label)
        for x, label in _ticks(shares)
    )
    return _svg(Markup("\n").join(parts), height=base + 26, ident=ident, title=title, shares=shares)


def _svg(body: Markup, *, height: int, ident: str, title: str, shares: Sequence[Share]) -> Markup:
    described = "; ".join(f"{plain(share.label)}: {share.n_hits}" for share in shares)
    return Markup(
        '<svg class="chart" role="img" viewBox="0 0 {width} {height}" aria-labelledby="{ident}-title {ident}-desc">\n'
        '<title id="{ident}-title">{title}</title>\n<desc id="{ident}-desc">{described}</desc>\n{body}\n</svg>'
    ).format(width=WIDTH, height=height, ident=ident, title=plain(title), described=described, body=body)


def _bar(share: Share, top: int, most: int) -> Markup:
    room = WIDTH - 30  # the number stands to the right of the longest bar
    length = room * share.n_hits / most
    return Markup(
        '<text class="label" x="0" y="{}">{}</text>'
        '<rect class="{}" x="0" y="{}" width="{}" height="10" rx="2"/>'
        '<text class="value" x="{}" y="{}">{}</text>'
    ).format(
        *(top + 13, _fit(share.label)),
        *(_bar_class(share), top + 19, _n(length)),
        *(_n(length + 6), top + 28, share.n_hits),
    )


def _column(column: Column, base: int, most: int) -> Markup:
    height = _PLOT_HEIGHT * column.share.n_hits / most
    drawn = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        _bar_class(column.share), _n(column.centre - column.width / 2), _n(base - height), _n(column.width), _n(height)
    )
    if column.width < 9:  # numbers would run into each other; the table has them
        return drawn
    return drawn + Markup('<text class="value" x="{}" y="{}" text-anchor="middle">{}</text>').format(
        _n(column.centre), _n(base - height - 5), column.share.n_hits
    )


def _columns(shares: Sequence[Share]) -> Iterator[Column]:
    first, pitch = _time_axis(shares)
    width = max(2.0, min(26.0, pitch * 0.75))
    for share in shares:
        if share.known:
            centre = (int(share.label) - first + 0.5) * pitch
            yield Column(max(centre, width / 2), width, share)
        else:
            yield Column(WIDTH - _REST_WIDTH / 2, 26.0, share)


def _ticks(shares: Sequence[Share]) -> Iterator[tuple[float, str]]:
    first, pitch = _time_axis(shares)
    last = max(int(share.label) for share in shares if share.known)
    step = next((step for step in _TICK_STEPS if step * pitch >= 42), _TICK_STEPS[-1])
    years = [year for year in range(first, last + 1) if year % step == 0] or [first]
    for year in years:
        yield min(max((year - first + 0.5) * pitch, 16.0), WIDTH - 16.0), str(year)
    if any(not share.known for share in shares):
        yield WIDTH - _REST_WIDTH / 2, next(share.label for share in shares if not share.known)


def _time_axis(shares: Sequence[Share]) -> tuple[int, float]:
    """Return the first year and the width of one year."""
    years = [int(share.label) for share in shares if share.known]
    room = WIDTH - (_REST_WIDTH if len(years) < len(shares) else 0)
    # Three years at least: one column alone, as wide as the page, would look like a measurement of something.
    return min(years), min(room / (max(years) - min(years) + 1), room / 3)


def _with_rest(shares: Sequence[Share]) -> list[Share]:
    if len(shares) <= _MAX_ROWS:
        return list(shares)
    shown, rest = shares[: _MAX_ROWS - 1], shares[_MAX_ROWS - 1 :]
    label = f"{len(rest)} more"
    return [*shown, Share(label, sum(s.n_hits for s in rest), sum(s.score_sum for s in rest), known=False)]


def _fit(label: str) -> str:
    """Shorten a label to the room it has; East Asian characters take twice as much."""
    used = 0
    shown = plain(label)
    for index, character in enumerate(shown):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > _LABEL_WIDTH:
            return shown[:index].rstrip() + "…"
    return shown


def _bar_class(share: Share) -> str:
    return "bar" if share.known else "bar rest"


def _n(value: float) -> str:
    return f"{value:.1f}"
