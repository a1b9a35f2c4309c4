"""Sentences found in arrays are those that a search for their ends finds, whatever the texts."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proponent.ingest import sentences
from proponent.ingest.sentences import JoinedTexts

END = re.compile(r"[.!?][\"'”’)\]]*\s+|[。！？]|\n+")
TEXTS = st.text(max_size=200) | st.text("ab .!?\n。！\"')]”’\u3000\u2028\x1c\x85\u200b😀\0", max_size=200)


def found(texts: list[str]) -> list[list[tuple[int, int]]]:
    """Starts and stops of every text's sentences."""
    joined = JoinedTexts(texts)
    one: list[list[tuple[int, int]]] = [[] for _ in texts]
    places = joined.sentences()
    for text, start, stop in zip(places.text, places.starts, places.stops, strict=True):
        one[text].append((int(start - joined.starts[text]), int(stop - joined.starts[text])))
    return one


def searched(text: str) -> list[tuple[int, int]]:
    bounds = [0, *(match.end() for match in END.finditer(text)), len(text)]
    pieces = [(start, text[start:stop].rstrip()) for start, stop in pairwise(bounds)]
    return [(start + len(piece) - len(piece.lstrip()), start + len(piece)) for start, piece in pieces if piece.strip()]


@given(st.lists(TEXTS, min_size=1, max_size=4))
@example(["", " ", "\n\n", "。", "a. \n b", "a.\"' \n", "a.)”", " \n \n a"])
@example(["\ud83d\ude00. 😀。\ud800\n"])
def test_sentences_are_those_of_a_search(texts: list[str]) -> None:
    assert found(texts) == [searched(text) for text in texts]


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_ends_are_those_of_a_search(texts: list[str]) -> None:
    joined = JoinedTexts(texts)
    assert joined.sentences().ends.tolist() == [match.end() for match in END.finditer(joined.joined)]


@pytest.mark.parametrize("run", [" ", "\n", "'", " \n", "\u3000"])
@pytest.mark.parametrize("length", [15, 16, 17, 4096, 10_000])
def test_long_runs_are_passed_over(run: str, length: int) -> None:
    texts = [f"a.{run * length}b. {run * length}", f"{run * length}c.{run * length}", run * length]
    assert found(texts) == [searched(text) for text in texts]


@given(st.lists(TEXTS, min_size=1, max_size=3))
def test_texts_are_trimmed_as_strip_does(texts: list[str]) -> None:
    joined = JoinedTexts(texts)
    trimmed = [joined.joined[start:stop] for start, stop in zip(*joined.trimmed(), strict=True)]
    assert trimmed == [text.strip() for text in texts]


def test_where_texts_are_looked_at_in_slices_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["One. Two!\n\nThree. " * 40, "四。五。" * 30]
    whole = found(texts)
    monkeypatch.setattr(sentences, "_SLICE", 7)
    assert found(texts) == whole


def test_every_white_space_is_one_unit() -> None:
    assert not any(chr(code).isspace() for code in range(1 << 16, 0x110000))
