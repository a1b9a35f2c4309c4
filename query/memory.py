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
"""The process's own limit while any of them runs."""


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
    _refuse_beyond(allowed)
    try:
        watcher.start()
        yield growth
    finally:
        growth.ended.set()
        watcher.join()
        _let_go(allowed)


def _watch(growth: Growth, interrupt: Callable[[], object], allowed: int, stuck_s: float | None) -> None:
    most, began = _pages(1) + allowed, time.monotonic()
    while not growth.ended.wait(_EVERY_S):
        if _pages(1) > most:
            growth.exceeded = True
            interrupt()
        if stuck_s is not None and time.monotonic() - began > stuck_s:
            sys.stderr.write("error: the query could not be stopped when its time was up; the process ends\n")
            sys.stderr.flush()
            os._exit(1)


def _pages(column: int) -> int:
    """Return the bytes of a column of statm: 1 is what is resident, 5 what RLIMIT_DATA limits."""
    return int(_STATM.read_text(encoding="ascii").split()[column]) * resource.getpagesize()


def _refuse_beyond(allowed: int) -> None:
    with _lock:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if not _allowed:
            _before[:] = [soft]
        _allowed.append(allowed)
        wanted = _pages(5) + sum(_allowed) + _MARGIN
        least = [wanted, *(limit for limit in (_before[0], hard) if limit != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_DATA, (min(least), hard))


def _let_go(allowed: int) -> None:
    with _lock:
        _allowed.remove(allowed)
        if not _allowed:
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (_before[0], hard))
