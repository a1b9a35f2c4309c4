"""The exact scan: encodings against every query, the best and the worst kept.

Notable: the reference that an index is measured against. Equal scores are ordered by key, and a row's score is the same
bits in whatever batch it is read, so the result depends neither on the order in which rows lie on disk nor on the
settings, and scans of some fragments each are, `merged`, the scan of all. Lance reads ahead in threads of its own while
the scan's threads compute. All queries of a call share one pass over the rows. Keys are read with the codes, so that a
scan keeps nothing of a row but the bit that says whether it is scored.
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
_ADDRESSES: Final = 1 << 16
"""Addresses that are read at a time."""
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
    """Place of the first row among those that are scored."""
    rows: pa.RecordBatch
    norms: np.ndarray | None
    """What divides the rows' scores, (n,) float32."""


def exact_scan(
    encodings: lance.LanceDataset,
    queries: np.ndarray,
    *,
    rows: pa.BooleanArray | None = None,
    k: int,
    unit_norm: bool,
    norms: np.ndarray | None = None,
    settings: ScanSettings | None = None,
    fragments: Sequence[int] | None = None,
    progress: Progress = _ignore,
    so_far: SoFar | None = None,
) -> list[ScanResult]:
    """Score encodings against queries (q, d) float32; return the text hashes of the k highest and lowest of each.

    `rows` (n,) says of each row of the table, in stored order, whether it is scored; by default all are. Of
    `fragments`, by their numbers, only those rows are. Without `unit_norm` a stored unit vector counts with its norm.
    `norms` (n,) float32 has the norm of each row's unit vector under a curvature, which divides its scores; what is not
    scored needs none. `progress` is told rows, by the threads that score; what it raises ends the scan. They call
    `so_far` as often, with what gives the best and worst so far to those who want it.
    """
    settings = settings or ScanSettings()
    best, worst = (Best(k=k, n_queries=len(queries)) for _ in range(2))
    offering = threading.Lock()

    def offer(batch: _Batch, scores: np.ndarray) -> None:
        keys = batch.rows.column("text_hash")
        with offering:
            best.offer(keys, scores)
            worst.offer(keys, -scores)
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

    columns = ["text_hash", *_columns(encodings, unit_norm=unit_norm)]
    scored = _ScoredRows(encodings, rows, columns, settings, norms=norms, fragments=fragments)
    _score(scored.batches(), queries, offer, unit_norm=unit_norm, settings=settings)
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
    rows: pa.BooleanArray | None = None,
    unit_norm: bool,
    norms: np.ndarray | None = None,
    settings: ScanSettings | None = None,
    progress: Progress = _ignore,
) -> np.ndarray:
    """Return scores (m, q) float32 of all encodings that are scored, in stored order; see `exact_scan`."""
    settings = settings or ScanSettings()
    scored = _ScoredRows(encodings, rows, _columns(encodings, unit_norm=unit_norm), settings, norms=norms)
    found = np.empty((len(scored), len(queries)), np.float32)

    def keep(batch: _Batch, scores: np.ndarray) -> None:
        found[batch.start : batch.start + len(scores)] = scores
        progress(len(scores))

    _score(scored.batches(), queries, keep, unit_norm=unit_norm, settings=settings)
    return found


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
                yield _Batch(place, rows, None if norms is None else norms[place : place + rows.num_rows])
                place += rows.num_rows

    def keep(batch: _Batch, scores: np.ndarray) -> None:
        found[batch.start : batch.start + len(scores)] = scores

    _score(batches(), queries, keep, unit_norm=unit_norm, settings=ScanSettings(threads=1))
    return found


def _columns(encodings: lance.LanceDataset, *, unit_norm: bool) -> list[str]:
    return code_columns(encodings.schema) + ([] if unit_norm else ["norm"])


def _score(
    batches: Iterator[_Batch],
    queries: np.ndarray,
    take: Callable[[_Batch, np.ndarray], None],
    *,
    unit_norm: bool,
    settings: ScanSettings,
) -> None:
    """Hand over rows with their scores (n, q) float32, batch by batch, from several threads."""
    if not len(queries):
        return
    device = _device()
    products = Products(queries, device=device)

    def score(batches: Iterator[_Batch]) -> None:
        tile = products.tile()
        for batch in batches:
            scores = products.of(read_codes(batch.rows), tile)
            if not unit_norm:
                scores *= batch.rows.column("norm").to_numpy()[:, None]
            if batch.norms is not None:
                assert not np.isnan(batch.norms).any()  # which would leave the row out in silence
                scores /= batch.norms[:, None]
            take(batch, scores)
            count("scanned_rows", len(scores))
            count("scanned_bytes", batch.rows.nbytes)

    with span("scan", queries=len(queries)):
        _in_threads(score, batches, settings, alone=device != "cpu")


