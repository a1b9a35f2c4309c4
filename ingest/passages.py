"""Cutting a document into passages that fit a budget, at sentence ends where possible.

Notable: the pieces are runs of the document's text with their offsets, and only white space between them is lost. A
run that turns out too long is halved at a sentence's end, a sentence at white space, a word between characters. With
an overlap a passage begins with the last whole sentences of the one before.
"""

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Final, NamedTuple

RULE: Final = "sentences/1"
"""Name and version of the rule below; a change of it that moves a boundary gets a new version."""

# It begins with a set of characters, so that the search runs from one of them to the next.
_SENTENCE_END = re.compile(r"[.!?\n。！？](?:(?<=[.!?])[\"'”’)\]]*\s+|(?<=[。！？])|(?<=\n)\n*)")
_PORTION: Final = 4096
_SPACE = re.compile(r"\s+")

Measure = Callable[[Sequence[str]], Sequence[int]]
"""Gives the size of each text, in tokens or in characters."""


class Passage(NamedTuple):
    """A run of a document's text."""

    char_start: int
    char_end: int
    text: str
    size: int


def cut_passages(texts: Sequence[str], *, measure: Measure, budget: int, overlap: int = 0) -> list[list[Passage]]:
    """Cut every document's text into passages of at most `budget`, as measured.

    A passage repeats whole sentences of the one before, up to `overlap` in size, as far as its own next sentence
    leaves room; a sentence that is longer than the budget is cut without any.
    """
    whole = [_trimmed(text, 0, len(text)) for text in texts]
    sizes = measure([text[start:end] for text, (start, end) in zip(texts, whole, strict=True)])
    return [
        []
        if start == end
        else [Passage(start, end, text[start:end], size)]
        if size <= budget
        else _cut(text, measure, budget, overlap)
        for text, (start, end), size in zip(texts, whole, sizes, strict=True)
    ]


def _cut(text: str, measure: Measure, budget: int, overlap: int) -> list[Passage]:
    starts, ends, sizes = _sentences(text, measure)
    passages: list[Passage] = []
    for first, last in _runs(sizes, budget, overlap):
        for passage in _fitted(text, starts[first], ends[last], measure, budget):
            _append(passages, passage)
    return passages


def _append(passages: list[Passage], passage: Passage) -> None:
    """Append a passage that reaches further than those before it, and drop those that lie within it.

    Without an overlap every passage does, and none lies within another.
    """
    if passages and passage.char_end <= passages[-1].char_end:
        return
    while passages and passages[-1].char_start >= passage.char_start:
        passages.pop()
    passages.append(passage)


def _runs(sizes: Sequence[int], budget: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last place of runs of sentences, each as long as the budget allows."""
    first, filled = 0, 0
    for place, size in enumerate(sizes):
        if place > first and filled + size > budget:
            yield first, place - 1
            earliest, first, filled = first + 1, place, 0
            while first > earliest and filled + sizes[first - 1] <= min(overlap, budget - size):
                first -= 1
                filled += sizes[first]
        filled += size
    if sizes:
        yield first, len(sizes) - 1


def _fitted(text: str, start: int, end: int, measure: Measure, budget: int) -> list[Passage]:
    start, end = _trimmed(text, start, end)
    if start == end:
        return []
    size = measure([text[start:end]])[0]
    if size <= budget or end - start == 1:
        return [Passage(start, end, text[start:end], size)]
    middle = _break_near_middle(text, start, end)
    return _fitted(text, start, middle, measure, budget) + _fitted(text, middle, end, measure, budget)


def _sentences(text: str, measure: Measure) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Return where a text's sentences start and end, without white space around them, and their sizes.

    They are measured in portions, and kept as numbers: a text may have millions.
    """
    starts, ends, sizes = array("q"), array("q"), array("q")
    found = _stripped_sentences(text)
    while portion := list(islice(found, _PORTION)):
        sizes.extend(measure([sentence for _, sentence in portion]))
        starts.extend(start for start, _ in portion)
        ends.extend(start + len(sentence) for start, sentence in portion)
    return starts, ends, sizes


def _stripped_sentences(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for match in chain(_SENTENCE_END.finditer(text), [None]):
        end = match.end() if match else len(text)
        piece = text[start:end].rstrip()
        sentence = piece.lstrip()
        if sentence:
            yield start + len(piece) - len(sentence), sentence
        start = end


def _break_near_middle(text: str, start: int, end: int) -> int:
    middle = (start + end) // 2
    for ends in (_SENTENCE_END, _SPACE):
        inside = [start + match.end() for match in ends.finditer(text[start:end]) if 0 < match.end() < end - start]
        if inside:
            return min(inside, key=lambda place: abs(place - middle))
    return middle


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end].rstrip()
    return start + len(piece) - len(piece.lstrip()), start + len(piece)
