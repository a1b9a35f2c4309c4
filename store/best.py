"""The best of many values, kept while they pass by.

Notable: most of what passes is below what is kept, so a comparison with one number for each query is all that is done
for most values. What passes that is gathered and sorted some thousands at a time.
"""

from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa

_GATHERED: Final = 4096
"""Least number of values that are sorted at a time."""


class Best:
    """The k highest values for each of some queries, equal values in the order of their keys."""

    def __init__(self, *, k: int, n_queries: int) -> None:
        self._k = k
        self._floor = np.full(n_queries, -np.inf, np.float32)
        """What a value must reach to be among the k highest of those seen, for each query."""
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        """Pieces of query, key in UTF-8, and value."""
        self._n_found = 0
        self._n_kept = 0

    def offer(self, keys: pa.Array, values: np.ndarray) -> None:
        """Offer values (n, q) float32 with their keys (n,), none of which was offered before."""
        n, n_queries = values.shape
        worth = values >= self._floor
        n_worth = int(np.count_nonzero(worth))
        if n_worth > 2 * self._k * n_queries:  # the first values, mostly
            self._floor = np.maximum(self._floor, np.partition(values, n - self._k, axis=0)[n - self._k])
            worth = values >= self._floor
            n_worth = int(np.count_nonzero(worth))
        if not n_worth:
            return
        places, queries = np.nonzero(worth)
        rows, which = np.unique(places, return_inverse=True)
        self._found.append((queries, _bytes(keys.take(pa.array(rows)))[which], values[places, queries]))
        self._n_found += n_worth
        if self._n_found - self._n_kept >= max(_GATHERED, self._k * n_queries):
            self._sort()

    def ranked(self) -> list[tuple[list[str], np.ndarray]]:
        """Return keys and values (at most k,) float32 for each query, the highest first."""
        self._sort()
        ((queries, keys, values),) = self._found
        ends = np.searchsorted(queries, np.arange(len(self._floor) + 1))
        names = [key.decode() for key in keys.tolist()]
        return [(names[a:b], values[a:b]) for a, b in pairwise(ends)]

    def _sort(self) -> None:
        nothing = (np.empty(0, np.int64), np.empty(0, "S1"), np.empty(0, np.float32))
        queries, keys, values = (np.concatenate(parts) for parts in zip(nothing, *self._found, strict=True))
        order = np.lexsort((-values, queries))
        queries, keys, values = queries[order], keys[order], values[order]
        same = (queries[1:] == queries[:-1]) & (values[1:] == values[:-1])
        if same.any():  # keys cost more than numbers, so only those that matter are compared
            tied = np.concatenate([same, [False]]) | np.concatenate([[False], same])
            alphabetical = np.zeros(len(keys), np.int64)
            alphabetical[tied] = np.unique(keys[tied], return_inverse=True)[1]
            keys = keys[np.lexsort((alphabetical, -values, queries))]
        rank = np.arange(len(queries)) - np.searchsorted(queries, queries)
        kept, last = rank < self._k, rank == self._k - 1
        self._floor[queries[last]] = values[last]
        self._found = [(queries[kept], keys[kept], values[kept])]
        self._n_found = self._n_kept = int(np.count_nonzero(kept))


def _bytes(keys: pa.Array) -> np.ndarray:
    """Return keys in UTF-8, whose bytes are in the order of the alphabet."""
    return np.array(keys.cast(pa.binary()).to_pylist(), "S")
