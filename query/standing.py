"""How a score stands among those of random passages: what a trace keeps, so that 0.03 can be read.

Notable: the sample is a rule and not a list: the texts whose hashes come first. Hashes are as good as drawn at random,
so that every question about one state of an encoder is compared with the same texts, and nothing has to be kept of
them. It is drawn from all texts that the encoder has encoded, whatever a trace's filter lets through.
"""

from dataclasses import dataclass
from typing import Final

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.tables import encodings_table
from proponent.store.lake import LakeStore
from proponent.store.scan import scores_at
from proponent.store.snapshots import Snapshot

from .search import Candidates, PassagesOfTexts, ScoredPassage
from .session import Session

SAMPLED: Final = 1000
"""Texts of a sample: their mean is known to 3 % of the spread, and a percentile to a few tenths near its ends."""
_READ: Final = 1 << 16
"""Hashes that are looked at together."""


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
    session: Session,
    at: Snapshot,
    queries: np.ndarray,
    *,
    encoder: str,
    unit_norm: bool,
    norms: np.ndarray | None,
    among: Candidates | None = None,
) -> list[Standing]:
    """Return how random texts score for each query (q, d) float32, whose vector a method has made.

    `norms` are those of the encodings, as in `exact_scan`; the texts of `random_texts` need them, and all candidates.
    With `among`, a sample of these candidates is scored, too, for percentiles.
    """
    encodings = lake.table(encodings_table(encoder), at=at)

    def scores(positions: np.ndarray) -> np.ndarray:
        divisors = None if norms is None else norms[positions]
        return scores_at(encodings, queries, positions=positions, unit_norm=unit_norm, norms=divisors)

    random = scores(random_texts(lake, session, at, encoder=encoder))
    if among is None:
        return [_standing(of_one) for of_one in random.T]
    sampled = _first(encodings, among.rows)
    texts = sampled["text_hash"].to_pylist()
    passages = PassagesOfTexts(session, among.where).of(texts)
    counts = np.array([len(passages[text]) for text in texts], np.int64)
    return [
        _standing(of_one, sampled=of_sample, counts=counts, n_candidates=len(among))
        for of_one, of_sample in zip(random.T, scores(sampled["position"].to_numpy()).T, strict=True)
    ]


def random_texts(lake: LakeStore, session: Session, at: Snapshot, *, encoder: str) -> np.ndarray:
    """Return the places of the texts that scores are compared with among an encoder's encodings (n,), ascending."""
    table = encodings_table(encoder)
    drawn = session.memo.get(("sample", table, at.versions[table]), lambda: _first(lake.table(table, at=at)))
    places: np.ndarray = drawn["position"].to_numpy()
    return places


def _first(encodings: lance.LanceDataset, rows: pa.BooleanArray | None = None) -> pa.Table:
    """Return hash and position of the texts whose hashes come first, of all or of some rows, in stored order."""
    first, start = pa.table({"text_hash": pa.array([], pa.string()), "position": pa.array([], pa.int64())}), 0
    for batch in encodings.scanner(columns=["text_hash"], batch_size=_READ, scan_in_order=True).to_batches():
        here = slice(start, start + batch.num_rows)
        start = here.stop
        read = pa.table({"text_hash": batch.column("text_hash"), "position": np.arange(here.start, here.stop)})
        first = pa.concat_tables([first, read if rows is None else read.filter(rows[here])])
        if first.num_rows > SAMPLED:
            first = first.take(pc.select_k_unstable(first, SAMPLED, [("text_hash", "ascending")]))
    return first.sort_by("position")


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
