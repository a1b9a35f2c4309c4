"""The exact scan: every allowed encoding against every query, the best and the worst kept.

Notable: the reference that an index is measured against. Equal scores are ordered by key, so that the result does not
depend on the order in which rows lie on disk.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.tables import code_columns

from .codes import dequantise, dot, read_codes

BATCH_ROWS = 1024
"""Rows decoded at a time; bounds the scan's memory to BATCH_ROWS * d * 6 bytes and Lance's read-ahead."""
_READ_AHEAD = 64 << 20
_PUSHED_DOWN = 1000
"""Up to so many allowed keys, Lance looks the rows up by `IN`; above, all rows are read and the others masked."""


@dataclass(frozen=True)
class Ranked:
    """Keys and scores of one side, best first (for opponents: lowest score first)."""

    keys: list[str]
    scores: list[float]


class ScanResult(NamedTuple):
    """What a scan found for one query."""

    top: Ranked
    bottom: Ranked


class _Best:
    """The k highest of all values seen, with equal values in the order of their keys."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._keys = np.empty(0, dtype=object)
        self._values = np.empty(0, dtype=np.float32)

    def offer(self, keys: np.ndarray, values: np.ndarray) -> None:
        if len(self._values) == self._k:
            worth = values >= self._values[-1]
            keys, values = keys[worth], values[worth]
        keys = np.concatenate([self._keys, keys])
        values = np.concatenate([self._values, values])
        order = np.lexsort((keys.astype(str), -values))[: self._k]
        self._keys, self._values = keys[order], values[order]

    def ranked(self, *, sign: int) -> Ranked:
        return Ranked(self._keys.tolist(), (sign * self._values).tolist())


def exact_scan(
    encodings: lance.LanceDataset,
    queries: np.ndarray,
    *,
    allowed: pa.Array,
    k: int,
    unit_norm: bool,
    norms: Mapping[str, float] | None = None,
) -> list[ScanResult]:
    """Score the allowed encodings against queries (q, d) float32; return the k highest and lowest of each.

    `allowed` holds text hashes. Without `unit_norm` a stored unit vector counts with its norm. `norms` of stored unit
    vectors under a curvature, by text hash, divide their scores.
    """
    best = [(_Best(k), _Best(k)) for _ in queries]
    for batch in _allowed_batches(encodings, allowed):
        keys = batch.column("text_hash").to_numpy(zero_copy_only=False)
        scores = dot(read_codes(batch), queries)
        if not unit_norm:
            scores *= batch.column("norm").to_numpy()[:, None]
        if norms is not None:
            scores /= np.array([norms[key] for key in keys], dtype=np.float32)[:, None]
        for column, (top, bottom) in enumerate(best):
            top.offer(keys, scores[:, column])
            bottom.offer(keys, -scores[:, column])
    return [ScanResult(top.ranked(sign=1), bottom.ranked(sign=-1)) for top, bottom in best]


def unit_vectors(encodings: lance.LanceDataset, *, allowed: pa.Array) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Yield text hashes and stored unit vectors (n, d) float32 of the allowed encodings, some rows at a time."""
    for batch in _allowed_batches(encodings, allowed):
        yield batch.column("text_hash"), dequantise(read_codes(batch))


def _allowed_batches(encodings: lance.LanceDataset, allowed: pa.Array) -> Iterator[pa.RecordBatch]:
    if not len(allowed):
        return
    options: dict[str, Any] = {
        "columns": ["text_hash", "norm", *code_columns(encodings.schema)],
        "batch_size": BATCH_ROWS,
        "io_buffer_size": _READ_AHEAD,
        "scan_in_order": True,
    }
    if len(allowed) <= _PUSHED_DOWN:
        yield from encodings.scanner(**options, filter=in_list("text_hash", allowed)).to_batches()
        return
    # One look-up for all rows: each call of is_in builds its table of the allowed keys anew.
    keys = encodings.scanner(columns=["text_hash"], scan_in_order=True).to_table()["text_hash"]
    wanted = pc.is_in(keys.combine_chunks(), value_set=allowed)
    start = 0
    for batch in encodings.scanner(**options).to_batches():
        kept = batch.filter(wanted.slice(start, batch.num_rows))
        start += batch.num_rows
        if kept.num_rows:
            yield kept


def in_list(column: str, ids: pa.Array) -> str:
    """Return a Lance predicate for a list of ids, which are base32 and need no escaping."""
    return f"{column} IN ({', '.join(repr(value) for value in ids.to_pylist())})"
