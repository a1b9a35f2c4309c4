"""Cutting documents into passages that fit a budget, at sentence ends where possible.

Notable: the pieces are runs of the document's text with their offsets, and only white space between them is lost. A
run that turns out too long is halved at a sentence's end, a sentence at white space, a word between characters. With
an overlap a passage begins with the last whole sentences of the one before. Documents are cut many at a time, each as
if it were alone.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from .sentences import Array, JoinedTexts, Sentences

RULE: Final = "sentences/1"
"""Name and version of the rule below; a change of it that moves a boundary gets a new version."""

_SPACE = re.compile(r"\s+")

Measure = Callable[[str, Array, Array], Array]
"""Gives the sizes (runs,) of runs of a text by their starts and stops (runs,), in tokens or in characters."""


class Passage(NamedTuple):
    """A run of a document's text."""

    char_start: int
    char_end: int
    text: str
    size: int


class Passages(NamedTuple):
    """Passages of several documents, in order, column by column; the arrays are int64, (passages,)."""

    document: Array
    """Which of the documents each is of, from 0."""
    ordinal: Array
    """Its place in its document, from 0."""
    char_start: Array
    char_end: Array
    text: list[str]
    size: Array

    def by_document(self, n: int) -> list[list[Passage]]:
        """Return the passages of each of n documents."""
        found: list[list[Passage]] = [[] for _ in range(n)]
        columns = (self.document, self.char_start, self.char_end, self.size)
        for text, document, start, end, size in zip(self.text, *(c.tolist() for c in columns), strict=True):
            found[document].append(Passage(start, end, text, size))
        return found


def measure_characters(_text: str, starts: Array, stops: Array) -> Array:
    """Return the sizes of runs in characters."""
    return stops - starts


def cut_passages(texts: Sequence[str], *, measure: Measure, budget: int, overlap: int = 0) -> Passages:
    """Cut every document's text into passages of at most `budget`, as measured.

    A passage repeats whole sentences of the one before, up to `overlap` in size, as far as its own next sentence
    leaves room; a sentence that is longer than the budget is cut without any.
    """
    return _Cut(texts, measure, budget, overlap).passages()


class _Runs(NamedTuple):
    """Runs of texts, column by column, (runs,) each."""

    text: Array
    """Which of the texts each is of."""
    starts: Array
    """First character, in the texts joined."""
    stops: Array
    sizes: Array

    def take(self, which: Array) -> "_Runs":
        """Return some of the runs, by their places or by a mask."""
        return _Runs(*(column[which] for column in self))


def _together(parts: Sequence[_Runs]) -> _Runs:
    return _Runs(*map(np.concatenate, zip(*parts, strict=True)))


