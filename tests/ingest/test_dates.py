"""Dates are read as exactly as they are written, and never guessed."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.ingest.dates import Published, parse_date


@pytest.mark.parametrize(
    ("value", "day", "precision"),
    [
        ("2015", date(2015, 1, 1), "year"),
        (2015, date(2015, 1, 1), "year"),
        (" 2015-06 ", date(2015, 6, 1), "month"),
        ("2015-06-30", date(2015, 6, 30), "day"),
        ("2016-02-29", date(2016, 2, 29), "day"),
        ("2015-06-30T23:59:59Z", date(2015, 6, 30), "day"),
        ("2015-06-30 23:59:59.123+05:30", date(2015, 6, 30), "day"),
        (date(2015, 6, 30), date(2015, 6, 30), "day"),
        (datetime(2015, 6, 30, 12, tzinfo=UTC), date(2015, 6, 30), "day"),
    ],
)
def test_a_date_is_read_with_its_precision(value: Any, day: date, precision: str) -> None:
    found = parse_date(value)
    assert (found.day, found.precision) == (day, precision)
    assert found.text


@pytest.mark.parametrize(
    "value",
    [
        "30/06/2015",
        "June 2015",
        "2015-6-1",
        "2015-13",
        "2015-02-29",
        "0000",
        "12015",
        "20150630",
        "2015-06-30x",
        "?",
        3.5,
    ],
)
def test_what_is_no_iso_date_is_kept_as_text_alone(value: Any) -> None:
    assert parse_date(value) == Published(None, None, str(value))


@pytest.mark.parametrize("value", [None, ""])
def test_no_date_is_no_date(value: Any) -> None:
    assert parse_date(value) == Published(None, None, None)


@given(st.dates())
def test_every_day_is_read_back(day: date) -> None:
    assert parse_date(day.isoformat()) == Published(day, "day", day.isoformat()) == parse_date(day)


@given(
    st.text()
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.lists(st.text())
    | st.dictionaries(st.text(), st.text())
)
def test_nothing_at_all_makes_it_fail(value: Any) -> None:
    found = parse_date(value)
    assert (found.day is None) == (found.precision is None)
