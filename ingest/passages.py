"""Cutting a document into passages that fit a budget, at sentence ends where possible.

Notable: the pieces are runs of the document's text with their offsets, and only white space between them is lost. A
run that turns out too long is halved at a sentence's end, a sentence at white space, a word between characters.
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

RULE: Final = "sentences/1"
"""Name and version of the rule below; a change of it that moves a boundary gets a new version."""

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+|(?<=[。！？])|\n+")
_SPACE = re.compile(r"\s+")

Measure = Callable[[Sequence[str]], Sequence[int]]
"""Gives the size of each text, in tokens or in characters."""


class Passage(NamedTuple):
    """A run of a document's text."""

    char_start: int
    char_end: int
    text: str
    size: int


def cut_passages(texts: Sequence[str], *, measure: Measure, budget: int) -> list[list[Passage]]:
    """Cut every document's text into passages of at most `budget`, as measured."""
    whole = [_trimmed(text, 0, len(text)) for text in texts]
    sizes = measure([text[start:end] for text, (start, end) in zip(texts, whole, strict=True)])
    return [
        []
        if start == end
        else [Passage(start, end, text[start:end], size)]
        if size <= budget
        else _cut(text, measure, budget)
        for text, (start, end), size in zip(texts, whole, sizes, strict=True)
    ]


def _cut(text: str, measure: Measure, budget: int) -> list[Passage]:
    sentences = _sentences(text)
    sizes = measure([text[start:end] for start, end in sentences])
    runs: list[tuple[int, int]] = []
    filled = budget
    for (start, end), size in zip(sentences, sizes, strict=True):
        if filled + size <= budget:
            runs[-1] = (runs[-1][0], end)
            filled += size
        else:
            runs.append((start, end))
            filled = size
    return [passage for start, end in runs for passage in _fitted(text, start, end, measure, budget)]


def _fitted(text: str, start: int, end: int, measure: Measure, budget: int) -> list[Passage]:
    start, end = _trimmed(text, start, end)
    if start == end:
        return []
    size = measure([text[start:end]])[0]
    if size <= budget or end - start == 1:
        return [Passage(start, end, text[start:end], size)]
    middle = _break_near_middle(text, start, end)
    return _fitted(text, start, middle, measure, budget) + _fitted(text, middle, end, measure, budget)


def _sentences(text: str) -> list[tuple[int, int]]:
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    bounds = sorted({0, len(text), *ends})
    spans = (_trimmed(text, start, end) for start, end in pairwise(bounds))
    return [(start, end) for start, end in spans if start < end]


def _break_near_middle(text: str, start: int, end: int) -> int:
    middle = (start + end) // 2
    for ends in (_SENTENCE_END, _SPACE):
        inside = [start + match.end() for match in ends.finditer(text[start:end]) if 0 < match.end() < end - start]
        if inside:
            return min(inside, key=lambda place: abs(place - middle))
    return middle


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