class _Cut:
    """Texts that are being cut; places are characters of the texts joined."""

    def __init__(self, texts: Sequence[str], measure: Measure, budget: int, overlap: int) -> None:
        self._texts = JoinedTexts(texts)
        self._joined = self._texts.joined
        self._measure = measure
        self._budget = budget
        self._overlap = overlap

    def passages(self) -> Passages:
        starts, stops = self._texts.trimmed()
        whole = self._measured(np.arange(len(starts)), starts, stops)
        some, long = starts < stops, whole.sizes > self._budget
        parts = [whole.take(some & ~long)]
        if (some & long).any():
            sentences = self._texts.sentences()
            runs = self._fitted(self._filled(sentences, long), sentences.ends)
            parts.append(runs.take(_outer(runs)) if self._overlap else runs)
        runs = _together(parts)
        return self._columns(runs.take(np.argsort(runs.text, kind="stable")))

    def _measured(self, text: Array, starts: Array, stops: Array) -> _Runs:
        return _Runs(text, starts, stops, self._measure(self._joined, starts, stops))

    def _filled(self, found: Sentences, is_long: Array) -> _Runs:
        """Return runs of as many sentences as the budget allows, of the texts that are too long."""
        of_long = is_long[found.text]
        sentences = self._measured(found.text[of_long], found.starts[of_long], found.stops[of_long])
        sums = array("q", np.append(0, np.cumsum(sentences.sizes)).tobytes())
        bounds = np.flatnonzero(np.diff(sentences.text, prepend=-1, append=-1)).tolist()
        firsts, lasts = _runs(sums, bounds, self._budget, self._overlap)
        return self._measured(sentences.text[firsts], sentences.starts[firsts], sentences.stops[lasts])

    def _fitted(self, runs: _Runs, ends: Array) -> _Runs:
        """Return runs with pieces in the place of those that are too long; `ends` are where sentences end."""
        of = np.arange(len(runs.text))
        parts, ofs = [], []
        while len(of):
            fits = (runs.sizes <= self._budget) | (runs.stops - runs.starts == 1)
            parts.append(runs.take(fits))
            ofs.append(of[fits])
            of, runs = np.repeat(of[~fits], 2), self._halves(runs.take(~fits), ends)
        fitted = _together(parts)
        return fitted.take(np.lexsort((fitted.starts, np.concatenate(ofs))))

    def _halves(self, runs: _Runs, ends: Array) -> _Runs:
        middles = self._breaks(runs, ends)
        starts = np.column_stack([runs.starts, middles]).ravel()
        stops = np.column_stack([middles, runs.stops]).ravel()
        return self._measured(np.repeat(runs.text, 2), *self._texts.stripped(starts, stops))

    def _breaks(self, runs: _Runs, ends: Array) -> Array:
        """Return where runs are halved: near the middle at a sentence's end, else at white space, else anywhere."""
        middles = (runs.starts + runs.stops) // 2
        first, last = np.searchsorted(ends, runs.starts, "right"), np.searchsorted(ends, runs.stops) - 1
        for run in np.flatnonzero(first > last).tolist():
            middles[run] = self._space_near(int(middles[run]), int(runs.starts[run]), int(runs.stops[run]))
        some = first <= last
        first, last, middle = first[some], last[some], middles[some]
        after = np.clip(np.searchsorted(ends, middle), first, last)
        before = np.maximum(after - 1, first)
        is_before = np.abs(ends[before] - middle) <= np.abs(ends[after] - middle)
        middles[some] = ends[np.where(is_before, before, after)]
        return middles

    def _space_near(self, middle: int, start: int, stop: int) -> int:
        """Return the end of white space between two places that is nearest to their middle, or the middle."""
        spaces = np.fromiter((match.end() for match in _SPACE.finditer(self._joined[start:stop])), np.int64) + start
        return int(spaces[np.abs(spaces - middle).argmin()]) if len(spaces) else middle

    def _columns(self, runs: _Runs) -> Passages:
        bounds = zip(runs.starts.tolist(), runs.stops.tolist(), strict=True)
        texts = [self._joined[start:stop] for start, stop in bounds]
        before = self._texts.starts[runs.text]
        ordinals = np.arange(len(texts)) - np.searchsorted(runs.text, runs.text)
        return Passages(runs.text, ordinals, runs.starts - before, runs.stops - before, texts, runs.sizes)


def _runs(sums: Sequence[int], bounds: Sequence[int], budget: int, overlap: int) -> tuple[list[int], list[int]]:
    """Return the first and the last sentence of every run: as many of a text as the budget allows.

    `sums` has the size of all that come before a sentence; `bounds` are where the sentences of a text begin, and the
    end of all.
    """
    firsts, lasts = [], []
    for begin, end in pairwise(bounds):
        first = stop = begin
        while stop < end:
            stop = max(stop + 1, bisect_right(sums, sums[first] + budget, stop, end + 1) - 1)
            firsts.append(first)
            lasts.append(stop - 1)
            if stop < end:
                room = min(overlap, budget - (sums[stop + 1] - sums[stop]))
                first = bisect_left(sums, sums[stop] - room, first + 1, stop)
    return firsts, lasts


def _outer(runs: _Runs) -> Array:
    """Return the places of the runs that do not lie within another, as with an overlap some may."""
    starts, stops = runs.starts.tolist(), runs.stops.tolist()
    kept: list[int] = []
    for run, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        if kept and stop <= stops[kept[-1]]:
            continue
        while kept and starts[kept[-1]] >= start:
            kept.pop()
        kept.append(run)
    return np.array(kept, np.int64)
