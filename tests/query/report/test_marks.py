import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.query.report.marks import QueryWords, query_words, runs


def marked(text, prompt, target):
    return [(run.text, run.kind) for run in runs(text, query_words(prompt, target)) if run.kind != "plain"]


@pytest.mark.parametrize(
    ("text", "target", "found"),
    [
        ("Paris, PARIS and Parisian; Bas-Paris.", " Paris", ["Paris", "PARIS", "Paris"]),
        ("In São Paulo", " SÃO PAULO", ["São", "Paulo"]),
        ("In Sa\u0303o Paulo", " São Paulo", ["Sa\u0303o", "Paulo"]),  # decomposed in the passage
        ("Straße, STRASSE", " strasse", ["Straße", "STRASSE"]),
        ("हिन्दी और हिन्द", " हिन्दी", ["हिन्दी"]),
        ("Cote d'Ivoire / d\u2019Ivoire", " d'Ivoire", ["Ivoire", "Ivoire"]),
        ("日本の首都は東京です", "東京", ["東京"]),
        ("Москва, москвич", " москва", ["Москва"]),
        ("1945 19450 a_1945_b", " 1945", ["1945", "1945"]),
    ],
)
def test_words_are_marked_whole(text, target, found):
    assert marked(text, "", target) == [(word, "target") for word in found]


def test_a_word_of_the_target_is_never_marked_as_the_prompts():
    assert marked("Paris France", "Paris in France:", " Paris") == [("Paris", "target"), ("France", "prompt")]


def test_function_words_are_marked_only_when_the_target_has_nothing_else():
    assert marked("The yen is the currency", "The currency is the", " yen") == [
        ("yen", "target"),
        ("currency", "prompt"),
    ]
    assert marked("It is", "To be or", " is") == [("is", "target")]


@given(st.text(), st.text(max_size=20), st.text(max_size=20))
def test_runs_joined_are_the_text(text, prompt, target):
    assert "".join(run.text for run in runs(text, query_words(prompt, target))) == text


@given(st.text(alphabet="ab \u0301東京都ー.-'", max_size=30))
def test_a_mark_never_splits_a_word_of_a_spaced_script(text):
    for before, after in zip(found := list(runs(text, query_words("b", "a"))), found[1:], strict=False):
        assert not (before.text[-1] in "ab" and after.text[0] in "ab\u0301")


def test_regular_expression_characters_in_a_question_mean_nothing():
    assert list(runs("a.c abc (x", query_words("(x", "a.c")))
    assert query_words("(", "[") == QueryWords(frozenset(), frozenset())
