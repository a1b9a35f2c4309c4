from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.query.report import AskedPart, wording

NBSP = wording.NBSP


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

    assert wording.published(day, precision) == words
    assert wording.published_iso(day, precision) == machine


def test_a_moment_reads_the_same_from_every_zone():
    moment = datetime(2025, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=-5)))

    assert wording.instant(moment) == wording.instant(moment.astimezone(UTC)) == "2 March 2025, 04:30 UTC"


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
    assert wording.probability(p) == words


@given(st.floats(0, 1))
def test_a_share_is_all_or_nothing_only_when_it_is(share):
    shown = wording.percent(share)

    assert (shown == f"100{NBSP}%") == (share * 100 == 100)
    assert (shown == f"0{NBSP}%") == (share * 100 == 0)


@given(st.floats(0, 1))
def test_every_probability_has_words(p):
    assert wording.probability(p)


@given(st.floats())
def test_every_score_has_words_and_a_bar(value):
    assert wording.score(value)
    assert 0 <= wording.meter(value, 1.0) <= 100


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.18321, "+0.1832"), (-0.05, "\u22120.0500"), (0.000012, "+1.2e\u221205"), (1234.5, "+1.23e+03")],
)
def test_scores_keep_their_digits_and_sign(value, shown):
    assert wording.score(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(50.0, "50.0"), (99.97, "99.97"), (99.9996, "99.9996"), (100.0, "100")])
def test_percentiles_are_not_rounded_up_to_the_top(value, shown):
    assert wording.percentile(value) == shown


def test_an_opponents_standing_is_told_from_the_bottom(make_hit):
    assert wording.standing(make_hit(percentile=99.9)) == f"above 99.9{NBSP}% of those searched"
    assert wording.standing(make_hit(side="opponent", percentile=0.1)) == f"below 99.9{NBSP}% of those searched"
    assert wording.standing(make_hit()) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"target_loss": None}, "not recorded"),
        ({"target_loss": float("nan")}, "not recorded"),
        ({"target_loss": float("inf")}, "less than 1 in"),
        ({"target_loss": 1e6}, "less than 1 in"),
        ({"n_target_tokens": None}, "(a loss of 0.5"),
        ({"n_target_tokens": 1}, "(one token"),
        ({"n_target_tokens": 2}, f"or 78{NBSP}% per token"),
    ],
)
def test_likelihood_is_said_as_far_as_it_is_known(make_query, changes, expected):
    assert expected in wording.likelihood(make_query(**changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "No filter: 1,200 passages could be listed, and every one was scored."),
        ({"filter": "x", "n_candidates": 1}, "1 passage passed the filter, and every one was scored."),
        ({"exact": False}, "was not measured"),
        ({"exact": False, "recall": 0.97}, f"found 97{NBSP}%"),
    ],
)
def test_the_search_says_how_thorough_it_was(make_query, changes, expected):
    assert expected in wording.searched(make_query(**changes))


def test_a_question_is_asked_even_without_a_prompt_and_of_any_length(make_query):
    assert wording.question(make_query()) == (
        "Which training passages pushed the model towards \u2018Paris\u2019 after \u2018The capital of France is\u2019?"
    )
    assert "at the beginning of a text" in wording.question(make_query(prompt=" "))
    assert len(wording.question(make_query(prompt="long " * 1000, target="long " * 1000))) < 260


def part(target: str, weight: float = 1.0, **changes: str) -> AskedPart:
    return AskedPart(**{"prompt": "The capital is", "target": target, "weight": weight} | changes)


