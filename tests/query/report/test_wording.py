import pytest

from proponent.query.report import AskedPart, wording
from proponent.query.report.numbers import NBSP


def test_an_opponents_standing_is_told_from_the_bottom(make_hit):
    assert wording.standing(make_hit(percentile=99.9)) == f"above 99.9{NBSP}% of those searched"
    assert wording.standing(make_hit(side="opponent", percentile=0.1)) == f"below 99.9{NBSP}% of those searched"
    assert wording.standing(make_hit(percentile=100.0)) == "above all others searched"
    assert wording.standing(make_hit(side="opponent", percentile=0.0)) == "below all others searched"
    assert wording.standing(make_hit()) is None


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ((0.5, 0.05, 0.04), "The first proponent stands apart: its score is 10 times that of the next."),
        ((0.5, 0.45, 0.1, 0.09), "The first 2 proponents stand apart: the score of number 2 is 4.5 times that of"),
        ((0.5, 0.45, 0.4), "None of these proponents stands apart: the scores go gradually from +0.5000 to +0.4000."),
        ((0.5, 0.05), None),
        ((0.5, float("nan"), 0.05, 0.01), None),
    ],
)
def test_scores_that_stand_apart_are_told(make_hit, scores, says):
    told = wording.apart(tuple(make_hit(score=score) for score in scores), "proponent")

    assert told is None if says is None else told.startswith(says)


def test_a_z_score_is_told_where_there_is_one(make_hit):
    assert wording.deviation(make_hit()) is None
    assert wording.deviation(make_hit(z_score=float("nan"))) is None
    assert wording.deviation(make_hit(z_score=5.26)) == "5.3 standard deviations above random passages (z)"
    assert wording.deviation(make_hit(z_score=-2.0)) == "2.0 standard deviations below random passages (z)"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"target_loss": None}, "not recorded"),
        ({"target_loss": float("nan")}, "not recorded"),
        ({"target_loss": float("inf")}, "less than 1 in"),
        ({"target_loss": 1e6}, "less than 1 in"),
        ({"n_target_tokens": None}, "(log-probability \u22120.5"),
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
