"""Two traces side by side: their hits joined by passage, and how far each moved from the one to the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .content import Hit, Side, TracedQuery


class Place(NamedTuple):
    """Where a trace lists a passage."""

    side: Side
    rank: int
    score: float
    percentile: float | None = None
    z_score: float | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """A passage that one of two traces lists, or both of them; None where a trace does not list it."""

    hit: Hit
    first: Place | None
    second: Place | None

    @property
    def moved(self) -> int | None:
        """Ranks that it rose (or fell, below zero) from the first to the second, on the same side."""
        if self.first is None or self.second is None or self.first.side != self.second.side:
            return None
        return self.first.rank - self.second.rank


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two traces list, joined. `tau` is Kendall's tau-b of the proponents that both list, None below two."""

    first: TracedQuery
    second: TracedQuery
    proponents: tuple[Compared, ...]
    opponents: tuple[Compared, ...]
    tau: float | None

    @property
    def same_question(self) -> bool:
        """Whether both answer one question."""
        return self.first.query_id == self.second.query_id

    def overlap(self, side: Side, n: int) -> int:
        """Return how many passages are among the first n of a side in both traces."""
        return sum(
            row.first.rank <= n and row.second.rank <= n
            for row in (*self.proponents, *self.opponents)
            if row.first and row.second and row.first.side == row.second.side == side
        )


def compare(first: TracedQuery, second: TracedQuery) -> Comparison:
    """Join the hits of two traces by passage. A passage that is a proponent of either stands among the proponents."""
    rows = [Compared(hit, *places) for hit, places in _joined(first, second)]
    towards = [row for row in rows if "proponent" in (_side(row.first), _side(row.second))]
    away = [row for row in rows if row not in towards]
    return Comparison(first, second, tuple(sorted(towards, key=_order)), tuple(sorted(away, key=_order)), _tau(towards))


def _joined(first: TracedQuery, second: TracedQuery) -> list[tuple[Hit, tuple[Place | None, Place | None]]]:
    listed = [{hit.passage_id: hit for hit in (*query.opponents, *query.proponents)} for query in (first, second)]
    ids = dict.fromkeys([*listed[0], *listed[1]])
    return [
        (listed[0].get(one) or listed[1][one], (_place(listed[0].get(one)), _place(listed[1].get(one)))) for one in ids
    ]


def _place(hit: Hit | None) -> Place | None:
    return None if hit is None else Place(hit.side, hit.rank, hit.score, hit.percentile, hit.z_score)


def _side(place: Place | None) -> Side | None:
    return place.side if place else None


def _order(row: Compared) -> tuple[bool, int, int, str]:
    """Order by the first trace's ranks, then what the second alone lists by its own."""
    return (
        row.first is None,
        row.first.rank if row.first else 0,
        row.second.rank if row.second else 0,
        row.hit.passage_id,
    )


def _tau(rows: Sequence[Compared]) -> float | None:
    pairs = [(row.first.rank, row.second.rank) for row in rows if row.first and row.second and row.moved is not None]
    signs = [
        (a - c) * (b - d) for place, (a, b) in enumerate(pairs) for c, d in pairs[place + 1 :]
    ]  # ranks have no ties
    return sum(1 if sign > 0 else -1 for sign in signs) / len(signs) if signs else None