@pytest.mark.parametrize(
    ("parts", "asks", "is_made_of", "likely"),
    [
        (
            (part(" A"), part(" B", -1.0)),
            "towards \u2018A\u2019 and not \u2018B\u2019 after",
            "less what pushed towards the other",
            "gives the target a probability",
        ),
        (
            (part(" A", 0.5), part(" B", 0.5)),
            "towards \u2018A\u2019 and \u2018B\u2019, on average after",
            "the mean of the targets\u2019 losses",
            "gives the 2 targets a probability of",
        ),
        (
            (part(" A", 0.5), part(" B", 0.5), part(" C", -1.0)),
            "towards \u2018A\u2019 and \u2018B\u2019, on average, and not \u2018C\u2019 after",
            "less what pushed towards the other",
            "gives the 2 targets a probability of",
        ),
        (
            tuple(part(f" {name}", 0.2) for name in "ABCDE"),
            "towards \u2018A\u2019, \u2018B\u2019, \u2018C\u2019 and 2 more, on average after",
            "the mean of the targets\u2019 losses",
            "gives the 5 targets",
        ),
        (
            (part(" A", rendered="<user>The capital is</user>"),),
            "towards \u2018A\u2019 in answer to \u2018The capital of France is\u2019",
            "in the model\u2019s chat template",
            "gives the target a probability",
        ),
        (
            (part(" A", query="1"), part(" B", query="2"), part(" C", -1.0, query="2")),
            "towards their targets rather than what they are compared with, on average over 2 queries?",
            "the mean of the scores under 2 queries",
            "on geometric average",
        ),
    ],
)
def test_a_sum_or_a_mean_is_said_in_plain_words(make_query, parts, asks, is_made_of, likely):
    query = make_query(parts=parts)

    assert asks in wording.question(query)
    assert is_made_of in wording.summed(query)
    assert likely in wording.likelihood(query)
    assert wording.chosen_by(query)


@pytest.mark.parametrize(
    ("method", "curvature", "says"),
    [
        (
            "trackstar",
            "reference",
            "cosine of two corrected gradients, between \u22121 and 1; what all passages share is",
        ),
        ("logra", "capitals", "and what all queries of the task \u2018capitals\u2019 share are discounted"),
        ("trak", "reference", "the dot product of two gradients, whose lengths count; what"),
        ("graddot", "identity", "nothing that passages share is discounted"),
    ],
)
def test_what_a_score_is_follows_from_method_and_curvature(make_query, method, curvature, says):
    assert says in wording.scored(make_query(method=method, curvature=curvature))


def test_a_query_that_a_mean_has_twice_counts_twice(make_query):
    twice = tuple(part(target, query=query) for query, target in (("1", " A"), ("1", " B"), ("1", " A"), ("1", " B")))
    assert make_query(parts=(*twice, part(" C", query="2"))).n_queries == 3
    assert make_query(parts=(part(" A", 0.5), part(" B", 0.5))).n_queries == 1
    assert make_query().n_queries == 1


def test_every_part_is_listed_and_the_prompt_once(make_query):
    chat = part(" A", rendered="<user>")
    rows = wording.asked(make_query(parts=(chat, part(" B", -1.0, rendered="<user>"), part(" C", query="2"))))

    assert rows == (
        ("Prompt", "The capital is"),
        ("Read in a chat as", "<user>"),
        ("Target", " A"),
        ("Instead of", " B"),
        ("Prompt", "The capital is"),
        ("Target", " C"),
    )
    assert wording.asked(make_query()) == ()
    uneven = make_query(parts=(part(" A", query="1"), part(" B", 0.5, query="2"), part(" C", 0.5, query="2")))
    assert "in which every query counts the same" in wording.likelihood(uneven)
    many = wording.asked(make_query(parts=tuple(part(f" {n}", query=str(n)) for n in range(60))))
    assert many[-1] == ("And", "10 more targets, in the lake\u2019s relation queries")


def test_a_score_of_the_other_sides_sign_is_remarked_on(make_hit):
    assert wording.misplaced(make_hit(score=0.1)) is None
    assert wording.remarks(make_hit(score=0.1)) == ()
    assert "below zero" in wording.misplaced(make_hit(score=-0.1))
    assert "above zero" in wording.misplaced(make_hit(side="opponent", score=0.1))


def test_a_document_that_the_model_was_not_trained_on_is_told_apart(make_hit) -> None:
    for mark in (None, True):
        assert wording.remarks(make_hit(trained_on=mark)) == ()
    [remark] = wording.remarks(make_hit(trained_on=False))
    assert remark == "The model was not trained on this document: the score says what training on it would do."
    assert len(wording.remarks(make_hit(trained_on=False, score=-0.1))) == 2
