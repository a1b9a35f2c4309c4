"""The exact scan: every allowed encoding against every query, the best and the worst kept.

Notable: the reference that an index is measured against. Equal scores are ordered by key, and a row's score is the same
bits in whatever batch it is read, so the result depends neither on the order in which rows lie on disk nor on the
settings, and scans of some fragments each are, `merged`, the scan of all. Lance reads ahead in threads of its own while
the scan's threads compute. All queries of a call share one pass over the rows.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from heapq import nsmallest
from itertools import chain
from typing import Any, Final, NamedTuple

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.dataset import serialize_row_addrs

from proponent.observe.events import count, span
from proponent.schema.settings import ScanSettings
from proponent.schema.tables import code_columns

from .best import Best
from .codes import TILE_ROWS, Products, dequantise, read_codes

_SPARSE: Final = 1 / 16
"""Share of the rows up to which they are looked up by their addresses; above, all are read and the others masked.

At a million rows of 1.1 kB, 1 % of them took 0.10 s by address and 0.37 s masked, 10 % 0.65 and 0.41; at 100,000 rows
of 4.2 kB, 10 % took 0.09 and 0.15, 50 % 0.17 and 0.11. `IN` was never faster than addresses.
"""
MOST_ROWS = 8192
"""Most rows of a batch, however few bytes they have."""
_STARTING: Final = threading.Lock()

Progress = Callable[[int], object]


def _ignore(_n: int) -> None:
    """Take no notice of progress."""


@dataclass(frozen=True)
class Ranked:
    """Keys and scores of one side, best first (for opponents: lowest score first)."""

    keys: list[str]
    scores: list[float]


class ScanResult(NamedTuple):
    """What a scan found for one query."""

    top: Ranked
    bottom: Ranked


SoFar = Callable[[Callable[[], list[ScanResult]]], object]
"""Takes what gives a scan's results so far."""


class _Batch(NamedTuple):
    """Rows of an encodings table."""

    start: int
    """Place of the first row among the allowed ones."""
    rows: pa.RecordBatch


def exact_scan(
    encodings: lance.LanceDataset,
    queries: np.ndarray,
    *,
    allowed: pa.Array,
    k: int,
    unit_norm: bool,
    norms: pa.Table | None = None,
    settings: ScanSettings | None = None,
    fragments: Sequence[int] | None = None,
    progress: Progress = _ignore,
    so_far: SoFar | None = None,
) -> list[ScanResult]:
    """Score the allowed encodings against queries (q, d) float32; return the k highest and lowest of each.

    `allowed` holds text hashes; of `fragments`, by their numbers, only those rows are scored. Without `unit_norm` a
    stored unit vector counts with its norm. `norms` has the norms of the allowed encodings' unit vectors under a
    curvature, in any order and among others, which divide their scores. `progress` is told rows, by the threads that
    score; what it raises ends the scan. They call `so_far` as often, with what gives the best and worst so far to those
    who want it.
    """
    settings = settings or ScanSettings()
    rows = _AllowedRows(encodings, allowed, _columns(encodings, unit_norm=unit_norm), settings, fragments)
    best, worst = (Best(rows.keys, k=k, n_queries=len(queries)) for _ in range(2))
    offering = threading.Lock()

    def offer(start: int, scores: np.ndarray) -> None:
        with offering:
            best.offer(start, scores)
            worst.offer(start, -scores)
        progress(len(scores))
        if so_far is not None:
            so_far(results)

    def results() -> list[ScanResult]:
        with offering:
            both = list(zip(best.ranked(), worst.ranked(), strict=True))
        return [
            ScanResult(Ranked(top, high.tolist()), Ranked(bottom, (-low).tolist()))
            for (top, high), (bottom, low) in both
        ]

    divisors = norms_of(rows.keys, norms)
    _score(rows.batches(), queries, offer, unit_norm=unit_norm, norms=divisors, settings=settings)
    return results()


def merged(parts: Sequence[Sequence[ScanResult]], *, k: int) -> list[ScanResult]:
    """Return what a scan of all fragments finds from what scans of some of them each have found, with the same k."""
    return [
        ScanResult(_merged([one.top for one in found], k, sign=-1), _merged([one.bottom for one in found], k, sign=1))
        for found in zip(*parts, strict=True)
    ]


