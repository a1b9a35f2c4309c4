"""What methods list: how many of the texts at each rank state the fact, name its entities, or have nothing of it."""

from collections import Counter
from collections.abc import Sequence

from .gold import KINDS, Gold


def kinds_by_rank(orders: Sequence[Sequence[str]], golds: Sequence[Gold], *, ranks: int) -> list[dict[str, float]]:
    """Return for each of the first ranks the share of every kind among the texts that stand there.

    Facts that do not say who their subject is are left out. A rank at which nothing is listed has no shares.
    """
    asked = [(order, gold) for order, gold in zip(orders, golds, strict=True) if gold.has_entities]
    shares = []
    for place in range(ranks):
        counts = Counter(gold.kind(order[place]) for order, gold in asked if place < len(order))
        total = counts.total()
        shares.append({kind: counts[kind] / total for kind in KINDS} if total else {})
    return shares
