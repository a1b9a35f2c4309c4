r"""Where sentences are, found in many texts at once.

Notable: a sentence ends where this expression, searched from the left, has a match, white space that follows included:

    [.!?]["'”’)\]]*\s+ | [。！？] | \n+

A search takes a step for every character, so the same is worked out on arrays of UTF-16 units, or of bytes where all is
ASCII: all of the characters that the expression names, and all white space, are one unit. The tests hold both to be
equal.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_PLAIN_STOPS: Final = np.array([ord(one) for one in ".!?\n"], np.uint8)
_STOPS: Final = np.array([ord(one) for one in ".!?\n。！？"], np.uint16)
_LINE: Final = ord("\n")
_FIRST_WIDE: Final = 0x80
_BEYOND: Final = 0xFFFF
"""Stands for all characters that take two units; none of them means anything here."""
_SLICE: Final = 1 << 16
"""Units that are compared at a time, so that they stay in the processor's cache."""
_ROUNDS: Final = 16
_WINDOW: Final = 1 << 12


def _class(characters: str) -> Array:
    """Return for every unit whether it is one of some characters, as booleans (65536,)."""
    found = np.zeros(1 << 16, bool)
    found[[ord(one) for one in characters]] = True
    return found


_CLOSING: Final = _class("\"'”’)]")
_LINES: Final = _class("\n")
_WHITE: Final = _class("".join(chr(one) for one in range(1 << 16) if chr(one).isspace()))


class Sentences(NamedTuple):
    """Sentences of several texts, in order, without white space around them."""

    text: Array
    """(sentences,) Which of the texts each is in."""
    starts: Array
    """(sentences,) First character, in the texts joined."""
    stops: Array
    """(sentences,) Character after the last one."""
    ends: Array
    """(ends,) All places where a sentence ends, after the white space that follows it, in ascending order."""


class JoinedTexts:
    """Several texts as one, with a NUL between each two, which is in no end of a sentence."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Join texts; characters are counted in what is joined."""
        self.joined = "\0".join(texts)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        self.stops = np.cumsum(lengths + 1) - 1
        self.starts = self.stops - lengths
        self._units = _units(self.joined)

    def trimmed(self) -> tuple[Array, Array]:
        """Return where the texts start and stop, (texts,) each, without white space around them."""
        return self.stripped(self.starts, self.stops)

    def sentences(self) -> Sentences:
        """Return the sentences of all texts."""
        ends = _ends(self._units)
        bounds = np.sort(np.concatenate([self.starts, ends]), kind="stable")
        text = np.searchsorted(self.starts, bounds, "right") - 1
        next_bounds = np.append(bounds[1:], len(self.joined))
        starts, stops = self.stripped(bounds, np.minimum(next_bounds, self.stops[text]))
        some = starts < stops
        return Sentences(text[some], starts[some], stops[some], ends)

    def stripped(self, starts: Array, stops: Array) -> tuple[Array, Array]:
        """Return starts and stops of runs, (runs,) each, without white space around them."""
        starts = _moved(self._units, starts, stops, _WHITE, step=1)
        return starts, _moved(self._units, stops, starts, _WHITE, step=-1)


def _units(text: str) -> Array:
    """Return a unit for every character, (characters,): uint8 where all are ASCII, else uint16."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    units: Array = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")
    if len(units) != len(text):
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        units = np.minimum(codes, _BEYOND).astype(np.uint16)
    return units


def _ends(units: Array) -> Array:
    """Return the ends of the expression's matches."""
    stops = _places(units)
    kinds = units[stops]
    lines = kinds == _LINE
    begins = ~lines | (stops == 0) | (units[stops - 1] != _LINE)  # a run of line ends is one match
    stops, kinds, lines = stops[begins], kinds[begins], lines[begins]
    ends, last = stops + 1, np.broadcast_to(len(units), len(stops))
    ends[lines] = _moved(units, ends[lines], last[lines], _LINES, step=1)
    plain = np.flatnonzero(~lines & (kinds < _FIRST_WIDE))
    closed = _moved(units, ends[plain], last[plain], _CLOSING, step=1)
    spaced = _moved(units, closed, last[plain], _WHITE, step=1)
    ends[plain] = np.where(spaced > closed, spaced, 0)
    # What lies within an earlier match begins none.
    reached = np.maximum.accumulate(np.append(0, ends[:-1]))
    kept: Array = ends[(ends > 0) & (stops >= reached)]
    return kept


def _places(units: Array) -> Array:
    """Return the places of all characters with which an end of a sentence can begin."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(units), _SLICE):
        some = units[start : start + _SLICE]
        stops = _STOPS if units.itemsize > 1 and some.max() >= _FIRST_WIDE else _PLAIN_STOPS
        mask = some == stops[0]
        for stop in stops[1:]:
            mask |= some == stop
        found.append(np.flatnonzero(mask) + start)
    return np.concatenate(found)


def _moved(units: Array, places: Array, limits: Array, of: Array, *, step: int) -> Array:
    """Return how far each place gets, forwards or backwards, over units of a class, its limit at most."""
    at = places.copy()
    ahead = min(step, 0)
    moving = np.flatnonzero(at != limits)
    for _ in range(_ROUNDS):
        moving = moving[of[units[at[moving] + ahead]]]
        if not len(moving):
            return at
        at[moving] += step
        moving = moving[at[moving] != limits[moving]]
    for one in moving.tolist():  # long runs, each by itself
        at[one] = _run_end(units, int(at[one]), int(limits[one]), of, step)
    return at


def _run_end(units: Array, at: int, limit: int, of: Array, step: int) -> int:
    while at != limit:
        window = units[at : min(at + _WINDOW, limit)] if step > 0 else units[max(at - _WINDOW, limit) : at][::-1]
        others = np.flatnonzero(~of[window])
        if len(others):
            return at + step * int(others[0])
        at += step * len(window)
    return at