def _merged(sides: Sequence[Ranked], k: int, *, sign: int) -> Ranked:
    pairs = chain.from_iterable(zip(side.scores, side.keys, strict=True) for side in sides)
    first = nsmallest(k, pairs, key=lambda pair: (sign * pair[0], pair[1]))
    return Ranked([key for _, key in first], [score for score, _ in first])


def all_scores(
    encodings: lance.LanceDataset,
    queries: np.ndarray,
    *,
    allowed: pa.Array,
    unit_norm: bool,
    norms: pa.Table | None = None,
    settings: ScanSettings | None = None,
    progress: Progress = _ignore,
) -> tuple[pa.Array, np.ndarray]:
    """Return text hashes and scores (n, q) float32 of all allowed encodings, in stored order; see `exact_scan`."""
    settings = settings or ScanSettings()
    rows = _AllowedRows(encodings, allowed, _columns(encodings, unit_norm=unit_norm), settings)
    found = np.empty((len(rows.keys), len(queries)), np.float32)

    def keep(start: int, scores: np.ndarray) -> None:
        found[start : start + len(scores)] = scores
        progress(len(scores))

    divisors = norms_of(rows.keys, norms)
    _score(rows.batches(), queries, keep, unit_norm=unit_norm, norms=divisors, settings=settings)
    return rows.keys, found


def scores_at(
    encodings: lance.LanceDataset,
    queries: np.ndarray,
    *,
    positions: np.ndarray,
    unit_norm: bool,
    norms: np.ndarray | None = None,
) -> np.ndarray:
    """Return scores (n, q) float32 of the encodings at some positions (n,) of this version, ascending.

    `norms` (n,) divide them. A score is the same as that of a scan to the last bit.
    """
    found = np.empty((len(positions), len(queries)), np.float32)

    def batches() -> Iterator[_Batch]:
        columns, place = _columns(encodings, unit_norm=unit_norm), 0
        for start in range(0, len(positions), MOST_ROWS):
            for rows in encodings.take(positions[start : start + MOST_ROWS], columns=columns).to_batches():
                yield _Batch(place, rows)
                place += rows.num_rows

    def keep(start: int, scores: np.ndarray) -> None:
        found[start : start + len(scores)] = scores

    alone = ScanSettings(threads=1)
    _score(batches(), queries, keep, unit_norm=unit_norm, norms=norms, settings=alone)
    return found


def _columns(encodings: lance.LanceDataset, *, unit_norm: bool) -> list[str]:
    return code_columns(encodings.schema) + ([] if unit_norm else ["norm"])


def _score(
    batches: Iterator[_Batch],
    queries: np.ndarray,
    take: Callable[[int, np.ndarray], None],
    *,
    unit_norm: bool,
    norms: np.ndarray | None,
    settings: ScanSettings,
) -> None:
    """Hand over the rows' scores (n, q) float32 with the place of the first, batch by batch, from several threads."""
    if not len(queries):
        return
    device = _device()
    products = Products(queries, device=device)

    def score(batches: Iterator[_Batch]) -> None:
        tile = products.tile()
        for start, batch in batches:
            scores = products.of(read_codes(batch), tile)
            if not unit_norm:
                scores *= batch.column("norm").to_numpy()[:, None]
            if norms is not None:
                scores /= norms[start : start + len(scores), None]
            take(start, scores)
            count("scanned_rows", len(scores))
            count("scanned_bytes", batch.nbytes)

    with span("scan", queries=len(queries)):
        _in_threads(score, batches, settings, alone=device != "cpu")


