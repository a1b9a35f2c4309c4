"""Cutting documents into passages that fit a budget, at sentence ends where possible.

Notable: the pieces are runs of the document's text with their offsets, and only white space between them is lost. A
run that turns out too long is halved at a sentence's end, a sentence at white space, a word between characters. With
an overlap a passage begins with the last whole sentences of the one before. Documents are cut many at a time, each as
if it were alone.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from .sentences import Array, JoinedTexts, Sentences

RULE: Final = "sentences/1"
"""Name and version of the rule below; a change of it that moves a boundary gets a new version."""

_SPACE = re.compile(r"\s+")

Measure = Callable[[str, Array, Array], Array]
"""Gives the sizes (runs,) of runs of a text by their starts and stops (runs,), in tokens or in characters."""

_Run = tuple[int, int, int, int]
"""Which of the texts it is of; its start and stop in the texts joined; its size."""


class Passage(NamedTuple):
    """A run of a document's text."""

    char_start: int
    char_end: int
    text: str
    size: int


class Passages(NamedTuple):
    """Passages of several documents, in order, column by column."""

    document: list[int]
    """Which of the documents each is of, from 0."""
    ordinal: list[int]
    """Its place in its document, from 0."""
    char_start: list[int]
    char_end: list[int]
    text: list[str]
    size: list[int]

    def by_document(self, n: int) -> list[list[Passage]]:
        """Return the passages of each of n documents."""
        found: list[list[Passage]] = [[] for _ in range(n)]
        for document, _, *one in zip(*self, strict=True):
            found[document].append(Passage(*one))
        return found


_NONE: Final = Passages([], [], [], [], [], [])


def measure_characters(_text: str, starts: Array, stops: Array) -> Array:
    """Return the sizes of runs in characters."""
    return stops - starts


def cut_passages(texts: Sequence[str], *, measure: Measure, budget: int, overlap: int = 0) -> Passages:
    """Cut every document's text into passages of at most `budget`, as measured.

    A passage repeats whole sentences of the one before, up to `overlap` in size, as far as its own next sentence
    leaves room; a sentence that is longer than the budget is cut without any.
    """
    return _Cut(texts, measure, budget, overlap).passages() if texts else _NONE


class _Cut:
    """Texts that are being cut; places are characters of the texts joined."""

    def __init__(self, texts: Sequence[str], measure: Measure, budget: int, overlap: int) -> None:
        self._texts = JoinedTexts(texts)
        self._joined = self._texts.joined
        self._measure = measure
        self._budget = budget
        self._overlap = overlap
        self._ends = np.zeros(0, np.int64)
        """Where sentences end, after the white space that follows them."""

    def passages(self) -> Passages:
        starts, stops = self._texts.trimmed()
        sizes = self._measure(self._joined, starts, stops)
        some, long = starts < stops, sizes > self._budget
        whole = np.flatnonzero(some & ~long)
        columns: list[tuple[Array, ...]] = [(whole, starts[whole], stops[whole], sizes[whole])]
        if (some & long).any():
            columns.append(self._runs(self._texts.sentences(), long))
        texts, starts, stops, sizes = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        order = np.argsort(texts, kind="stable")
        runs = zip(*(column[order].tolist() for column in (texts, starts, stops, sizes)), strict=True)
        return self._columns(self._fitted(runs))

    def _runs(self, found: Sentences, is_long: Array) -> tuple[Array, ...]:
        """Return texts, starts, stops and sizes of the runs of sentences of the texts that are too long."""
        self._ends = found.ends
        of_long = is_long[found.text]
        texts, starts, stops = found.text[of_long], found.starts[of_long], found.stops[of_long]
        sums = array("q", np.append(0, np.cumsum(self._measure(self._joined, starts, stops))).tobytes())
        bounds = np.flatnonzero(np.diff(texts, prepend=-1, append=-1)).tolist()
        runs = [one for begin, end in pairwise(bounds) for one in _runs(sums, begin, end, self._budget, self._overlap)]
        first, last = np.array(runs, np.int64).T
        starts, stops = starts[first], stops[last]
        return texts[first], starts, stops, self._measure(self._joined, starts, stops)

    def _fitted(self, runs: Iterable[_Run]) -> list[_Run]:
        """Return runs with pieces in the place of those that are too long."""
        fitted = []
        for run in runs:
            text, start, stop, size = run
            if size <= self._budget:
                fitted.append(run)
            else:
                fitted += [(text, *piece) for piece in self._pieces(start, stop, size)]
        return _without_inner(fitted) if self._overlap else fitted

    def _pieces(self, start: int, stop: int, size: int | None = None) -> list[tuple[int, int, int]]:
        """Return starts, stops and sizes of the pieces of a run that fit."""
        start, stop = _trimmed(self._joined, start, stop)
        if start == stop:
            return []
        if size is None:
            size = int(self._measure(self._joined, np.array([start]), np.array([stop]))[0])
        if size <= self._budget or stop - start == 1:
            return [(start, stop, size)]
        middle = self._break_near_middle(start, stop)
        return self._pieces(start, middle) + self._pieces(middle, stop)

    def _break_near_middle(self, start: int, stop: int) -> int:
        middle = (start + stop) // 2
        inside = self._ends[np.searchsorted(self._ends, start, "right") : np.searchsorted(self._ends, stop)]
        if not len(inside):
            spaces = (start + match.end() for match in _SPACE.finditer(self._joined[start:stop]))
            inside = np.fromiter((place for place in spaces if place < stop), np.int64)
        return int(inside[np.abs(inside - middle).argmin()]) if len(inside) else middle

    def _columns(self, runs: list[_Run]) -> Passages:
        if not runs:
            return _NONE
        documents, starts, stops, sizes = (list(column) for column in zip(*runs, strict=True))
        texts = [self._joined[start:stop] for start, stop in zip(starts, stops, strict=True)]
        before = self._texts.starts[documents]
        ordinals = np.arange(len(runs)) - np.searchsorted(documents, documents)
        return Passages(
            documents, ordinals.tolist(), (starts - before).tolist(), (stops - before).tolist(), texts, sizes
        )


def _runs(sums: Sequence[int], begin: int, end: int, budget: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each run of sentences of a text, as long as the budget allows.

    The text's sentences are those from `begin` to `end`; `sums` has the size of all that come before a sentence.
    """
    first = place = begin
    while True:
        stop = max(place + 1, bisect_right(sums, sums[first] + budget, place, end + 1) - 1)
        yield first, stop - 1
        if stop == end:
            return
        room = min(overlap, budget - (sums[stop + 1] - sums[stop]))
        first, place = bisect_left(sums, sums[stop] - room, first + 1, stop), stop


def _without_inner(runs: list[_Run]) -> list[_Run]:
    """Return runs without those that lie within another, as with an overlap they may."""
    kept: list[_Run] = []
    for run in runs:
        _, start, stop, _ = run
        if kept and stop <= kept[-1][2]:
            continue
        while kept and kept[-1][1] >= start:
            kept.pop()
        kept.append(run)
    return kept


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end].rstrip()
    return start + len(piece) - len(piece.lstrip()), start + len(piece)
