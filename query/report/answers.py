"""Answers that were traced in segments, put together again from a report's questions.

Notable: a segment goes on where the prompt and the target of the one before end, and both were searched the same way.
Nothing else is looked at, so that a report shows the same answer however often its questions were asked since.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from . import numbers, wording
from .content import NO_SOURCE, Hit, TracedQuery

LEADING: Final = 3
"""Passages that are named beside a segment."""
CONDITIONED: Final = (
    "Each segment is conditioned on what comes before it: it was traced by itself, as what follows the prompt and all "
    "of the answer before that segment. What is listed for it belongs to this segment given that text, and not to the "
    "answer as a whole. Scores compare within one segment only."
)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of an answer: its place from 1, its question's number in the report, and its first character."""

    place: int
    number: int
    query: TracedQuery
    start: int

    @property
    def text(self) -> str:
        """What it says."""
        return self.query.target

    @property
    def end(self) -> int:
        """Character of the answer behind its last."""
        return self.start + len(self.text)

    @property
    def leading(self) -> tuple[Hit, ...]:
        """The passages that pushed most towards it."""
        return self.query.proponents[:LEADING]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of two or more segments, which joined are its text."""

    prompt: str
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(segment.text for segment in self.segments)


def answers(queries: Sequence[TracedQuery]) -> tuple[Answer, ...]:
    """Return the answers whose segments are among some questions, by their last segments' order."""
    before = _predecessors(queries)
    last = sorted(before.keys() - set(before.values()))
    found = []
    for place in last:
        chain = [place]
        while (earlier := before.get(chain[-1])) is not None:
            chain.append(earlier)
        found.append(_answer(queries, chain[::-1]))
    return tuple(found)


def _predecessors(queries: Sequence[TracedQuery]) -> dict[int, int]:
    """Return the places of segments that go on another, and of that one: of several the nearest of the same search."""
    ending: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for place, query in enumerate(queries):
        if not query.parts and query.target:
            ending[(*_searched(query), query.prompt + query.target)].append(place)
    before = {}
    for place, query in enumerate(queries):
        if not query.parts and query.target and (others := ending.get((*_searched(query), query.prompt))):
            before[place] = min(others, key=lambda one: (queries[one].snapshot != query.snapshot, abs(place - one)))
    return before


def _searched(query: TracedQuery) -> tuple[object, ...]:
    return query.method, query.encoder, query.curvature, query.fused, query.filter, query.k, query.exact


def _answer(queries: Sequence[TracedQuery], chain: Sequence[int]) -> Answer:
    segments, start = [], 0
    for place, at in enumerate(chain, start=1):
        segments.append(Segment(place, at + 1, queries[at], start))
        start += len(queries[at].target)
    return Answer(queries[chain[0]].prompt, tuple(segments))


def told(hit: Hit) -> str:
    """Name a leading passage: its title, its source, its score, and how far that stands out."""
    z = "" if wording.deviation(hit) is None else f", z {hit.z_score:.1f}".replace("-", numbers.MINUS)
    return f"{wording.title_of(hit)} ({hit.source or NO_SOURCE}), {numbers.score(hit.score)}{z}"


def title(queries: Sequence[TracedQuery]) -> str | None:
    """Return the title of a report of one answer and nothing else; None for another."""
    found = answers(queries)
    if len(found) != 1 or len(found[0].segments) != len(queries):
        return None
    return f"Training data behind an answer, in {len(queries)} segments"