def unit_vectors(
    encodings: lance.LanceDataset, *, allowed: pa.Array, settings: ScanSettings | None = None
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Yield text hashes and stored unit vectors (n, d) float32 of the allowed encodings, some rows at a time."""
    rows = _AllowedRows(encodings, allowed, code_columns(encodings.schema), settings or ScanSettings())
    for start, batch in rows.batches():
        yield rows.keys.slice(start, batch.num_rows), dequantise(read_codes(batch))


class _AllowedRows:
    """The rows of an encodings table that belong to the allowed keys, in the order in which they lie there."""

    def __init__(
        self,
        encodings: lance.LanceDataset,
        allowed: pa.Array,
        columns: list[str],
        settings: ScanSettings,
        fragments: Sequence[int] | None = None,
    ) -> None:
        self._scanner = partial(
            encodings.scanner, **reading(encodings, settings), columns=columns, with_row_address=True
        )
        self._reader: pa.RecordBatchReader | None = None
        some: Any = None if fragments is None else [encodings.get_fragment(number) for number in fragments]
        if len(allowed) > _SPARSE * encodings.count_rows():
            self._reader = self._scanner(fragments=some).to_reader()  # reads ahead while keys are looked up
        keys = encodings.scanner(columns=["text_hash"], with_row_address=True, scan_in_order=True, fragments=some)
        found = keys.to_table()
        self._wanted = pc.is_in(found["text_hash"], value_set=allowed).combine_chunks()
        if self._wanted.true_count < found.num_rows:
            found = found.filter(self._wanted)
        self.keys = found["text_hash"].combine_chunks()
        self._addresses = found["_rowaddr"].to_numpy()

    def batches(self) -> Iterator[_Batch]:
        """Yield the columns of the rows, once."""
        start = 0
        for rows in self._filtered() if self._reader is not None else self._sought():
            # Keys and scores belong together by their places alone.
            expected = self._addresses[start : start + rows.num_rows]
            assert np.array_equal(rows.column("_rowaddr").to_numpy(), expected)
            yield _Batch(start, rows)
            start += rows.num_rows
        assert start == len(self.keys)

    def _filtered(self) -> Iterator[pa.RecordBatch]:
        """Yield those of all rows that are wanted."""
        seen = 0
        for batch in self._reader or ():
            wanted = self._wanted.slice(seen, batch.num_rows)
            seen += batch.num_rows
            if wanted.true_count:
                yield batch if wanted.true_count == batch.num_rows else batch.filter(wanted)

    def _sought(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows by their addresses."""
        if len(self.keys):
            addresses = serialize_row_addrs(self._addresses.tolist())
            yield from self._scanner(row_addr_allowlist=addresses).to_batches()


def reading(encodings: lance.LanceDataset, settings: ScanSettings) -> dict[str, Any]:
    """Return how a scanner of the vectors is to read."""
    codes = encodings.schema.field("codes").type
    row_bytes = codes.list_size * codes.value_type.bit_width // 8
    batch_rows = settings.memory // 16 // row_bytes // TILE_ROWS * TILE_ROWS
    return {
        "batch_size": min(max(TILE_ROWS, batch_rows), MOST_ROWS),
        "io_buffer_size": settings.memory // 4,
        "scan_in_order": True,
    }


def norms_of(keys: pa.Array, norms: pa.Table | None) -> np.ndarray | None:
    """Return the norms (n,) float32 of some texts, all of which the table has; None where there is no table."""
    if norms is None:
        return None
    places = pc.index_in(keys, value_set=norms["text_hash"].combine_chunks())
    assert not places.null_count
    found: np.ndarray = norms["norm"].combine_chunks().take(places).to_numpy()
    return found


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _in_threads(
    work: Callable[[Iterator[_Batch]], None], batches: Iterator[_Batch], settings: ScanSettings, *, alone: bool
) -> None:
    """Let threads, in each of which torch computes by itself, share batches."""
    import torch

    shared = _Shared(batches)

    def run() -> None:
        try:
            work(shared)
        finally:
            shared.close()

    with _STARTING:
        within = torch.get_num_threads()
        n = 1 if alone else settings.threads or within
        started = threading.Barrier(n + 1)

        def start() -> None:
            torch.set_num_threads(1)
            started.wait()

        pool = ThreadPoolExecutor(n, "scan", initializer=start)
        try:
            working = [pool.submit(run) for _ in range(n)]
            started.wait()
        except BaseException:
            started.abort()  # some may wait for one that cannot be started
            raise
        finally:
            # What a thread sets holds for it, and for threads that are started later.
            torch.set_num_threads(within)
    try:
        for one in working:
            one.result()
    finally:
        shared.close()
        pool.shutdown()


class _Shared:
    """An iterator that several threads take from."""

    def __init__(self, batches: Iterator[_Batch]) -> None:
        self._batches = batches
        self._taking = threading.Lock()

    def __iter__(self) -> Iterator[_Batch]:
        return self

    def __next__(self) -> _Batch:
        with self._taking:
            return next(self._batches)

    def close(self) -> None:
        """Let nothing more be taken."""
        with self._taking:
            self._batches = iter(())


def in_list(column: str, ids: pa.Array) -> str:
    """Return a Lance predicate for a list of ids, which are base32 and need no escaping."""
    return f"{column} IN ({', '.join(repr(value) for value in ids.to_pylist())})"
