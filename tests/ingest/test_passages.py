"""Passages are runs of the text, in order, within the budget, and only white space is lost between them."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import proponent.demo
from proponent.ingest.cutter import token_cutter
from proponent.ingest.passages import Measure, Passage, cut_passages, measure_characters

TEXTS = st.text(max_size=300) | st.text("ab .!?\n。\"')\u3000\u200b", max_size=300)


def cut(texts: Sequence[str], **options: Any) -> list[list[Passage]]:
    return cut_passages(texts, **options).by_document(len(texts))


def size(text: str, measure: Measure) -> int:
    [found] = measure(text, np.array([0]), np.array([len(text)]))
    return int(found)


@pytest.fixture(scope="module")
def tokens() -> Measure:
    return token_cutter(Path(proponent.demo.__file__).parent / "checkpoint", budget=64).measure


def check(text: str, passages: list[Passage], measure: Measure, budget: int) -> None:
    end = 0
    for passage in passages:
        assert passage.char_start >= end, "in order and apart"
        assert text[passage.char_start : passage.char_end] == passage.text
        assert passage.text == passage.text.strip() != "", "no empty ones, no white space at the ends"
        assert passage.size == size(passage.text, measure)
        assert passage.size <= budget or len(passage.text) == 1
        assert not text[end : passage.char_start].strip(), "only white space is lost"
        end = passage.char_end
    assert not text[end:].strip()


@given(TEXTS, st.integers(1, 40))
@example("", 1)
@example(" \n ", 5)
@example("x" * 200, 7)
@example(("word " * 100).strip(), 9)
def test_passages_of_any_text_keep_their_promises(text: str, budget: int) -> None:
    check(text, cut([text], measure=measure_characters, budget=budget)[0], measure_characters, budget)


@given(TEXTS, st.integers(2, 30))
def test_passages_measured_in_tokens_keep_their_promises(tokens: Measure, text: str, budget: int) -> None:
    check(text, cut([text], measure=tokens, budget=budget)[0], tokens, budget)


@given(st.lists(TEXTS, max_size=4), st.integers(8, 40))
def test_a_document_is_cut_the_same_in_any_company(texts: list[str], budget: int) -> None:
    together = cut(texts, measure=measure_characters, budget=budget)
    assert together == [cut([text], measure=measure_characters, budget=budget)[0] for text in texts]


def test_a_text_that_fits_is_one_passage() -> None:
    assert cut([" One. Two.\n"], measure=measure_characters, budget=9) == [[Passage(1, 10, "One. Two.", 9)]]


@pytest.mark.parametrize(
    ("text", "budget", "expected"),
    [
        ("One two. Three four! Five?", 12, ["One two.", "Three four!", "Five?"]),
        ("One two. Three four! Five?", 20, ["One two. Three four!", "Five?"]),
        ('He said "no." She left.', 14, ['He said "no."', "She left."]),
        ("東京は首都。大阪は町。", 6, ["東京は首都。", "大阪は町。"]),
        ("A line\nAnother line", 12, ["A line", "Another line"]),
        ("one two three four", 9, ["one two", "three", "four"]),
        ("abcdefgh", 4, ["abcd", "efgh"]),
        ("Version 3.5 is out.", 18, ["Version", "3.5 is out."]),
    ],
)
def test_cuts_are_at_sentence_ends_then_at_white_space_then_anywhere(
    text: str, budget: int, expected: list[str]
) -> None:
    (passages,) = cut([text], measure=measure_characters, budget=budget)
    assert [passage.text for passage in passages] == expected


@pytest.mark.parametrize("budget", range(70, 300, 7))
def test_no_sentence_that_fits_is_cut_in_two(sentences: list[str], budget: int) -> None:
    (passages,) = cut([" ".join(sentences)], measure=measure_characters, budget=budget)
    assert all(passage.text.endswith(".") for passage in passages)
    assert len(passages) <= 2 * len(" ".join(sentences)) / budget + 1


def test_a_text_without_white_space_is_cut_without_deep_recursion_or_much_work() -> None:
    measured = 0

    def counting(text: str, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        nonlocal measured
        measured += len(starts)
        return measure_characters(text, starts, stops)

    text = "x" * 1_000_000 + " y" * 2000
    (passages,) = cut([text], measure=counting, budget=1000)
    check(text, passages, measure_characters, 1000)
    assert measured < 10_000


@given(TEXTS, st.integers(4, 40), st.floats(0, 0.5))
@example("One two. Three. Four five six. Seven. Eight nine.", 20, 0.5)
def test_overlapping_passages_repeat_whole_sentences_and_lose_nothing(text: str, budget: int, share: float) -> None:
    overlap = int(budget * share)
    plain = cut([text], measure=measure_characters, budget=budget)[0]
    passages = cut([text], measure=measure_characters, budget=budget, overlap=overlap)[0]
    if not overlap:
        assert passages == plain
    end = 0
    for before, passage in pairwise([None, *passages]):
        assert passage is not None
        assert text[passage.char_start : passage.char_end] == passage.text == passage.text.strip() != ""
        assert passage.size == len(passage.text) <= budget or len(passage.text) == 1
        if before is not None:
            assert before.char_start < passage.char_start
            assert before.char_end < passage.char_end
            repeated = text[passage.char_start : before.char_end]
            assert len("".join(repeated.split())) <= overlap
        assert not text[end : passage.char_start].strip(), "only white space is lost"
        end = passage.char_end
    assert not text[end:].strip()


def test_an_overlap_takes_as_many_sentences_as_fit() -> None:
    text = "Aaaa. Bbbb. Cccc. Dddd. Eeee. Ffff."
    texts = [one.text for one in cut([text], measure=measure_characters, budget=17, overlap=8)[0]]
    assert texts == ["Aaaa. Bbbb. Cccc.", "Cccc. Dddd. Eeee.", "Eeee. Ffff."]
