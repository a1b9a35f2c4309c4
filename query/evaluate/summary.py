"""From what was found for single facts to means with intervals, splits and tests: pure, and quick to do again."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np

from proponent.schema.settings import EvaluationSettings

from .facts import Fact
from .gold import GOLDS, Gold
from .kinds import kinds_by_rank
from .metrics import METRICS, ranks_of, reaches
from .statistics import Interval, holm, interval, resampled_means, sign_flip_p

KINDS_RANKS: Final = 10
COMPARED: Final = "mrr"
"""The metric that methods are compared by, beside their tail-patch scores."""
_FLIPS: Final = 10
"""Flips of a test for each resample: among many pairs Holm's correction multiplies the least p-value there can be."""
SPLIT: Final = ("mrr", "recall@10")
"""Metrics that are told for each relation and frequency."""
_FREQUENCIES: Final = ((1, 1, "1"), (2, 9, "2 to 9"), (10, 99, "10 to 99"), (100, 1 << 62, "100 and more"))

Orders = Sequence[Sequence[str]]
"""Text hashes that a method lists for every fact."""


def told(found: Interval | None) -> dict[str, Any] | None:
    """Return an interval as the results keep it."""
    return None if found is None else found._asdict()


def of_values(values: Sequence[float], settings: EvaluationSettings) -> dict[str, Any] | None:
    """Return the mean of values over facts with its interval; None without values."""
    return told(interval(values, resamples=settings.resamples, confidence=settings.confidence, seed=settings.seed))


def ranks(orders: Orders, golds: Sequence[Gold], which: str) -> list[list[int] | None]:
    """Return the ranks of the texts that count as found for every fact; None for a fact without such a text."""
    return [
        list(ranks_of(order, texts)) if (texts := gold.texts(which)) else None
        for order, gold in zip(orders, golds, strict=True)
    ]


def metric_values(of_facts: Sequence[Sequence[int] | None], metric: str) -> list[float]:
    """Return a metric of every fact that has something to be found."""
    return [METRICS[metric](found) for found in of_facts if found is not None]


def attribution(
    of_facts: Sequence[Sequence[int] | None],
    facts: Sequence[Fact],
    golds: Sequence[Gold],
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """Return all metrics of one method under one gold, and some of them by relation and by frequency."""
    metrics = {
        name: of_values(metric_values(of_facts, name), settings) if reaches(name, settings.depth) else None
        for name in METRICS
    }
    by_relation = _groups(of_facts, [fact.relation or "no relation given" for fact in facts])
    by_kind = _groups(of_facts, [fact.kind for fact in facts])
    by_frequency = _groups(of_facts, [frequency(gold.n_passages) for gold in golds])
    return {
        "metrics": metrics,
        "by_kind": _split(by_kind, settings),
        "by_relation": _split(by_relation, settings),
        "by_frequency": _split(
            {name: by_frequency[name] for *_, name in (*_FREQUENCIES, (0, 0, "0")) if name in by_frequency}, settings
        ),
    }


def frequency(n_passages: int) -> str:
    """Return in which group of frequencies a fact is that so many passages state."""
    return next((name for least, most, name in _FREQUENCIES if least <= n_passages <= most), "0")


def _groups(of_facts: Sequence[Sequence[int] | None], names: Sequence[str]) -> dict[str, list[Sequence[int]]]:
    groups: dict[str, list[Sequence[int]]] = {name: [] for name in sorted(set(names))}
    for name, found in zip(names, of_facts, strict=True):
        if found is not None:
            groups[name].append(found)
    return {name: found for name, found in groups.items() if found}


def _split(groups: Mapping[str, list[Sequence[int]]], settings: EvaluationSettings) -> dict[str, Any]:
    return {
        name: {metric: of_values(metric_values(found, metric), settings) for metric in SPLIT}
        for name, found in groups.items()
    }


def one_method(
    orders: Orders, facts: Sequence[Fact], golds: Sequence[Gold], settings: EvaluationSettings
) -> dict[str, Any]:
    """Return everything of one method that needs no other one, and the ranks of every fact."""
    of_golds = {which: ranks(orders, golds, which) for which in GOLDS}
    return {
        "attribution": {which: attribution(found, facts, golds, settings) for which, found in of_golds.items()},
        "kinds": kinds_by_rank(orders, golds, ranks=KINDS_RANKS),
        "ranks": of_golds,
    }


def compare(
    values: Mapping[str, Mapping[int, float]], settings: EvaluationSettings, *, measure: str
) -> list[dict[str, Any]]:
    """Compare every pair of methods by their values of the facts that both have, paired.

    `difference` is the first's mean less the second's with the interval of its resamples, `p` that of flipped signs,
    and `p_holm` that one after Holm's correction for all pairs.
    """
    rows = []
    for one, other in combinations(values, 2):
        common = sorted(values[one].keys() & values[other].keys())
        if common:
            differences = np.array([values[one][place] - values[other][place] for place in common])
            rows.append(_compared(one, other, differences, settings, measure))
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
    return rows


def _compared(
    one: str, other: str, differences: np.ndarray, settings: EvaluationSettings, measure: str
) -> dict[str, Any]:
    drawn = resampled_means(differences, resamples=settings.resamples, seed=settings.seed)
    tail = 50 * (1 - settings.confidence)
    low, high = np.percentile(drawn, [tail, 100 - tail]).tolist()
    return {
        "measure": measure,
        "one": one,
        "other": other,
        "difference": float(differences.mean()),
        "low": low,
        "high": high,
        "n": len(differences),
        "p": sign_flip_p(differences.tolist(), flips=_FLIPS * settings.resamples, seed=settings.seed),
    }


def by_place(of_facts: Sequence[Sequence[int] | None], metric: Callable[[Sequence[int]], float]) -> dict[int, float]:
    """Return a metric by the place of the fact, of facts that have something to be found."""
    return {place: metric(found) for place, found in enumerate(of_facts) if found is not None}
