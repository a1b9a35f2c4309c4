"""Dates of documents: a date and how exact it is, or nothing. Nothing is guessed.

Notable: a date is the day that was written, in the time zone that it was written in. Between day and month nothing is
chosen: `03/04/2015` is no date, `31/01/2015` is one, since no month has that number. Month names are English.
"""

import math
import re
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

_TIME: Final = (
    r"(?:(?:[01]\d|2[0-4])(?::?[0-5]\d(?::?[0-6]\d(?:[.,]\d+)?)?)?"
    r"\s*(?:Z|UT|UTC|GMT|[ECMP][SD]T|[+-]\d{2}(?::?\d{2})?)?(?:\s*\([^()]*\))?)"
)
_YEAR: Final = r"(?P<year>\d{4})"
_MONTH_NAME: Final = r"(?P<name>[a-z]{3,9})\.?"
_DAY: Final = r"(?P<day>\d{1,2})"
_WEEKDAY: Final = r"(?:(?P<weekday>[a-z]{3,9})\.?,?\s+)?"

_FORMS: Final = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        # 2015, 2015-06, 2015/06
        rf"{_YEAR}(?:[-/](?P<month>\d\d))?",
        # 2015-06-30, 2015/6/30, 2015.06.30, each with a time
        rf"{_YEAR}(?P<sign>[-/.])(?P<month>\d\d?)(?P=sign){_DAY}(?:(?:T|\s+){_TIME})?",
        # 20150630, 20150630T101112Z
        rf"{_YEAR}(?P<month>\d\d)(?P<day>\d\d)(?:(?:T|\s+){_TIME})?",
        # 2015-W05-3, 2015W053: a week alone is neither a month nor a day
        rf"{_YEAR}-?W(?P<week>\d\d)-?(?P<of_week>[1-7])(?:T{_TIME})?",
        # 2015-181, the day of the year
        rf"{_YEAR}-(?P<of_year>\d{{3}})(?:T{_TIME})?",
        # 30/06/2015, 06/30/2015: where only one reading is a date
        rf"(?P<first>\d\d?)(?P<sign>[-/.])(?P<second>\d\d?)(?P=sign){_YEAR}(?:,?\s+{_TIME})?",
        # 30 June 2015, 30-Jun-2015, Tue, 30 Jun 2015 10:11:12 +0000 (RFC 2822)
        rf"{_WEEKDAY}{_DAY}(?:st|nd|rd|th)?(?:\s+of)?[\s-]+{_MONTH_NAME},?[\s-]+{_YEAR}(?:,?\s+{_TIME})?",
        # June 30, 2015; June 2015
        rf"{_WEEKDAY}{_MONTH_NAME}\s+{_DAY}(?:st|nd|rd|th)?,?\s+{_YEAR}(?:,?\s+{_TIME})?",
        rf"{_MONTH_NAME},?[\s-]+{_YEAR}",
        # Tue Jun 30 10:11:12 2015 (asctime, date), with a time zone before the year
        rf"{_WEEKDAY}{_MONTH_NAME}\s+{_DAY}\s+{_TIME}\s+{_YEAR}",
    )
)
_MONTHS: Final = [
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
]
_WEEKDAYS: Final = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_SHORTENED: Final = {"sept": "september", "tues": "tuesday", "thur": "thursday", "thurs": "thursday"}
_LAST_MONTH: Final = 12

_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_EPOCH_FROM: Final = datetime(1980, 1, 1, tzinfo=UTC).timestamp()
_EPOCH_TO: Final = datetime(2100, 1, 1, tzinfo=UTC).timestamp()
_UNITS: Final = (1, 1_000, 1_000_000)
"""Parts of a second that an epoch may count; the ranges of plausible numbers do not overlap."""


class Published(NamedTuple):
    """A date with its precision, or the text that could not be read as one."""

    day: date | None
    precision: str | None
    text: str | None


def parse_date(value: Any) -> Published:
    """Read a date in one of the forms that corpora have; anything else is kept as text alone."""
    if value and isinstance(value, str):
        return _read(value.strip())
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return Published(None, None, None)
    if isinstance(value, date):
        return Published(value.date() if isinstance(value, datetime) else value, "day", value.isoformat())
    text = str(value).strip()
    if isinstance(value, bool):
        return Published(None, None, text)
    if isinstance(value, float) and value.is_integer():
        return _read(str(int(value)))._replace(text=text)  # integers of a column with gaps are often kept as floats
    return _read(text)


@lru_cache(maxsize=1 << 16)  # few days for many documents
def _read(text: str) -> Published:
    epoch = _epoch_day(text)
    if epoch is not None:
        return Published(epoch, "day", text)
    for form in _FORMS:
        match = form.fullmatch(text)
        if match is not None:
            return _checked(match.groupdict(), text)
    return Published(None, None, text)


def _checked(found: dict[str, str | None], text: str) -> Published:
    """Return the date of the parts of a text, or the text alone where there is no such day."""
    try:
        day = _day(found)
        weekday = found.get("weekday")
        if weekday is not None and _index(weekday, _WEEKDAYS) != day.weekday():
            raise ValueError("not that day of the week")
    except ValueError:
        return Published(None, None, text)
    known = "year" if set(_given(found)) == {"year"} else "month" if _is_month(found) else "day"
    return Published(day, known, text)


def _given(found: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in found.items() if value is not None}


def _is_month(found: dict[str, str | None]) -> bool:
    return set(_given(found)) in ({"year", "month"}, {"year", "name"})


def _day(found: dict[str, str | None]) -> date:
    """Return the first day that the parts of a text allow. Raises ValueError for none, and for more than one."""
    given = _given(found)
    year = int(given["year"])
    if "week" in given:
        return date.fromisocalendar(year, int(given["week"]), int(given["of_week"]))
    if "of_year" in given:
        day = date.fromordinal(date(year, 1, 1).toordinal() + int(given["of_year"]) - 1)
        if day.year != year:
            raise ValueError("no such day of the year")
        return day
    if "first" in given:
        return _only(year, int(given["first"]), int(given["second"]))
    month = _index(given["name"], _MONTHS) + 1 if "name" in given else int(given.get("month", 1))
    return date(year, month, int(given.get("day", 1)))


def _only(year: int, first: int, second: int) -> date:
    """Return the one day that two numbers, of which either may be the month, can be."""
    if first <= _LAST_MONTH and second <= _LAST_MONTH and first != second:
        raise ValueError("either may be the month")
    return date(year, min(first, second), max(first, second))


def _index(name: str, names: list[str]) -> int:
    """Return the place of a name, in full or shortened, among months or weekdays. Raises ValueError for none."""
    lowered = name.lower()
    if lowered not in names and lowered not in _SHORTENED:
        lowered = next((full for full in names if full[:3] == lowered), lowered)
    return names.index(_SHORTENED.get(lowered, lowered))


def _epoch_day(text: str) -> date | None:
    """Return the day in UTC of seconds, milliseconds or microseconds since 1970, where the number is plausible."""
    if not _NUMBER.fullmatch(text):
        return None
    seconds = (float(text) / unit for unit in _UNITS)
    plausible = next((second for second in seconds if _EPOCH_FROM <= second < _EPOCH_TO), None)
    return None if plausible is None else datetime.fromtimestamp(plausible, UTC).date()
