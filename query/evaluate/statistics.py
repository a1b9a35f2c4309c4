"""How far a mean over facts can be trusted, and whether two methods differ by more than chance.

Facts are what is drawn at random: a resample draws as many facts with replacement, and the same ones for every method
and metric. Notable: the same seed gives the same numbers on every machine (NumPy's PCG64).
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

_AT_ONCE: Final = 1 << 22
"""Numbers that are drawn at once, which bounds memory."""
_ROUNDING: Final = 1e-12
"""Sums of the same numbers with other signs differ by rounding where they are equal."""


class Interval(NamedTuple):
    """A mean over facts and where it lies, as the percentiles of its resamples say."""

    mean: float
    low: float
    high: float
    n: int
    """Facts that the mean is taken over."""


def resampled_means(values: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Return the means (resamples,) of values (n,) drawn with replacement; equal n and seed draw equal places."""
    n, draw = len(values), np.random.default_rng(seed)
    at_once = max(1, _AT_ONCE // n)
    parts = []
    for start in range(0, resamples, at_once):
        places = draw.integers(n, size=(min(at_once, resamples - start), n))
        parts.append(values[places].mean(axis=1))
    return np.concatenate(parts)


def interval(values: Sequence[float], *, resamples: int, confidence: float, seed: int) -> Interval | None:
    """Return the mean of values with its percentile bootstrap interval; None without values."""
    if not len(values):
        return None
    array = np.asarray(values, np.float64)
    means = resampled_means(array, resamples=resamples, seed=seed)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail]).tolist()
    return Interval(float(array.mean()), low, high, len(array))


def sign_flip_p(differences: Sequence[float], *, flips: int, seed: int) -> float:
    """Return the two-sided p-value of a paired permutation test, which asks whether signs are chance.

    Where all assignments of signs are no more than `flips` every one is tried; else as many are drawn, and the
    assignment that was observed counts as one of them, so that p is never 0. Without a difference p is 1.
    """
    values = np.asarray([one for one in differences if one], np.float64)
    n = len(values)
    if not n:
        return 1.0
    observed = abs(values.sum())
    least = observed - _ROUNDING * np.abs(values).sum()
    if n < 63 and 2**n <= flips:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return float(np.count_nonzero(np.abs(signs @ values) >= least) / 2**n)
    draw, as_extreme, at_once = np.random.default_rng(seed), 1, max(1, _AT_ONCE // n)
    for start in range(0, flips, at_once):
        signs = 1 - 2 * draw.integers(2, size=(min(at_once, flips - start), n), dtype=np.int8)
        as_extreme += int(np.count_nonzero(np.abs(signs @ values) >= least))
    return as_extreme / (flips + 1)


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's rank correlation, equal values sharing the mean of their ranks.

    What is the same everywhere orders nothing, and has correlation 0 with whatever it is compared with.
    """
    ranks = [_ranks(np.asarray(values, np.float64)) for values in (one, other)]
    first, second = (values - values.mean() for values in ranks)
    spread = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / spread if spread else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return ranks


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for having asked so many questions, by Holm (1979), in the same order."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, which in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[which]))
        adjusted[which] = least
    return adjusted
