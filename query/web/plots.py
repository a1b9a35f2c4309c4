"""Charts of a statement's rows: which columns they may be of, and the SVG, drawn as reports draw theirs.

Notable: the page has the same rows in a table, so a chart leaves out what it has no place for, and says how much.
"""

import math
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final, Literal, NamedTuple

import msgspec
from markupsafe import Markup

from proponent.query.report.charts import WIDTH, Bar, bar_chart, drawing, fitting, units

Kind = Literal["bar", "line", "scatter"]

_HEIGHT: Final = 190
_TOP: Final = 8
_FOOT: Final = 22
_LEFT: Final = 52
"""Room for the numbers beside the vertical axis."""
_TICKS: Final = 4
_NUMBERS: Final = ("int", "uint", "float", "double", "halffloat", "decimal")
_TIMES: Final = ("date", "timestamp")


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A chart that is drawn: its kind, and the columns of its axes."""

    kind: Kind
    x: str
    y: str


class _Point(NamedTuple):
    x: float
    y: float


def is_number(kind: str) -> bool:
    """Whether a column of an Arrow type, by its name, has numbers."""
    return kind.startswith(_NUMBERS)


def _is_time(kind: str) -> bool:
    return kind.startswith(_TIMES)


def chosen(columns: Sequence[tuple[str, str]], kind: str | None, x: str | None, y: str | None) -> Chart | None:
    """Return what to draw of columns (name, type), with the choices that somebody made; None where nothing can be."""
    types = dict(columns)
    numbers = [name for name, one in columns if is_number(one)]
    if y not in numbers:
        others = [name for name in numbers if name != x] if len(numbers) > 1 else numbers
        # Of two numbers the second is likelier to be what was measured; beside names or dates it is the first.
        only_numbers = len(numbers) == len(columns) and x is None
        y = (others[1] if only_numbers and len(others) > 1 else others[0]) if others else None
    if y is None or kind == "none":
        return None
    if x not in types:
        x = next((name for name, one in columns if name != y and not is_number(one) and one in _LABELS), None)
        x = x or next((name for name, one in columns if name != y and (_is_time(one) or is_number(one))), y)
    if kind not in {"bar", "line", "scatter"}:
        kind = "line" if _is_time(types[x]) else "scatter" if is_number(types[x]) and x != y else "bar"
    drawn: Any = kind
    return Chart(kind=drawn, x=x, y=y)


_LABELS: Final = frozenset({"string", "large_string", "bool", "date32[day]"})


def draw(chart: Chart, columns: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Markup:
    """Draw rows; `columns` have a name and a type. Rows without a number have no place."""
    names = [column.name for column in columns]
    across, up = names.index(chart.x), names.index(chart.y)
    kind = columns[across].type
    pairs = [(row[across], row[up]) for row in rows if _number(row[up]) is not None]
    title = f"{chart.y} by {chart.x}"
    if chart.kind == "bar":
        bars = [Bar(_label(label), float(value), _shown(float(value))) for label, value in pairs]
        return bar_chart(bars, ident="plot", title=title)
    if is_number(kind) or _is_time(kind):
        placed = [(_place(label), float(value)) for label, value in pairs]
        points = [_Point(x, y) for x, y in placed if x is not None]
    else:
        points = [_Point(float(place), float(value)) for place, (_, value) in enumerate(pairs)]
    if chart.kind == "line":
        points.sort()
    labels = [_label(label) for label, _ in pairs] if not (is_number(kind) or _is_time(kind)) else None
    return _plane(points, line=chart.kind == "line", times=_is_time(kind), labels=labels, title=title)


def _number(value: Any) -> float | None:
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_one else None


def _place(value: Any) -> float | None:
    """Return where a number or a moment, which is written in ISO's way, stands on its axis."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return moment.toordinal() + (moment.hour * 3600 + moment.minute * 60 + moment.second) / 86_400
    return _number(value)


def _plane(points: Sequence[_Point], *, line: bool, times: bool, labels: Sequence[str] | None, title: str) -> Markup:
    if not points:
        return Markup()
    across, up = _Axis.over([point.x for point in points]), _Axis.over([point.y for point in points])
    foot = _TOP + _HEIGHT

    def x_of(value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - 8) * across.share(value)

    def y_of(value: float) -> float:
        return foot - _HEIGHT * up.share(value)

    parts = [
        Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
            '<text class="label" x="{}" y="{}" text-anchor="end">{}</text>'
        ).format(*map(units, (_LEFT, WIDTH, y_of(tick), y_of(tick), _LEFT - 6, y_of(tick) + 4)), _shown(tick))
        for tick in up.ticks()
    ]
    for tick, told in _told_ticks(across, times=times, labels=labels):
        place = min(max(x_of(tick), _LEFT + 4), WIDTH - 4)
        anchor = "start" if place < _LEFT + 24 else "end" if place > WIDTH - 24 else "middle"
        parts.append(
            Markup('<text class="label" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                units(place), foot + 18, anchor, told
            )
        )
    parts.append(Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, WIDTH, foot, foot))
    places = [(units(x_of(point.x)), units(y_of(point.y))) for point in points]
    if line:
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(Markup('<polyline class="stroke" points="{}"/>').format(path))
    if not line or len(points) <= 60:
        parts += [Markup('<circle class="dot" cx="{}" cy="{}" r="2.5"/>').format(x, y) for x, y in places]
    described = f"{len(points):,} points; from {_shown(up.low)} to {_shown(up.high)}; the table has the numbers"
    return drawing(parts, height=foot + _FOOT, ident="plot", title=title, described=described)


class _Axis(NamedTuple):
    """What an axis shows, from the least to the largest."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> "_Axis":
        low, high = min(values), max(values)
        if 0 < low < 0.5 * high:  # near enough to zero to begin there
            low = 0.0
        return cls(low, high) if high > low else cls(low - 0.5, high + 0.5)

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return round numbers within it."""
        rough = (self.high - self.low) / _TICKS
        if not math.isfinite(rough) or rough <= 0:
            return [self.low]
        power = 10.0 ** math.floor(math.log10(rough))
        step = next((one * power for one in (1, 2, 5, 10) if one * power >= rough), 10 * power)
        first = math.ceil(self.low / step)
        return [round((first + place) * step, 12) for place in range(_TICKS + 2) if (first + place) * step <= self.high]


def _told_ticks(axis: _Axis, *, times: bool, labels: Sequence[str] | None) -> list[tuple[float, str]]:
    if labels is not None:
        ends = {0: labels[0], len(labels) - 1: labels[-1]}
        return [(float(place), fitting(told)[:22]) for place, told in ends.items()]
    if times:
        places = [axis.low, (axis.low + axis.high) / 2, axis.high]
        return [
            (place, date.fromordinal(max(1, min(round(place), date.max.toordinal()))).isoformat()) for place in places
        ]
    return [(tick, _shown(tick)) for tick in axis.ticks()]


def _day(place: float) -> str:
    return date.fromordinal(max(1, min(round(place), date.max.toordinal()))).isoformat()


def _label(value: Any) -> str:
    return "null" if value is None else str(value)


def _shown(value: float) -> str:
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.4g}".replace("e+0", "e").replace("e+", "e")
