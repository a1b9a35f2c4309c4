"""The exact scan of a lake's encodings, on this machine or in parts on the nodes of a cluster.

Notable: on one machine the threads of one scan share its batches already, so that parts of it would gain nothing there.
On a cluster each part is some fragments, and what comes out is the unsharded scan's, bit for bit.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import lance
import numpy as np
import pyarrow as pa

from proponent.schema.settings import ScanSettings
from proponent.schema.tables import encodings_table

from .lake import LakeStore
from .scan import ScanResult, SoFar, exact_scan, merged
from .snapshots import Snapshot

_SHARD_BYTES: Final = 8 << 30
"""Codes that a part has at most, where fragments allow it: what a node that dies has to do again."""


def scan_encodings(
    lake: LakeStore,
    at: Snapshot,
    encoder: str,
    queries: np.ndarray,
    *,
    rows: pa.BooleanArray | None = None,
    k: int,
    unit_norm: bool,
    norms: np.ndarray | None = None,
    settings: ScanSettings | None = None,
    progress: Callable[[int], object] = lambda _n: None,
    so_far: SoFar | None = None,
) -> list[ScanResult]:
    """Score an encoder's encodings at a snapshot against queries (q, d) float32, as `exact_scan` does, which see."""
    table = encodings_table(encoder)
    encodings = lake.table(table, at=at)
    parts = [] if lake.cluster is None else shards(encodings, lake.cluster.workers(on_gpu=True))
    if lake.cluster is None or len(parts) < 2:
        return exact_scan(
            encodings,
            queries,
            rows=rows,
            k=k,
            unit_norm=unit_norm,
            norms=norms,
            settings=settings,
            progress=progress,
            so_far=so_far,
        )
    memory = (settings or ScanSettings()).memory
    asked = _Asked(table, at.versions[table], queries, rows, norms, k, unit_norm, memory)
    found: dict[int, list[ScanResult]] = {}
    for place, (n_rows, results) in lake.cluster.each(_scan_shard, asked, parts, on_gpu=True):
        found[place] = results
        progress(n_rows)
        if so_far is not None:
            so_far(lambda: _together(found, k))
    return _together(found, k)


def _together(found: dict[int, list[ScanResult]], k: int) -> list[ScanResult]:
    return merged([found[place] for place in sorted(found)], k=k)


def shards(encodings: lance.LanceDataset, n_workers: int) -> list[list[int]]:
    """Return the fragments' numbers in parts of about as many rows: one for each worker, and more of very many."""
    rows = {one.fragment_id: one.count_rows() for one in encodings.get_fragments()}
    codes = encodings.schema.field("codes").type
    n_bytes = sum(rows.values()) * codes.list_size * codes.value_type.bit_width // 8
    n_parts = min(len(rows), max(n_workers, -(-n_bytes // _SHARD_BYTES)))
    parts: list[list[int]] = [[] for _ in range(n_parts)]
    sizes = [0] * n_parts
    for number in sorted(rows, key=lambda number: (-rows[number], number)):
        place = sizes.index(min(sizes))
        parts[place].append(number)
        sizes[place] += rows[number]
    return [sorted(part) for part in parts]


class _Asked(NamedTuple):
    """What all parts are asked."""

    table: str
    version: int
    queries: np.ndarray
    rows: pa.BooleanArray | None
    norms: np.ndarray | None
    k: int
    unit_norm: bool
    memory: int


def _scan_shard(lake: LakeStore, asked: _Asked, fragments: Sequence[int]) -> tuple[int, list[ScanResult]]:
    """Scan some fragments with one thread; return how many rows were scored, and what was found."""
    n_rows = 0

    def count(n: int) -> None:
        nonlocal n_rows
        n_rows += n

    found = exact_scan(
        lake.opened(asked.table, asked.version),
        asked.queries,
        rows=asked.rows,
        k=asked.k,
        unit_norm=asked.unit_norm,
        norms=asked.norms,
        settings=ScanSettings(memory=asked.memory, threads=1),
        fragments=fragments,
        progress=count,
    )
    return n_rows, found
