"""Finding the passages of highest and lowest influence: candidates by filter, then exact scores.

Notable: a filter is applied before the search, never to its result. An approximate search
only proposes candidates; what it returns is scored exactly, and rows that the index has not seen are always among the
candidates. What is kept of all passages is a bit for each encoding; passages are looked up for the texts that were
found.
"""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.errors import FilterError, NotFoundError, SqlError
from proponent.schema.settings import ScanSettings
from proponent.schema.tables import encodings_table
from proponent.store.indexes import Proposer
from proponent.store.lake import LakeStore
from proponent.store.matching import marked, matched, rows_of
from proponent.store.rows import AT_ONCE
from proponent.store.scan import Ranked, ScanResult, exact_scan, in_list
from proponent.store.shards import scan_encodings
from proponent.store.snapshots import Snapshot

from .filter import Filter, parse_filter
from .recall import UsableIndex
from .session import Session

T = TypeVar("T")


@dataclass(frozen=True)
class Candidates:
    """Passages that may be hits: they pass the filter and have an encoding."""

    n_passages: int
    rows: pa.BooleanArray
    """Which of the encodings are of their texts, (n,) in stored order."""
    where: str | None
    """The filter."""

    def __len__(self) -> int:
        return self.n_passages

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return int(self.rows.nbytes)


class ScoredPassage(NamedTuple):
    """A hit before it is stored."""

    passage_id: str
    rank: int
    score: float
    percentile: float | None
    """Per cent of the candidates that score lower; unknown when not every candidate was scored."""


class Found(NamedTuple):
    """Both sides of a search, best first."""

    proponents: list[ScoredPassage]
    opponents: list[ScoredPassage]


SoFar = Callable[[Callable[[], list[Found]]], object]
"""Is handed, again and again, what gives the hits of each query among the texts that were scored so far.

Their percentiles are as if all others scored lower, or higher for opponents.
"""


def searched_tables(where: str | None) -> list[str]:
    """Return the tables that decide which passages pass a filter."""
    marks = ["near_duplicates"] if "near_duplicate" in (where or "").lower() else []
    return ["documents", "passages", "mentions", *marks]


def passing(session: Session, where: str | None) -> pa.Table:
    """Return passage_id, text_hash and doc_id of the passages that pass a filter.

    Raises FilterError for a filter that the gate or the data refuse.
    """
    return _read_passing(session, where, lambda rows: rows.to_arrow_table())


def count_passing(session: Session, where: str | None) -> int:
    """Return how many passages pass a filter. Raises FilterError."""
    return _read_passing(session, where, lambda rows: int(rows.count("*").fetchall()[0][0]))


def _read_passing(
    session: Session,
    where: str | None,
    read: Callable[[duckdb.DuckDBPyRelation], T],
    *,
    texts: pa.Array | None = None,
) -> T:
    """Return what `read` makes of the passages that pass a filter, or of those that have some texts."""
    checked = parse_filter(where) if where is not None else None
    predicate = checked.sql if checked else "true"
    if texts is not None:
        predicate = f"({predicate}) AND {in_list('text_hash', texts)}"  # which Lance looks up by itself
    try:
        return session.trusted_read(_relation(checked), read, predicate=predicate)
    except SqlError as error:  # the gate knows types, not values
        hint = "; TRY_CAST makes NULL of what cannot be converted" if "Could not convert" in str(error) else ""
        raise FilterError(f"the filter cannot be applied: {error}{hint}") from error


class PassagesOfTexts:
    """The passages of some texts that pass a filter, each looked up once; for several threads."""

    def __init__(self, session: Session, where: str | None) -> None:
        self._session, self._where = session, where
        self._known: dict[str, list[str]] = {}
        self._looking = threading.Lock()

    def of(self, texts: Iterable[str]) -> dict[str, list[str]]:
        """Return passage_ids by text hash, with none for texts that have none. Raises FilterError."""
        with self._looking:
            asked = set(texts)
            new = sorted(asked - self._known.keys())
            for start in range(0, len(new), AT_ONCE):
                self._known |= self._look_up(new[start : start + AT_ONCE])
            return {text: self._known[text] for text in asked}

    def _look_up(self, texts: list[str]) -> dict[str, list[str]]:
        rows = _read_passing(
            self._session, self._where, lambda rows: rows.to_arrow_table(), texts=pa.array(texts, pa.string())
        )
        found: dict[str, list[str]] = {text: [] for text in texts}
        for passage, text in zip(rows["passage_id"].to_pylist(), rows["text_hash"].to_pylist(), strict=True):
            found[text].append(passage)
        return found


