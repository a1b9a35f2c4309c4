"""Dates are read as exactly as they are written, and never guessed."""

from datetime import UTC, date, datetime, timedelta, timezone
from email.utils import format_datetime
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
        ("2015-6-1", date(2015, 6, 1), "day"),
        ("20150630", date(2015, 6, 30), "day"),
        ("30/06/2015", date(2015, 6, 30), "day"),
        ("June 2015", date(2015, 6, 1), "month"),
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
        "2015-13",
        "2015-02-29",
        "0000",
        "12015",
        "2015-06-30x",
        "?",
        3.5,
    ],
)
def test_what_is_no_date_is_kept_as_text_alone(value: Any) -> None:
    assert parse_date(value) == Published(None, None, str(value))


@pytest.mark.parametrize(
    "text",
    [
        *("20150131", "2015/01/31", "2015/1/31", "2015.01.31", "2015-W05-6", "2015W056", "2015-031"),
        *("31/01/2015", "01/31/2015", "31.1.2015", "31-01-2015"),
        *("31 January 2015", "31-Jan-2015", "31st of January, 2015", "31 JAN. 2015"),
        *("January 31, 2015", "Jan 31 2015", "Saturday, January 31st, 2015", "Sat 31 Jan 2015"),
        *("20150131T101112Z", "2015-01-31T10:11", "2015-01-31 10:11:12.5 +05:30", "2015-01-31T101112+0530"),
        *("Sat, 31 Jan 2015 10:11:12 +0000", "31 Jan 2015 10:11 GMT", "Sat, 31 Jan 2015 10:11:12 +0100 (CET)"),
        *("Sat Jan 31 10:11:12 2015", "Sat Jan 31 10:11:12 +0000 2015", "Sat Jan 31 10:11:12 UTC 2015"),
        *("1422698000", "1422698000.25", "1422698000123", "1422698000123456"),
    ],
)
def test_the_forms_of_corpora_are_the_same_day(text: str) -> None:
    assert parse_date(text) == Published(date(2015, 1, 31), "day", text)


@pytest.mark.parametrize("text", ["Jan 2015", "January 2015", "january, 2015", "2015/01", "2015-01", "Jan-2015"])
def test_a_month_is_its_first_day(text: str) -> None:
    assert parse_date(text) == Published(date(2015, 1, 1), "month", text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "03/04/2015",
            "3.4.2015",
            "1-2-2015",
            "13/13/2015",
            "32/01/2015",
            "01/02/15",
            "Mon, 31 Jan 2015 10:11:12 +0000",
        ),
        *("2015-W05", "2015-W54-1", "2015-366", "2015-000", "20151331", "201501", "2015.06", "2015-2016", "1990s"),
        *("12", "99999999", "123456789", "9999999999", "1e9", "-1422698000", "1789 BC", "5 Mai 2015", "31 Ja 2015"),
        *("31 June 2015", "Sun 31 Jan 2015", "2015-01-31T25:00", "2015-01-31T10:61", "tomorrow", "31 January"),
    ],
)
def test_what_may_be_another_day_is_kept_as_text(text: str) -> None:
    assert parse_date(text) == Published(None, None, text)


@given(st.dates(date(1, 1, 1)))
def test_a_numeric_date_is_read_only_where_one_reading_is_a_date(day: date) -> None:
    for text in (f"{day.day:02}/{day.month:02}/{day.year:04}", f"{day.month:02}/{day.day:02}/{day.year:04}"):
        found = parse_date(text).day
        assert found == (day if day.day > 12 or day.day == day.month else None)


@given(st.datetimes(datetime(1980, 1, 1), datetime(2099, 12, 31)), st.sampled_from([1, 1000, 1_000_000]))
def test_epochs_are_days_in_utc_whatever_they_count(moment: datetime, unit: int) -> None:
    moment = moment.replace(tzinfo=UTC)
    value = int(moment.timestamp()) * unit
    assert parse_date(value).day == parse_date(str(value)).day == moment.date()


@given(st.datetimes(datetime(1900, 1, 1), timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])))
def test_times_do_not_move_the_day_that_was_written(moment: datetime) -> None:
    forms = [moment.isoformat(), moment.isoformat(" ", "minutes"), moment.isoformat(timespec="milliseconds")]
    for text in [*forms, format_datetime(moment), moment.strftime("%G-W%V-%u"), moment.strftime("%Y-%j")]:
        assert parse_date(text) == Published(moment.date(), "day", text)


@given(st.integers(0, 99_999))
def test_a_number_of_four_digits_is_a_year_and_no_shorter_or_longer_one(number: int) -> None:
    assert parse_date(number).precision == ("year" if 1000 <= number <= 9999 else None)


@pytest.mark.parametrize("value", [2015, 2015.0, 20150131, 20150131.0])
def test_integers_that_a_gap_made_floats_are_read_alike(value: float) -> None:
    assert parse_date(value)[:2] == parse_date(int(value))[:2]
    assert parse_date(value).day


@pytest.mark.parametrize("value", [None, "", float("nan")])
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
