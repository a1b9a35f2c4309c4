"""Tables of whole sources show the most of it, and add up to all of it."""

from hypothesis import given
from hypothesis import strategies as st

from proponent.query.report.sources import SOURCES_SHOWN, SPANS_SHOWN, sources


def row(name, influence=0.1, n=1, share=0.1, others=0):
    return {
        "name": name,
        "n_passages": n,
        "influence": influence,
        "share": share,
        "passage_share": 0.01 * n,
        "others": others,
    }


months = st.builds("{:04}-{:02}".format, st.integers(1, 2100), st.integers(1, 12))
dates = st.one_of(months, st.integers(1, 2100).map("{:04}".format), st.none())


@given(st.lists(dates, min_size=1, max_size=400, unique=True))
def test_times_are_in_order_of_time_and_no_passage_is_lost(names):
    found = sources([row("a", n=len(names))], [row(name) for name in names])

    assert sum(group.n_passages for group in found.by_time) == len(names) == found.n_passages
    places = [group.place for group in found.by_time if group.known]
    assert places == sorted(set(places))
    assert len(places) <= SPANS_SHOWN
    assert [group.label for group in found.by_time if not group.known] == (["undated"] if None in names else [])


def test_the_finest_span_is_taken_that_can_be_read():
    def span(*names):
        found = sources([row("a")], [row(name) for name in names])
        return found.span, [group.label for group in found.by_time]

    assert span("2020-01", "2020-03") == ("month", ["2020-01", "2020-03"])
    assert span("2020-01", "2021") == ("year", ["2020", "2021"])
    assert span(*(str(year) for year in range(1950, 2020)))[0] == "decade"
    assert span(*(str(year) for year in range(1100, 2020)))[0] == "century"
    assert span("1815", *(str(year) for year in range(1100, 2020)))[1][0] == "1100\u20131199"


def test_small_sources_are_told_as_one():
    rows = [row(f"s{n}", influence=0.5 - 0.05 * n) for n in range(20)]
    rows += [row(None, 0.01), row(None, 0.02, others=7)]
    found = sources(rows, [row(None)])

    assert len(found.by_source) == SOURCES_SHOWN + 2
    assert [group.label for group in found.by_source if not group.known] == [
        "11 smaller sources",
        "no source given",
        "7 more sources",
    ]
    shown = [group.influence for group in found.by_source if group.known]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] > 0 > shown[-1]
    assert abs(sum(group.influence for group in found.by_source) - sum(one["influence"] for one in rows)) < 1e-9


def test_what_is_not_known_of_groups_without_a_sum_is_left_open():
    rest = row(None, others=3) | {"n_passages": None, "influence": None, "share": None, "passage_share": None}
    found = sources([row("a"), rest], [row("2020-01"), rest])

    assert (found.by_source[-1].n_passages, found.by_source[-1].share) == (None, None)
    assert found.by_time[-1].label == "other dates"
