"""A bound on what a query adds to the memory of this process.

Notable: DuckDB counts its own buffers only. `range(1000000000)` takes 8 GB under a limit of 300 MB, and one call of
`repeat` cannot be interrupted. So the process is watched while a query runs, and a query that grows too much is
interrupted; and the operating system refuses memory a little later (RLIMIT_DATA, on Linux), so that a single call fails
as well. Reads of others in the same process count, too: it cannot be told whose memory it is.
"""

import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SLACK: Final = 1 << 29
"""Bytes that a scan of Lance and Python itself may need besides."""
_MARGIN: Final = 1 << 29
"""Bytes between what is interrupted and what is refused."""
_EVERY_S: Final = 0.05
_STATM: Final = Path("/proc/self/statm")

_lock = threading.Lock()
_allowed: list[int] = []
"""What the queries that run at present may add, each."""
_before: list[int] = []
"""The process's own limit, as it was before any of them ran."""


class _Exempt:
    """What counts for no query."""

    depth = 0
    """How many blocks run at present in which nothing counts."""
    grown = 0
    """Bytes by which the process has grown in such blocks."""


_exempt: Final = _Exempt()


class Growth:
    """What a query has done to the memory of the process."""

    def __init__(self) -> None:
        self.exceeded = False
        self.ended = threading.Event()


@contextmanager
def bounded(interrupt: Callable[[], object], allowed: int, *, stuck_s: float | None = None) -> Iterator[Growth]:
    """Interrupt when the process grows by more than `allowed` bytes and some slack inside a with block.

    With `stuck_s`, the process ends with an error when the block has not ended after as many seconds. Where there is no
    /proc, nothing is bounded.
    """
    growth = Growth()
    if sys.platform != "linux":
        yield growth
        return
    allowed += SLACK
    watcher = threading.Thread(target=_watch, args=(growth, interrupt, allowed, stuck_s), name="memory", daemon=True)
    watcher.start()
    try:
        _refuse_beyond(allowed)
        yield growth
    finally:
        growth.ended.set()
        watcher.join()
        _let_go(allowed)


def _watch(growth: Growth, interrupt: Callable[[], object], allowed: int, stuck_s: float | None) -> None:
    most, began = _pages(1) - _exempt.grown + allowed, time.monotonic()
    while not growth.ended.wait(_EVERY_S):
        if not _exempt.depth and _pages(1) - _exempt.grown > most:
            growth.exceeded = True
            interrupt()
        if stuck_s is not None and time.monotonic() - began > stuck_s:
            sys.stderr.write("error: the query could not be stopped when its time was up; the process ends\n")
            sys.stderr.flush()
            os._exit(1)


def _pages(column: int) -> int:
    """Return the bytes of a column of statm: 1 is what is resident, 5 what RLIMIT_DATA limits."""
    return int(_STATM.read_text(encoding="ascii").split()[column]) * resource.getpagesize()


@contextmanager
def unbounded() -> Iterator[None]:
    """Let what grows inside a with block count for no query: a model, mostly, which stays loaded."""
    if sys.platform != "linux":
        yield
        return
    with _lock:
        _exempt.depth += 1
        _set_limit()
    before = _pages(1)
    try:
        yield
    finally:
        with _lock:
            _exempt.depth -= 1
            _exempt.grown += max(0, _pages(1) - before)
            _set_limit()


def _refuse_beyond(allowed: int) -> None:
    with _lock:
        if not _allowed:
            _before[:] = [resource.getrlimit(resource.RLIMIT_DATA)[0]]
        _allowed.append(allowed)
        _set_limit()


def _let_go(allowed: int) -> None:
    with _lock:
        _allowed.remove(allowed)
        _set_limit()


def _set_limit() -> None:
    """Let the operating system refuse what the queries that run may not have, beside what the process has now."""
    if not _before:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = _before[0]
    if _allowed and not _exempt.depth:
        wanted = _pages(5) + sum(_allowed) + _MARGIN
        soft = min([wanted, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
