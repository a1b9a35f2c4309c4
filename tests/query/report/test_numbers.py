from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.query.report import numbers

NBSP = numbers.NBSP


@pytest.mark.parametrize(
    ("precision", "words", "machine"),
    [
        ("day", "14 March 2021", "2021-03-14"),
        ("month", "March 2021", "2021-03"),
        ("year", "2021", "2021"),
        (None, "2021", "2021"),
    ],
)
def test_a_date_says_no_more_than_is_known(precision, words, machine):
    day = date(2021, 3, 14)

    assert numbers.published(day, precision) == words
    assert numbers.published_iso(day, precision) == machine


def test_a_moment_reads_the_same_from_every_zone():
    moment = datetime(2025, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=-5)))

    assert numbers.instant(moment) == numbers.instant(moment.astimezone(UTC)) == "2 March 2025, 04:30 UTC"


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (1.0, f"over 99.9{NBSP}%"),
        (0.62, f"62{NBSP}%"),
        (0.034, f"3.4{NBSP}%"),
        (0.0035, f"0.35{NBSP}%"),
        (1 / 48_123, "about 1 in 48,000"),
        (0.0, "less than 1 in a million million"),
    ],
)
def test_probabilities_read_in_plain_words(p, words):
    assert numbers.probability(p) == words


@given(st.floats(0, 1))
def test_a_share_is_all_or_nothing_only_when_it_is(share):
    shown = numbers.percent(share)

    assert (shown == f"100{NBSP}%") == (share * 100 == 100)
    assert (shown == f"0{NBSP}%") == (share * 100 == 0)


@given(st.floats(0, 1))
def test_every_probability_has_words(p):
    assert numbers.probability(p)


@given(st.floats())
def test_every_score_has_words_and_a_bar(value):
    assert numbers.score(value)
    assert 0 <= numbers.meter(value, 1.0) <= 100


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((0.18321, "+0.1832"), (-0.05, "\u22120.0500"), (0.000012, "+0.0000120"), (1234.5, "+1,234.5")),
        *((12.5, "+12.5"), (1e-9, "+1e\u221209"), (-3e8, "\u22123e+08"), (0.0, "+0.0000")),
    ],
)
def test_scores_keep_their_digits_and_sign(value, shown):
    assert numbers.score(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(50.0, "50.0"), (99.97, "99.97"), (99.9996, "99.9996"), (100.0, "100")])
def test_percentiles_are_not_rounded_up_to_the_top(value, shown):
    assert numbers.percentile(value) == shown


@pytest.mark.parametrize(
    ("part", "shown"), [(0.123, f"+12{NBSP}%"), (-0.05, f"\u22125.0{NBSP}%"), (0.0, f"0{NBSP}%"), (None, "")]
)
def test_a_part_of_the_whole_has_its_sign(part, shown):
    assert numbers.share(part) == shown