def _relation(checked: Filter | None) -> str:
    """Return the query that joins no more than a filter names: a join of all passages takes longer than their scan."""
    if checked is None or not (checked.uses_documents or checked.uses_entities):
        return "candidates"
    return "candidates_with_entities" if checked.uses_entities else "candidates_with_documents"


def documents_passing(session: Session, where: str) -> pa.Array:
    """Return the ids of the documents that have a passage which passes a filter. Raises FilterError."""
    return pc.unique(passing(session, where)["doc_id"].combine_chunks())


def find_candidates(lake: LakeStore, session: Session, at: Snapshot, *, encoder: str, where: str | None) -> Candidates:
    """Return the passages that pass a filter and are encoded.

    Raises FilterError as `passing` does, NotFoundError when nothing is encoded.
    """
    table = encodings_table(encoder)
    if not at.has(table):
        raise NotFoundError(f"encoder {encoder!r} has encoded nothing yet; run `proponent encode`")

    def joined() -> Candidates:
        encodings, n_passages = lake.table(table, at=at), 0

        def read(rows: duckdb.DuckDBPyRelation) -> pa.BooleanArray:
            return marked(encodings.count_rows(), places(rows.project("text_hash").to_arrow_reader()))

        def places(texts: pa.RecordBatchReader) -> Iterator[pa.Array]:
            nonlocal n_passages
            for batch in matched(encodings, texts):
                n_passages += batch.num_rows
                yield batch.column("place")

        rows = _read_passing(session, where, read)
        return Candidates(n_passages, rows, where)

    # Every trace makes a new snapshot, of which no other table changes.
    versions = tuple(at.versions.get(name) for name in (*searched_tables(where), table))
    return session.memo.get(("candidates", table, where, versions), joined)


def search(
    lake: LakeStore,
    session: Session,
    at: Snapshot,
    *,
    encoder: str,
    queries: np.ndarray,
    candidates: Candidates,
    k: int,
    unit_norm: bool,
    index: UsableIndex | None = None,
    norms: np.ndarray | None = None,
    scan: ScanSettings | None = None,
    progress: Callable[[int], object] = lambda _n: None,
    so_far: SoFar | None = None,
) -> list[Found]:
    """Return the k highest and k lowest candidates for each query (q, d) float32.

    `norms` of the encodings under a curvature divide their scores, as in `exact_scan`; an index knows none of them, and
    only proposes what is scored exactly then. `progress` is told how many texts were scored; `so_far` is for a search
    without an index.
    Only positive scores make a proponent and only negative ones an opponent, so a side may have fewer than k.
    """
    results: list[ScanResult] = []
    how: Any = {"k": k, "unit_norm": unit_norm, "norms": norms, "settings": scan, "progress": progress}
    n_scored = len(candidates) if index is None else None
    passages = PassagesOfTexts(session, candidates.where)

    def found(results: list[ScanResult]) -> list[Found]:
        by_text = passages.of(key for result in results for side in result for key in side.keys)
        return [
            Found(
                ranked(result.top, by_text, k=k, n=n_scored, sign=1),
                ranked(result.bottom, by_text, k=k, n=n_scored, sign=-1),
            )
            for result in results
        ]

    if index is None:
        told = None if so_far is None else lambda now: so_far(lambda: found(now()))
        results = scan_encodings(lake, at, encoder, queries, rows=candidates.rows, so_far=told, **how)
    else:
        encodings, proposer = lake.table(encodings_table(encoder), at=at), Proposer(lake, at, encoder, candidates.rows)
        for query in queries:
            proposed = proposer.propose(query, index.candidates(k))
            rows = candidates.rows if proposed is None else rows_of(encodings, proposed)
            results += exact_scan(encodings, query[None], rows=rows, **how)
    return found(results)


def ranked(side: Ranked, passages: dict[str, list[str]], *, k: int, n: int | None, sign: int) -> list[ScoredPassage]:
    """Expand encodings to their passages; equal scores are ordered as the scan orders them, and share a percentile."""
    expanded = sorted(
        (-sign * score, key, passage)
        for key, score in zip(side.keys, side.scores, strict=True)
        if sign * score > 0
        for passage in passages[key]
    )
    values = [value for value, _, _ in expanded]  # ascending, the most extreme first
    return [
        ScoredPassage(passage, rank, -sign * value, _percentile(values, value, n, sign))
        for rank, (value, _, passage) in enumerate(expanded[:k], start=1)
    ]


def _percentile(values: Sequence[float], value: float, n: int | None, sign: int) -> float | None:
    """Return the per cent of all n that score lower, from a side's list, which begins with the most extreme of them."""
    if n is None:
        return None
    lower = n - bisect_right(values, value) if sign > 0 else bisect_left(values, value)
    return 100.0 * lower / n
