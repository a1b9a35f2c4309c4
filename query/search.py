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
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.errors import FilterError, NotFoundError, SqlError
from proponent.schema.settings import ScanSettings
from proponent.schema.tables import encodings_table
from proponent.store.indexes import Proposer
from proponent.store.lake import LakeStore
from proponent.store.matching import marked, matched, rows_of, with_texts
from proponent.store.scan import Ranked, ScanResult, exact_scan, in_list
from proponent.store.shards import scan_encodings
from proponent.store.snapshots import Snapshot

from .filter import Filter, parse_filter
from .recall import UsableIndex
from .session import Session

T = TypeVar("T")

_FEW: Final = 1000
"""Texts that Lance looks up by their names; of more all passages are read, and joined with them."""


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
    return _read_passing(session, where, lambda rows, _stopped: rows.to_arrow_table())


def count_passing(session: Session, where: str | None) -> int:
    """Return how many passages pass a filter. Raises as `passing`."""
    return _read_passing(session, where, lambda rows, _stopped: int(rows.count("*").fetchall()[0][0]))


_Read = Callable[[duckdb.DuckDBPyRelation, threading.Event], T]
"""Makes something of the passages that pass, and ends soon when the event is set."""


def _read_passing(session: Session, where: str | None, read: _Read[T], *, texts: pa.Array | None = None) -> T:
    """Return what `read` makes of the passages that pass a filter, or of those that have some texts."""
    checked = parse_filter(where) if where is not None else None
    predicate = checked.sql if checked else "true"
    if texts is not None:
        predicate = f"({predicate}) AND {in_list('text_hash', texts)}"  # which Lance looks up by itself
    try:
        return session.trusted_read(_relation(checked), read, predicate=predicate)
    except SqlError as error:  # the gate knows types, not values
        if where is None:
            raise
        hint = "; TRY_CAST makes NULL of what cannot be converted" if "Could not convert" in str(error) else ""
        raise FilterError(f"the filter cannot be applied: {error}{hint}") from error


class PassagesOfTexts:
    """The passages of some texts that pass a filter, each looked up once; for several threads."""

    def __init__(self, session: Session, where: str | None) -> None:
        self._session, self._where = session, where
        self._known: dict[str, list[str]] = {}
        self._looking = threading.Lock()

    def of(self, texts: Iterable[str]) -> dict[str, list[str]]:
        """Return passage_ids by text hash, with none for texts that have none. Raises as `passing`."""
        with self._looking:
            asked = set(texts)
            if new := sorted(asked - self._known.keys()):
                self._known |= self._look_up(new)
            return {text: self._known[text] for text in asked}

    def have(self, texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return which of some texts (n,) have passages, (n,) bool, and keep nothing of it. Raises as `passing`."""
        different = pc.unique(texts)

        def read(rows: duckdb.DuckDBPyRelation, stopped: threading.Event) -> pa.Array:
            found = with_texts(rows.project("text_hash").to_arrow_reader(), different, stopped=stopped)
            return different.filter(marked(len(different), (batch.column("number") for batch in found)))

        if len(different) <= _FEW:
            there = pa.array([text for text, passages in self.of(different.to_pylist()).items() if passages])
        else:
            there = _read_passing(self._session, self._where, read)
        found: np.ndarray = pc.is_in(texts, value_set=there.cast(pa.string())).to_numpy(zero_copy_only=False)
        return found

    def _look_up(self, texts: list[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {text: [] for text in texts}
        wanted = pa.array(texts, pa.string())
        if len(texts) <= _FEW:
            rows = _read_passing(self._session, self._where, lambda rows, _stopped: rows.to_arrow_table(), texts=wanted)
            pairs: Iterator[tuple[str, str]] = zip(
                rows["text_hash"].to_pylist(), rows["passage_id"].to_pylist(), strict=True
            )
        else:
            pairs = _read_passing(self._session, self._where, partial(_with_passages, wanted=wanted))
        for text, passage in pairs:
            found[text].append(passage)
        return found


def _with_passages(
    rows: duckdb.DuckDBPyRelation, stopped: threading.Event, *, wanted: pa.Array
) -> Iterator[tuple[str, str]]:
    """Return the texts of those passages that have some of them, each with the passage's id."""
    reader = rows.project("passage_id, text_hash").to_arrow_reader()
    found = list(with_texts(reader, wanted, stopped=stopped))
    places = (place for batch in found for place in batch.column("number").to_pylist())
    passages = (passage for batch in found for passage in batch.column("passage_id").to_pylist())
    return zip((wanted[place].as_py() for place in places), passages, strict=True)


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

        def read(rows: duckdb.DuckDBPyRelation, stopped: threading.Event) -> pa.BooleanArray:
            return marked(encodings.count_rows(), places(rows.project("text_hash").to_arrow_reader(), stopped))

        def places(texts: pa.RecordBatchReader, stopped: threading.Event) -> Iterator[pa.Array]:
            nonlocal n_passages
            for batch in matched(encodings, texts, stopped=stopped):
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
