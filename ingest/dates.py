"""Dates of documents: a date and how exact it is, or nothing. Nothing is guessed."""

import re
from datetime import date, datetime
from typing import Any, NamedTuple

_ISO = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:[T ]\d{2}:?\d{2}.*)?)?)?")


class Published(NamedTuple):
    """A date with its precision, or the text that could not be read as one."""

    day: date | None
    precision: str | None
    text: str | None


def parse_date(value: Any) -> Published:
    """Read ISO dates and times, years (2015) and months (2015-06); anything else is kept as text alone."""
    if value is None or value == "":
        return Published(None, None, None)
    if isinstance(value, datetime):
        return Published(value.date(), "day", value.isoformat())
    if isinstance(value, date):
        return Published(value, "day", value.isoformat())
    text = str(value).strip()
    match = _ISO.fullmatch(text)
    if match is None:
        return Published(None, None, text)
    year, month, day = match.groups()
    try:
        parsed = date(int(year), int(month or 1), int(day or 1))
    except ValueError:
        return Published(None, None, text)
    return Published(parsed, "day" if day else "month" if month else "year", text)