def unit_vectors(
    encodings: lance.LanceDataset, *, rows: pa.BooleanArray | None = None, settings: ScanSettings | None = None
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Yield text hashes and stored unit vectors (m, d) float32, some rows at a time; `rows` as for `exact_scan`."""
    columns = ["text_hash", *code_columns(encodings.schema)]
    for batch in _ScoredRows(encodings, rows, columns, settings or ScanSettings()).batches():
        yield batch.rows.column("text_hash"), dequantise(read_codes(batch.rows))


class _ScoredRows:
    """Some rows of an encodings table, in the order in which they lie there."""

    def __init__(
        self,
        encodings: lance.LanceDataset,
        rows: pa.BooleanArray | None,
        columns: list[str],
        settings: ScanSettings,
        *,
        norms: np.ndarray | None = None,
        fragments: Sequence[int] | None = None,
    ) -> None:
        assert all(one is None or len(one) == encodings.count_rows() for one in (rows, norms))
        among: Any = None
        if fragments is not None:
            here = [run for run in _runs(encodings) if run.fragment.fragment_id in fragments]
            among = [run.fragment for run in here]
            rows = None if rows is None else pa.concat_arrays([rows[run.rows] for run in here])
            norms = None if norms is None else np.concatenate([norms[run.rows] for run in here])
        self._n_all = encodings.count_rows() if among is None else sum(one.count_rows() for one in among)
        self._rows = None if rows is None or rows.true_count == self._n_all else rows
        self._norms = norms
        self._columns = columns
        self._scanner = partial(encodings.scanner, **reading(encodings, settings), fragments=among)

    def __len__(self) -> int:
        return self._n_all if self._rows is None else int(self._rows.true_count)

    def batches(self) -> Iterator[_Batch]:
        """Yield the columns of the rows."""
        if not len(self):
            return
        is_dense = self._rows is None or len(self) > _SPARSE * self._n_all
        found = self._filtered() if is_dense else self._sought()
        start = 0
        for rows, norms in found:
            yield _Batch(start, rows, norms)
            start += rows.num_rows
        assert start == len(self)

    def _filtered(self) -> Iterator[tuple[pa.RecordBatch, np.ndarray | None]]:
        """Yield those of all rows that are wanted, with their norms."""
        seen = 0
        for batch in self._scanner(columns=self._columns).to_batches():
            here = slice(seen, seen + batch.num_rows)
            norms = None if self._norms is None else self._norms[here]
            seen = here.stop
            if self._rows is not None:
                wanted = self._rows[here]
                if wanted.true_count < batch.num_rows:
                    batch = batch.filter(wanted)  # noqa: PLW2901
                    norms = None if norms is None else norms[wanted.to_numpy(zero_copy_only=False)]
            if batch.num_rows:
                yield batch, norms

    def _sought(self) -> Iterator[tuple[pa.RecordBatch, np.ndarray | None]]:
        """Yield the rows by their addresses, with their norms."""
        assert self._rows is not None
        addresses = self._addresses(self._rows)
        norms = None if self._norms is None else self._norms[self._rows.to_numpy(zero_copy_only=False)]
        allowlist, seen = serialize_row_addrs(addresses.tolist()), 0
        scanner = self._scanner(columns=self._columns, row_addr_allowlist=allowlist, with_row_address=True)
        for batch in scanner.to_batches():
            here = slice(seen, seen + batch.num_rows)
            seen = here.stop
            # Rows and norms belong together by their places alone.
            assert np.array_equal(batch.column("_rowaddr").to_numpy(), addresses[here])
            yield batch, None if norms is None else norms[here]

    def _addresses(self, rows: pa.BooleanArray) -> np.ndarray:
        """Return the addresses of the rows that are wanted, ascending."""
        found, seen = list[np.ndarray](), 0
        for batch in self._scanner(columns=[], batch_size=_ADDRESSES, with_row_address=True).to_batches():
            found.append(batch.column("_rowaddr").filter(rows.slice(seen, batch.num_rows)).to_numpy())
            seen += batch.num_rows
        return np.concatenate(found)


class _Run(NamedTuple):
    """Where the rows of a fragment are among all."""

    fragment: lance.LanceFragment
    rows: slice


def _runs(encodings: lance.LanceDataset) -> Iterator[_Run]:
    start = 0
    for fragment in encodings.get_fragments():
        end = start + fragment.count_rows()
        yield _Run(fragment, slice(start, end))
        start = end


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
