"""Attribution metrics: where the passages that state a fact stand in a method's order.

Everything is a pure function of ranks of *texts*. Passages of equal text share an encoding and therefore a score, so a
text counts once however many passages have it: otherwise ten copies of one passage would fill the first ten ranks, and
whatever breaks their tie would decide a metric. Nothing but the rank decides, not how near two scores are.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

Ranks = Sequence[int]
"""Ranks from 1, ascending, of the texts that state one fact and that a method lists."""


def distinct(keys: Iterable[str]) -> list[str]:
    """Return the keys in order, each where it stands first."""
    return list(dict.fromkeys(keys))


def ranks_of(listed: Iterable[str], gold: Collection[str]) -> tuple[int, ...]:
    """Return the ranks of the texts that state a fact among those listed, of which each counts once."""
    return tuple(rank for rank, key in enumerate(distinct(listed), start=1) if key in gold)


def reciprocal_rank(ranks: Ranks) -> float:
    """Return one over the first rank; 0 when no text that states the fact is listed."""
    return 1 / ranks[0] if ranks else 0.0


def recall(ranks: Ranks, *, k: int) -> float:
    """Return 1 when one of the first k texts states the fact, else 0."""
    return float(bool(ranks) and ranks[0] <= k)


def precision(ranks: Ranks, *, k: int) -> float:
    """Return the share of the first k places that have a text which states the fact; an empty place has none."""
    return sum(rank <= k for rank in ranks) / k


METRICS: Final[Mapping[str, Callable[[Ranks], float]]] = {
    "mrr": reciprocal_rank,
    "recall@1": partial(recall, k=1),
    "recall@10": partial(recall, k=10),
    "recall@100": partial(recall, k=100),
    "precision@10": partial(precision, k=10),
}
"""What is computed for one fact; a metric of a method is the mean over the facts."""


def reaches(metric: str, depth: int) -> bool:
    """Whether a metric can be told of lists that end at a depth."""
    _, _, k = metric.partition("@")
    return not k or int(k) <= depth
