"""A score by words is never told as influence, in either form of a report."""

import pytest

from proponent.query.report import methods as says
from proponent.query.report import render_html, render_markdown, wording

INFLUENCE = ("pushed", "gradient", "learning from", "cosine", "Opponents", "proponent is a training passage")


@pytest.fixture
def by_words(make_query, make_hit):
    blank = dict.fromkeys(("encoder", "curvature", "target_loss", "n_target_tokens"))
    hits = (make_hit(score=12.5), make_hit(rank=2, score=3.25, passage_id="p2"))
    return make_query(method="bm25", **blank, proponents=hits, opponents=())


@pytest.fixture
def joined(make_query, make_hit):
    hit = make_hit(score=1 / 61 + 1 / 64, parts=(("trackstar", 1, 0.51234), ("bm25", 4, 7.125)))
    return make_query(method="hybrid", fused="trackstar", rank_constant=60, proponents=(hit,), opponents=())


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_a_report_by_words_says_nothing_of_influence(make_report, by_words, render):
    text = render(make_report(by_words))
    for word in INFLUENCE:
        assert word not in text
    assert "Which passages share words with" in text
    assert "No model was asked." in text
    assert "it says nothing of the model" in text
    assert "Passages that share words with the question" in text
    assert "Where the listed passages come from" in text


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_a_joined_report_shows_each_rank_and_score(make_report, joined, render):
    text = render(make_report(joined))
    assert "1 / (60 + rank)" in text
    assert "influence by trackstar" in text
    for one in ("rank 1, score +0.5123", "rank 4, score +7.1250"):
        assert one in text
    assert "pushed towards the target" not in text


def test_a_report_of_both_kinds_explains_both(make_report, make_query, by_words, joined):
    leads = [lead for lead, _ in says.reading(make_report(make_query(), by_words, joined))]
    assert leads[: len(wording.READING)] == [lead for lead, _ in wording.READING]
    measured = "What was measured of the search."
    assert leads[len(wording.READING) :] == [
        measured,
        "Shared words are not influence.",
        "A joined score is made of ranks.",
    ]
    assert [lead for lead, _ in says.reading(make_report())] == [*(lead for lead, _ in wording.READING), measured]
    assert [lead for lead, _ in says.reading(make_report(by_words))] == ["Shared words are not influence."]


def test_what_was_measured_of_stored_vectors_and_index_is_told(make_report, make_query):
    stored = (("Stored vectors", "int8 with block scales; they keep 99.7% of the ten best"),)
    queries = (make_query(provenance=stored), make_query(exact=False, recall=0.97), make_query(exact=False))
    lead, told = says.reading(make_report(*queries))[-1]
    assert lead == "What was measured of the searches."
    assert "Gradients are compared as stored vectors: int8 with block scales; they keep 99.7% of the ten best." in told
    assert "Every passage that passed the filter was scored" in told
    assert "is 97\u00a0%, measured on this lake" in told
    assert "was not measured" in told


def test_a_report_of_influence_is_as_before(make_report, make_query):
    query = make_query()
    assert [side.heading for side in says.sides(query)] == [
        "Proponents: pushed towards the target",
        "Opponents: pushed away from the target",
    ]
    assert says.question(query) == wording.question(query)
    assert says.scored(query) == wording.scored(query)
    assert says.likelihood(query) == wording.likelihood(query)
    assert "the score does not look at words" in render_html(make_report(query))


def test_what_was_not_trained_on_has_no_score_of_training_by_words(make_hit, make_query, by_words):
    hit = make_hit(trained_on=False)
    assert says.remarks(hit, by_words) == ("The model was not trained on this document.",)
    assert says.remarks(hit, make_query()) == wording.remarks(hit)


def test_the_order_with_full_gradients_is_told(make_report, make_query):
    query = make_query(recomputed=(("proponent", 10, 0.4321), ("opponent", 1, None)))
    for render in (render_html, render_markdown):
        text = render(make_report(query))
        assert "Kendall tau 0.43 over 10 texts" in text
        assert "Kendall tau none over 1 text:" in text
    assert "Kendall" not in render_markdown(make_report())
