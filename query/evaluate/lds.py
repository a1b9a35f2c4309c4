"""The linear datamodelling score (LDS): how well a method's scores foretell what models trained on subsets say.

For every fact, the sums of a method's scores over the texts of each subset are compared, by Spearman's rank
correlation, with the target's log-probability under the model that was trained on that subset (arXiv:2303.14186).

Notable: a text leaves with all its passages, and counts as often as it has passages. Subset i is the same whatever the
number of subsets, so that more can be added later.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from .rankings import Resolved, Searched
from .scores import Progress, each_scores
from .statistics import spearman


def subsets(n_texts: int, n: int, fraction: float, *, seed: int) -> np.ndarray:
    """Return which texts each subset has, (subsets, texts) bool; every subset has as many."""
    size = min(max(1, round(fraction * n_texts)), n_texts - 1)
    members = np.zeros((n, n_texts), bool)
    for place in range(n):
        drawn = np.random.default_rng([seed, n_texts, place, 3]).choice(n_texts, size=size, replace=False)
        members[place, drawn] = True
    return members


def sums(one: Resolved, searched: Searched, weights: np.ndarray, progress: Progress) -> np.ndarray:
    """Return the sums of a method's scores (facts, subsets) by each subset's weights of the texts (subsets, texts)."""
    return np.concatenate([scores @ weights.T for scores in each_scores(one, searched, progress)])


def correlations(predicted: np.ndarray, measured: np.ndarray) -> list[float]:
    """Return the rank correlation of every fact's sums (facts, subsets) with what models say, in the same shape."""
    return [spearman(one, other) for one, other in zip(predicted, measured, strict=True)]


def between_seeds(measured: Sequence[np.ndarray]) -> list[float]:
    """Return every fact's mean rank correlation between two seeds, from the outputs (facts, subsets) of each.

    What training leaves to chance bounds every method's score. Empty for one seed.
    """
    pairs: list[Any] = [correlations(one, other) for one, other in combinations(measured, 2)]
    return np.mean(pairs, axis=0).tolist() if pairs else []
