"""Answers are put together from segments that go on each other, and from nothing else."""

from dataclasses import replace
from itertools import pairwise

import pytest

from proponent.query.report import render_html, render_markdown
from proponent.query.report.answers import answers
from proponent.query.report.methods import title

from .conftest import HOSTILE


@pytest.fixture
def segments(make_query):
    """Traces of the segments of an answer to `Why?`, found in an order of places."""

    def make(*texts, order=None, **changes):
        made = [
            make_query(prompt="Why?" + "".join(texts[:place]), target=text, trace_id=f"t{place}", **changes)
            for place, text in enumerate(texts)
        ]
        return [made[place] for place in order or range(len(made))]

    return make


def test_segments_are_joined_in_whatever_order_they_are_listed(segments):
    [answer] = answers(segments(" So.", " And so.", " Then.", order=(2, 0, 1)))
    assert (answer.prompt, answer.text) == ("Why?", " So. And so. Then.")
    assert [(one.place, one.number, one.start, one.end) for one in answer.segments] == [
        (1, 2, 0, 4),
        (2, 3, 4, 12),
        (3, 1, 12, 18),
    ]


def test_answers_share_their_beginning(segments, make_query):
    first, second = segments(" So.", " And so.")
    other = make_query(prompt="Why? So.", target=" But.")
    assert [one.text for one in answers([first, second, other])] == [" So. And so.", " So. But."]


@pytest.mark.parametrize(
    "change", [{"method": "logra"}, {"k": 3}, {"filter": "x"}, {"encoder": "e2"}, {"prompt": "Why? So"}, {"target": ""}]
)
def test_other_questions_are_no_answer(segments, change):
    first, second = segments(" So.", " And so.")
    assert answers([first, replace(second, **change)]) == ()
    assert answers([first]) == ()


def test_a_segment_goes_on_the_one_of_its_own_snapshot(segments):
    old, new = segments(" So.", " Yes."), segments(" So.", " Yes.", snapshot="9")
    found = answers([old[0], new[0], old[1], new[1]])
    assert [[one.query.snapshot for one in answer.segments] for answer in found] == [["7", "7"], ["9", "9"]]


def test_a_title_says_that_there_is_one_answer(segments, make_query):
    both = segments(" So.", " And so.")
    assert title(tuple(both)) == "Training data behind an answer, in 2 segments"
    assert title((*both, make_query())) == "Training data behind 3 answers"


def test_hostile_answers_are_only_text(segments, make_hit, make_report):
    hits = (make_hit(title=HOSTILE, source=HOSTILE),)
    report = make_report(*segments(HOSTILE, HOSTILE, proponents=hits))
    assert answers(report.queries)
    page, text = render_html(report), render_markdown(report)
    top = page[page.index('<section class="answer"') : page.index('<nav class="index"')]
    assert "<script" not in top
    assert "<img" not in top
    assert "\u202e" not in page + text
    head = text[: text.index("## How to read this")]
    bars = [line.replace("\\|", "").count("|") for line in head.splitlines() if line.startswith("|")]
    assert bars == [4] * 4
    assert all(one or other for one, other in pairwise(head.splitlines()[:6]))
