"""Fidelity: how well stored codes keep the order of scores, measured on a sample of an encoder's own vectors.

Notable: the sample's vectors are the queries, too, each against all others. A query keeps its exact components, as it
does in a trace, so what is measured is what a trace loses by the codes.
"""

from typing import Any, Final

import numpy as np

from .codes import dequantise, quantise

SAMPLE: Final = 512
"""Most vectors that a sample has; products of all pairs are taken."""
SMALLEST_SAMPLE: Final = 12
"""With fewer vectors, the ten best of the others would be all of them."""
_TOP: Final = 10


class FidelitySample:
    """The first vectors of a run; texts come in the order of their hashes, so they are drawn at random."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._size = 0
        self._measured = 0

    def offer(self, unit: np.ndarray) -> None:
        """Take unit vectors (n, d) float32 while there is room."""
        part = unit[: SAMPLE - self._size]
        if len(part):
            self._parts.append(part.copy())
            self._size += len(part)

    def measure(self, codes: str, *, against: str, at_least: int = SMALLEST_SAMPLE) -> dict[str, Any] | None:
        """Return the fidelity of a code format, or None where the sample says nothing new.

        That is when it has fewer than `at_least` vectors, or has not grown since it was measured.
        """
        if self._size < max(SMALLEST_SAMPLE, at_least, self._measured + 1):
            return None
        self._measured = self._size
        return fidelity(np.concatenate(self._parts), codes, against=against)


def fidelity(unit: np.ndarray, codes: str, *, against: str) -> dict[str, Any]:
    """Measure a code format on unit vectors (n, d) float32; `against` says what those vectors were stored in before."""
    exact = _scores_of_others(unit, unit)
    kept = _scores_of_others(unit, dequantise(quantise(unit, codes)))
    return {
        "codes": codes,
        "against": against,
        "sample": len(unit),
        "top10_overlap": top_overlap(exact, kept, k=_TOP),
        "rank_correlation": rank_correlation(exact, kept),
    }


def _scores_of_others(queries: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Return the dot products (n, n - 1) of every query with all stored vectors but its own."""
    n = len(queries)
    scores: np.ndarray = queries @ stored.T
    return scores[~np.eye(n, dtype=bool)].reshape(n, n - 1)


def top_overlap(exact: np.ndarray, kept: np.ndarray, *, k: int) -> float:
    """Return the mean share of each row's k highest exact scores (q, n) that are among its k highest kept scores."""
    best = (np.argsort(-scores, axis=1, kind="stable")[:, :k] for scores in (exact, kept))
    return float(np.mean([len(np.intersect1d(*both)) / k for both in zip(*best, strict=True)]))


def rank_correlation(exact: np.ndarray, kept: np.ndarray) -> float:
    """Return Spearman's rank correlation of the rows of two score matrices (q, n), averaged over the rows.

    A row whose kept scores are all equal has lost its order and counts as 0.
    """
    return float(np.mean([_correlation(*map(_ranks, rows)) for rows in zip(exact, kept, strict=True)]))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 0; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared: np.ndarray = (np.cumsum(counts) - (counts + 1) / 2)[place]
    return shared


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    left, right = left - left.mean(), right - right.mean()
    norm = np.sqrt((left @ left) * (right @ right))
    return float(left @ right / norm) if norm else 0.0
