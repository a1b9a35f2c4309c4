"""The best hits so far, on the job of a question that is still being answered."""

import threading
import time
from collections.abc import Callable
from typing import Final

from proponent.query.report import text
from proponent.query.report.content import Side
from proponent.query.search import Found, ScoredPassage
from proponent.store.snapshots import latest_snapshot

from .explorer import Explorer
from .jobs import BestSoFar, Job
from .traced import passages_of

SHOWN: Final = 5
"""Hits of a side."""
EVERY_S: Final = 0.4
"""Between two looks, since each looks up texts; a search that takes no longer shows none."""
_TEXT: Final = 280


class SoFar:
    """Takes the best hits down, now and then, from threads that score."""

    def __init__(self, explorer: Explorer, job: Job) -> None:
        self._explorer, self._job = explorer, job
        self._looking = threading.Lock()
        self._next: float | None = None

    def __call__(self, now: Callable[[], list[Found]]) -> None:
        """Look at them, unless that was a moment ago or another thread does."""
        if not self._looking.acquire(blocking=False):
            return
        try:
            if self._next is None:
                self._next = time.monotonic() + EVERY_S
            elif time.monotonic() >= self._next:
                self._job.best = self._best(now()[0])
                self._next = time.monotonic() + EVERY_S
        finally:
            self._looking.release()

    def _best(self, found: Found) -> tuple[BestSoFar, ...]:
        sides: dict[Side, list[ScoredPassage]] = {"proponent": found.proponents, "opponent": found.opponents}
        first = [(side, hit) for side, hits in sides.items() for hit in hits[:SHOWN]]
        at = latest_snapshot(self._explorer.lake.catalog)
        rows = passages_of(self._explorer, at, [hit.passage_id for _, hit in first])
        return tuple(
            BestSoFar(
                side=side,
                rank=hit.rank,
                score=hit.score,
                passage_id=hit.passage_id,
                text=text.keep_start(row["text"], _TEXT),
                **{name: row[name] for name in ("doc_key", "title", "source", "published", "published_precision")},
            )
            for side, hit in first
            if (row := rows.get(hit.passage_id)) is not None  # withdrawn meanwhile
        )
