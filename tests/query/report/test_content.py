from datetime import date, datetime

import pytest

from proponent.query.report import shares_by_source, shares_by_year
from proponent.schema.settings import ReportSettings


def test_shares_count_every_hit_once(make_hit):
    hits = [make_hit(source=source, score=0.1) for source in ("a", "b", "a", None, "")]

    shares = shares_by_source(hits)

    assert [(share.label, share.n_hits) for share in shares] == [("a", 2), ("b", 1), ("no source given", 2)]
    assert sum(share.score_sum for share in shares) == pytest.approx(0.5)


def test_a_source_named_like_the_unknown_group_is_not_merged_with_it(make_hit):
    shares = shares_by_source([make_hit(source="no source given"), make_hit(source=None)])

    assert [share.known for share in shares] == [True, False]


def test_years_are_in_order_of_time_and_undated_last(make_hit):
    hits = [make_hit(published=day) for day in (None, date(2020, 1, 1), date(987, 5, 1), date(2020, 12, 31))]

    assert [(share.label, share.n_hits) for share in shares_by_year(hits)] == [("0987", 1), ("2020", 2), ("undated", 1)]


def test_a_time_without_a_zone_is_refused(make_query, make_report):
    with pytest.raises(ValueError, match="time zone"):
        make_query(created_at=datetime(2025, 1, 1))
    with pytest.raises(ValueError, match="time zone"):
        make_report(created_at=datetime(2025, 1, 1))


def test_a_comparison_is_of_two(make_query, make_report):
    with pytest.raises(ValueError, match="two traces are compared, not 1"):
        make_report(settings=ReportSettings(compare=True))


def test_a_hit_under_the_wrong_side_is_refused(make_hit, make_query):
    with pytest.raises(ValueError, match="says it is proponent"):
        make_query(opponents=(make_hit(),))
