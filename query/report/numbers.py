"""Numbers, dates and moments as a report writes them. Everything returned is plain text and not yet escaped."""

import math
from datetime import UTC, date, datetime
from typing import Final

from .content import Precision

NBSP: Final = "\u00a0"
MINUS: Final = "\u2212"
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def probability(p: float) -> str:
    """Write a probability as a percentage, or as `1 in N` where a percentage would be all zeros."""
    if p >= 0.9995:
        return f"over 99.9{NBSP}%"
    if p >= 0.001:
        return percent(p)
    if p < 1e-12:
        return "less than 1 in a million million"
    odds = 1 / p
    step = 10 ** (math.floor(math.log10(odds)) - 1)
    return f"about 1 in {round(odds / step) * step:,}"


def percent(share: float) -> str:
    """Write a share (0 to 1) as a percentage with two digits that count: 100 % and 0 % are said only when exact."""
    value = share * 100
    if value in (0, 100):
        return f"{value:.0f}{NBSP}%"
    for digits in range(6):
        shown = f"{value:.{digits}f}"
        if 0 < float(shown) < 100 and value * 10**digits >= 10:
            return f"{shown}{NBSP}%"
    return f"over 99.99{NBSP}%" if value > 50 else f"under 0.01{NBSP}%"


def score(value: float) -> str:
    """Write a score with its sign, to four digits or so; a typographic minus, so that it is as wide as the plus."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("+∞" if value > 0 else f"{MINUS}∞")
    size = abs(value)
    if size == 0 or 1e-2 <= size < 10:
        shown = f"{value:+.4f}"
    elif 10 <= size < 1e6:
        shown = f"{value:+,.1f}"
    elif 1e-6 <= size < 1e-2:
        # Small scores keep their digits: rounding one to +0.0000 would say that there was nothing.
        shown = f"{value:+.{2 - math.floor(math.log10(size))}f}"
    else:
        shown = f"{value:+.3g}"
    return shown.replace("-", MINUS)


def percentile(value: float) -> str:
    """Write a percentile (0 to 100); near the ends with the digits it takes not to be rounded to the end itself."""
    for digits in range(6):
        shown = f"{value:.{digits}f}"
        if value in (0, 100) or (digits > 0 and 0 < float(shown) < 100):
            return shown
    return shown


def published(day: date, precision: Precision | None) -> str:
    """Write a date as exactly as it is known: `14 March 2021`, `March 2021`, or `2021`."""
    if precision == "day":
        return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"
    return f"{_MONTHS[day.month - 1]} {day.year}" if precision == "month" else f"{day.year}"


def published_iso(day: date, precision: Precision | None) -> str:
    """Write the same for machines: `2021-03-14`, `2021-03`, or `2021`."""
    return day.isoformat()[: {"day": 10, "month": 7}.get(precision or "year", 4)]


def instant(moment: datetime) -> str:
    """Write a moment in UTC, to the minute."""
    utc = moment.astimezone(UTC)
    return f"{published(utc.date(), 'day')}, {utc:%H:%M} UTC"


def count(number: int, noun: str) -> str:
    """Write `1 passage`, `2 passages`, `12,034 passages`; for nouns that take a plain s."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def duration(seconds: float) -> str:
    """Write a time with the two units that count: `0.4 s`, `12 s`, `3 min 20 s`, `5 h 12 min`, `2 d 3 h`."""
    if seconds < 10:
        return f"{seconds:.1f}{NBSP}s"
    left = round(seconds)
    for large, small, size, parts in (("d", "h", 86400, 24), ("h", "min", 3600, 60), ("min", "s", 60, 60)):
        if left >= size:
            whole, rest = left // size, left % size // (size // parts)
            return f"{whole}{NBSP}{large}" + (f" {rest}{NBSP}{small}" if rest else "")
    return f"{left}{NBSP}s"


def amount(value: float) -> str:
    """Write a score that cannot be below zero, without a sign."""
    return score(value).removeprefix("+")


def meter(value: float, strongest: float) -> int:
    """Return how long a score's bar is, in percent of the strongest score listed."""
    return round(100 * min(abs(value) / strongest, 1.0)) if math.isfinite(value) and math.isfinite(strongest) else 0


def share(part: float | None) -> str:
    """Write a part of the whole with its sign, as a percentage; nothing where it is not known."""
    if part is None:
        return ""
    shown = percent(abs(part))
    return shown if part == 0 else f"{'+' if part > 0 else MINUS}{shown}"


def times(ratio: float) -> str:
    """Write how many times as large something is: `1.6 times`, `12 times`."""
    return f"{ratio:.1f} times" if ratio < 9.5 else f"{ratio:,.0f} times"
