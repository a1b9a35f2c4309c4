"""What a method costs: seconds, bytes read, bytes stored."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proponent.schema.settings import BM25, HYBRID
from proponent.schema.tables import encodings_table
from proponent.store.files import files_on_disk, names_of
from proponent.store.full_text import NAME as FULL_TEXT
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot

_IO: Final = Path("/proc/self/io")


@dataclass
class Cost:
    """What ordering the texts for all facts took, encoding the questions included."""

    seconds: float = 0.0
    bytes_read: int | None = None
    """By all reads of this process, from a disk or from the cache of files; None where no system counts them, and where
    other processes read."""


@contextmanager
def measured(lake: LakeStore) -> Iterator[Cost]:
    """Measure what the body takes, which works on a lake."""
    cost, began, before = Cost(), time.monotonic(), bytes_read()
    yield cost
    cost.seconds, after = time.monotonic() - began, bytes_read()
    if before is not None and after is not None and lake.cluster is None:
        cost.bytes_read = after - before


def bytes_read() -> int | None:
    """Return how many bytes this process has read, by `rchar` of Linux, without mapped memory; else None."""
    try:
        lines = _IO.read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("rchar:")), None)


def bytes_stored(lake: LakeStore, at: Snapshot, kind: str, *, encoder: str | None, norms: str | None) -> int:
    """Return the bytes in the lake that a method reads: vectors, their norms under a curvature, the full-text index."""
    total = 0
    if encoder is not None:
        total += _table_bytes(lake, at, encodings_table(encoder))
        if norms is not None and at.has(norms):
            total += _table_bytes(lake, at, norms)
    if kind in (BM25, HYBRID):
        total += _full_text_bytes(lake, at)
    return total


def _table_bytes(lake: LakeStore, at: Snapshot, table: str) -> int:
    sizes = files_on_disk(lake, table)
    return sum(sizes.get(name, 0) for name in names_of(lake.table(table, at=at)) if name.startswith("data/"))


def _full_text_bytes(lake: LakeStore, at: Snapshot) -> int:
    described = lake.table("passages", at=at).describe_indices()
    sizes = files_on_disk(lake, "passages")
    segments = [segment for index in described if index.name == FULL_TEXT for segment in index.segments]
    return sum(sizes.get(f"_indices/{segment.uuid}", 0) for segment in segments)
