"""Full text: an inverted index over the passages' texts, and which texts match some words best.

Notable: Lance scores with BM25 (k1 = 1.2, b = 0.75), and rows that arrived after the index was built are matched and
scored, too. Words are what the Unicode rules and the dictionaries of ICU find, in lower case and without accents:
nothing belongs to one language, so no word is stemmed or left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.query import MatchQuery
from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.errors import NotFoundError

from .commit import committing
from .lake import LakeStore
from .leases import Lease
from .runs import recorded_run
from .scan import Ranked
from .snapshots import Snapshot

NAME: Final = "full_text"
KIND: Final = "full text"
TOKENIZER: Final[dict[str, Any]] = {
    "base_tokenizer": "icu/split",
    "lower_case": True,
    "ascii_folding": True,
    "stem": False,
    "remove_stop_words": False,
    "max_token_length": 40,
    "with_position": False,
}
"""How texts become words; an index that was built otherwise is built anew."""
_FIRST: Final = 256
_MORE: Final = 8
"""Passages that are asked for at first, and by how many times more when those do not suffice."""


@dataclass(frozen=True)
class FullTextBuild:
    """What building the index did."""

    rows: int
    """Passages that it covers."""
    added: int
    """Of them, those that it did not cover before."""


def build_full_text(lake: LakeStore, *, under: Sequence[Lease] = ()) -> FullTextBuild:
    """Index the passages' texts, or add those that arrived since; publish nothing when there is nothing to do.

    An index that still counts passages which are gone is built anew, so that no score and no file keeps any of them.
    `under` are locks that are held already. Raises NotFoundError for a lake without passages.
    """
    with recorded_run(lake.catalog, "index", {"kind": KIND}) as run, committing(lake, under=under) as committer:
        passages = committer.as_published("passages")
        rows = added = passages.count_rows()
        if not rows:
            raise NotFoundError("the lake has no passages to index; add documents with `proponent ingest`")
        described = _described(passages)
        if described is None or _is_outdated(lake, passages, described):
            passages.create_scalar_index("text", "INVERTED", name=NAME, replace=True, **TOKENIZER)
        else:
            added = int(_statistics(passages)["num_unindexed_rows"])
            if added:
                passages.optimize.optimize_indices(index_names=[NAME])
        run.counts = {"rows": rows, "added": added}
        if added:  # counted with the snapshot, so that the next build knows what this one covers whatever happens
            told = models.Run(run_id=run.run_id, counts=run.counts)
            committer.publish(run.run_id, [], adopt=["passages"], amend=[told])
    return FullTextBuild(rows, added)


def had_full_text(lake: LakeStore) -> bool:
    """Return whether the index was ever built; writing a table anew loses it."""
    return _covered(lake) is not None


def _covered(lake: LakeStore) -> int | None:
    """Return how many passages the last build covered."""
    of_kind = select(models.Run).where(models.Run.kind == "index").order_by(models.Run.started_at.desc())
    with lake.catalog.read() as session:
        builds = (run.counts for run in session.scalars(of_kind) if run.settings.get("kind") == KIND)
        return next((counts["rows"] for counts in builds if "rows" in counts), None)


def has_full_text(lake: LakeStore, at: Snapshot) -> bool:
    """Return whether a snapshot has the index."""
    return _described(lake.table("passages", at=at)) is not None


def open_full_text(lake: LakeStore, at: Snapshot) -> lance.LanceDataset:
    """Return the passages of a snapshot, to be matched. Raises NotFoundError when they have no full-text index.

    Lance would read all texts without one, and cut them into words in a way of its own.
    """
    passages = lake.table("passages", at=at)
    if _described(passages) is None:
        raise NotFoundError(
            f"snapshot {at.snapshot_id} has no full-text index; build one with `proponent index`, "
            "which the next snapshot has"
        )
    return passages


def match_texts(
    passages: lance.LanceDataset, query: str, *, passes: Callable[[pa.Array], np.ndarray], k: int
) -> Ranked:
    """Return the k best of some texts for the words of a query, and all that are as good as the last of them.

    `passes` says of text hashes (n,) which of them are allowed, (n,) bool; what it raises is raised. A text that has
    several passages has the score of the best, since passages that the index does not cover yet are scored by newer
    counts of words. A score depends on no other text that is allowed, so what is asked for is widened until enough of
    them are found.
    """
    limit = max(_FIRST, _MORE * k)
    while True:
        found = passages.to_table(
            columns=["text_hash", "_score"], full_text_query=MatchQuery(query, "text"), limit=limit
        )
        scores = found["_score"].to_numpy()
        complete = found.num_rows < limit
        wanted = passes(found["text_hash"]) & (scores > 0)
        # Of those that score like the last row, others may be missing.
        sure = wanted if complete else wanted & (scores > scores.min())
        best = _best(found["text_hash"].to_numpy()[sure], scores[sure])
        if complete or len(best.scores) >= k:
            return _first(best, k)
        limit *= _MORE


def match_passages(passages: lance.LanceDataset, query: str, *, most: int) -> pa.Table:
    """Return doc_id, passage_id and _score of the passages that match the words of a query best, best first."""
    found = passages.to_table(
        columns=["doc_id", "passage_id", "_score"], full_text_query=MatchQuery(query, "text"), limit=most
    )
    found = found.filter(pc.greater(found["_score"], 0))
    return found.sort_by([("_score", "descending"), ("passage_id", "ascending")])


def _best(keys: np.ndarray, scores: np.ndarray) -> Ranked:
    order = np.lexsort((keys.astype(str), -scores))
    _, firsts = np.unique(keys[order].astype(str), return_index=True)
    kept = order[np.sort(firsts)]
    return Ranked(keys[kept].tolist(), scores[kept].astype(np.float64).tolist())


def _first(found: Ranked, k: int) -> Ranked:
    n = k
    while k <= n < len(found.scores) and found.scores[n] == found.scores[k - 1]:
        n += 1
    return Ranked(found.keys[:n], found.scores[:n])


def _described(passages: lance.LanceDataset) -> Any | None:
    return next((index for index in passages.describe_indices() if index.name == NAME), None)


def _statistics(passages: lance.LanceDataset) -> dict[str, Any]:
    statistics: dict[str, Any] = passages.stats.index_stats(NAME)
    return statistics


def _is_outdated(lake: LakeStore, passages: lance.LanceDataset, described: Any) -> bool:
    """Return whether an index cuts texts otherwise, or goes on counting the words of passages that are gone."""
    otherwise = any(described.details.get(name) != value for name, value in TOKENIZER.items())
    return otherwise or _statistics(passages)["num_indexed_rows"] != _covered(lake)
