"""How a score stands among those of random passages: what a trace keeps, so that 0.03 can be read.

Notable: the sample is a rule and not a list: the texts whose hashes come first. Hashes are as good as drawn at random,
so that every question about one state of an encoder is compared with the same texts, and nothing has to be kept of
them. It is drawn from all texts that the encoder has encoded, whatever a trace's filter lets through.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proponent.encode.methods import Method
from proponent.schema.tables import encodings_table
from proponent.store.lake import LakeStore
from proponent.store.scan import all_scores, norms_of, scores_at
from proponent.store.snapshots import Snapshot

from .curvatures import NamedCurvature
from .memo import Memo
from .search import Candidates, ScoredPassage

SAMPLED: Final = 1000
"""Texts of a sample: their mean is known to 3 % of the spread, and a percentile to a few tenths near its ends."""


@dataclass(frozen=True)
class Standing:
    """What the scores of random texts are like for one query."""

    n: int
    """Texts of the sample."""
    mean: float | None
    """Mean of their scores; None where there are none."""
    sd: float | None
    """Standard deviation of their scores; None where it is 0 or unknown."""
    ordered: np.ndarray
    """Scores of a sample of the candidates' texts, ascending (m,); empty unless it was asked for."""
    below: np.ndarray
    """Candidates of the sample that have the first so many of these texts, (m + 1,)."""
    whole: bool
    """Whether these are all candidates, and not a sample of them."""

    def z_score(self, score: float) -> float | None:
        """Return by how many standard deviations a score is above the mean of random texts."""
        return None if self.sd is None or self.mean is None else (score - self.mean) / self.sd

    def percentile(self, score: float) -> float:
        """Return the per cent of the candidates that score lower, as their sample says.

        The passage itself counts as one of them, so that none is above all of those that nobody has scored.
        """
        lower = self.below[np.searchsorted(self.ordered, score)]
        return float(100 * lower / (self.below[-1] + (not self.whole)))

    def placed(self, hit: ScoredPassage) -> ScoredPassage:
        """Return a hit with the percentile that the sample gives it."""
        return hit._replace(percentile=self.percentile(hit.score))


def standings(
    lake: LakeStore,
    at: Snapshot,
    queries: np.ndarray,
    *,
    encoder: str,
    method: Method,
    curvature: NamedCurvature,
    memo: Memo,
    among: Candidates | None = None,
) -> list[Standing]:
    """Return how random texts score for each query (q, d) float32, whose vector the method has made.

    With `among`, a sample of these candidates is scored, too, for percentiles.
    """
    table = encodings_table(encoder)
    encodings = lake.table(table, at=at)
    drawn = memo.get(("sample", table, at.versions[table]), lambda: _draw(encodings))
    texts, positions = drawn["text_hash"].combine_chunks(), drawn["position"].to_numpy()

    def norms(of: pa.Array) -> pa.Table | None:
        return curvature.known_norms(lake, at, allowed=of) if method.unit_norm else None

    random = scores_at(
        encodings, queries, positions=positions, unit_norm=method.unit_norm, norms=norms_of(texts, norms(texts))
    )
    if among is None:
        return [_standing(of_one) for of_one in random.T]
    sampled = _first(pc.unique(among.text_hashes))
    keys, scores = all_scores(encodings, queries, allowed=sampled, unit_norm=method.unit_norm, norms=norms(sampled))
    counts = _passages(keys, among)
    return [
        _standing(of_one, sampled=of_sample, counts=counts, n_candidates=len(among))
        for of_one, of_sample in zip(random.T, scores.T, strict=True)
    ]


def _draw(encodings: lance.LanceDataset) -> pa.Table:
    """Return hashes and positions of the sample of a table's texts, in stored order."""
    texts = encodings.scanner(columns=["text_hash"], scan_in_order=True).to_table()["text_hash"].combine_chunks()
    positions = np.flatnonzero(pc.is_in(texts, value_set=_first(texts)).to_numpy(zero_copy_only=False))
    return pa.table({"text_hash": texts.take(positions), "position": positions})


def _first(texts: pa.Array) -> pa.Array:
    """Return the first texts in the order of their hashes."""
    if len(texts) <= SAMPLED:
        return texts
    return texts.take(pc.select_k_unstable(texts, SAMPLED, [("", "ascending")]))


def _passages(keys: pa.Array, candidates: Candidates) -> np.ndarray:
    """Return how many candidates have each text, (n,) int64."""
    having = candidates.text_hashes.filter(pc.is_in(candidates.text_hashes, value_set=keys))
    counted = Counter(having.to_pylist())
    return np.array([counted[key] for key in keys.to_pylist()], np.int64)


def _standing(
    random: np.ndarray,
    *,
    sampled: np.ndarray = np.empty(0, np.float32),  # noqa: B008 - never changed
    counts: np.ndarray = np.empty(0, np.int64),  # noqa: B008
    n_candidates: int = 0,
) -> Standing:
    random, order = random.astype(np.float64), np.argsort(sampled)
    sd = float(random.std(ddof=1)) if len(random) > 1 else 0.0
    return Standing(
        n=len(random),
        mean=float(random.mean()) if len(random) else None,
        sd=sd or None,
        ordered=sampled[order],
        below=np.concatenate([[0], np.cumsum(counts[order])]),
        whole=int(counts.sum()) == n_candidates,
    )
