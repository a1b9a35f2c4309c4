"""MinHash and LSH: which texts may be alike, without comparing every two.

A signature has `PERMUTATIONS` values, each of which two texts share with a probability equal to the Jaccard similarity
J of their shingles. Cut into b bands of r values, two signatures have a band in common with the probability
1 - (1 - J^r)^b (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4).

Notable: signatures are never stored and decide nothing alone: whoever has a band in common is compared shingle by
shingle.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple, Self

import numpy as np
from rensa import RMinHash

from .shingles import mixed

PERMUTATIONS: Final = 256
MISSED: Final = 1e-3
"""Most probability with which two texts exactly as alike as the threshold have no band in common."""
_SEED: Final = 1


class Bands(NamedTuple):
    """How signatures are cut: b bands of r values."""

    bands: int
    rows: int

    @classmethod
    def for_threshold(cls, threshold: float) -> Self:
        """Return the cut with the longest bands, hence the fewest needless comparisons, that misses few enough."""
        cuts = (cls(PERMUTATIONS // rows, rows) for rows in range(PERMUTATIONS, 0, -1))
        return next(cut for cut in cuts if cut.missed(threshold) <= MISSED)

    def missed(self, similarity: float) -> float:
        """Return the probability that two texts of a similarity have no band in common."""
        return float((1 - similarity**self.rows) ** self.bands)

    def keys(self, sets: Sequence[np.ndarray]) -> np.ndarray:
        """Return a hash of every band of some texts' signatures: (texts, b) uint64.

        `sets` are the texts' shingles. Equal values in different bands have different hashes.
        """
        signatures = _signatures(sets)[:, : self.bands * self.rows].reshape(len(sets), self.bands, self.rows)
        keys = np.broadcast_to(np.arange(self.bands, dtype=np.uint64), (len(sets), self.bands))
        for row in range(self.rows):
            keys = mixed(keys, signatures[:, :, row])
        return keys


def _signatures(sets: Sequence[np.ndarray]) -> np.ndarray:
    """Return the signatures (texts, PERMUTATIONS) uint64 of some texts' shingles."""
    ends = np.array([0, *accumulate(map(len, sets))], np.uint64)
    found = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(sets), ends, PERMUTATIONS, _SEED)
    return np.array(found.to_rows(), np.uint64)
