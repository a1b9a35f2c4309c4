"""Two traces side by side: every listed passage stands there once, with both ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.query.recompute import kendall_tau
from proponent.query.report import Hit, TracedQuery, render_html, render_markdown, wording
from proponent.query.report.compare import compare
from proponent.schema.settings import ReportSettings


@pytest.fixture
def listing(make_query, make_hit):
    """A trace that lists passages by their names."""

    def make(proponents: str, opponents: str = "", **changes) -> TracedQuery:
        sides = {
            side: tuple(
                make_hit(side=side, rank=rank, passage_id=name, title=name.upper(), score=sign / rank)
                for rank, name in enumerate(names, start=1)
            )
            for side, names, sign in (("proponent", proponents, 1.0), ("opponent", opponents, -1.0))
        }
        return make_query(proponents=sides["proponent"], opponents=sides["opponent"], **changes)

    return make


def test_ranks_are_joined_by_passage(listing):
    found = compare(listing("abc", "x"), listing("bad", "cy"))

    told = [(row.hit.passage_id, row.moved, wording.moved(row)) for row in found.proponents]
    assert told == [
        ("a", -1, "\u2193 down 1"),
        ("b", 1, "\u2191 up 1"),
        ("c", None, "proponent in A, opponent in B"),
        ("d", None, "in B alone"),
    ]
    assert [(row.hit.passage_id, wording.moved(row)) for row in found.opponents] == [
        ("x", "in A alone"),
        ("y", "in B alone"),
    ]


names = st.permutations("abcdefgh").flatmap(lambda order: st.integers(0, 8).map(lambda n: "".join(order[:n])))


@given(names, names)
def test_every_listed_passage_stands_there_once(one, other):
    hits = [
        tuple(
            Hit(side="proponent", rank=rank, passage_id=name, score=1.0, text=name, doc_id="d", doc_key="k", corpus="c")
            for rank, name in enumerate(order, start=1)
        )
        for order in (one, other)
    ]
    found = compare(*(_trace(some) for some in hits))

    assert sorted(row.hit.passage_id for row in found.proponents) == sorted(set(one) | set(other))
    shared = [name for name in one if name in other]
    tau = kendall_tau([one.index(name) for name in shared], [other.index(name) for name in shared])
    assert found.tau == (pytest.approx(tau) if tau is not None else None)


def _trace(hits):
    from datetime import UTC, datetime

    return TracedQuery(
        trace_id="t", query_id="q", prompt="p", target="t", method="trackstar", encoder="e", curvature="c", k=8,
        n_candidates=8, snapshot="1", created_at=datetime(2025, 1, 1, tzinfo=UTC), proponents=hits,
    )  # fmt: skip


def test_what_the_two_differ_in_is_listed_and_nothing_else(listing):
    one, other = listing("a", trace_id="t1"), listing("a", trace_id="t2", method="graddot", filter="x = 1")

    assert [row[0] for row in wording.differing(compare(one, other))] == ["Method", "Filter", "Trace"]
    assert "different scales" in wording.agreement(compare(one, other))
    assert "different questions" in wording.agreement(compare(one, listing("a", query_id="q2")))


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_a_comparison_is_told_in_both_forms(listing, make_report, render):
    queries = listing("abc", "x"), listing("bad", "y", method="graddot", trace_id="t2")
    text = render(make_report(*queries, settings=ReportSettings(compare=True)))

    assert "Side by side" in text
    assert "2 passages are among the first of both, 1 of A alone and 1 of B alone." in text
    assert "\u2193 down 1" in text
    assert "Trace B" in text
    assert "Questions" not in text
