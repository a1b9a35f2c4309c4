"""A bound on what a query adds to the memory of this process.

Notable: DuckDB counts its own buffers only. `range(1000000000)` takes 8 GB under a limit of 300 MB, and one call of
`repeat` cannot be interrupted. So whoever waits for a query looks at the process meanwhile, and a query that grows too
much is interrupted; and the operating system refuses memory a little later (RLIMIT_DATA, on Linux), so that a single
call fails as well. Reads of others in the same process count, too: it cannot be told whose memory it is.
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
    """What a query does to the memory of the process, as those who wait for it see."""

    def __init__(self, interrupt: Callable[[], object], allowed: int | None, stuck_s: float | None) -> None:
        self.exceeded = False
        self._interrupt, self._stuck_s, self._began = interrupt, stuck_s, time.monotonic()
        self._most = None if allowed is None else _pages(1) - _exempt.grown + allowed

    def look(self) -> None:
        """Interrupt what has grown too much, and end the process when what was to end has not."""
        if self._most is not None and not _exempt.depth and _pages(1) - _exempt.grown > self._most:
            self.exceeded = True
            self._interrupt()
        if self._stuck_s is not None and time.monotonic() - self._began > self._stuck_s:
            sys.stderr.write("error: the query could not be stopped when its time was up; the process ends\n")
            sys.stderr.flush()
            os._exit(1)


@contextmanager
def bounded(interrupt: Callable[[], object], allowed: int, *, stuck_s: float | None = None) -> Iterator[Growth]:
    """Let the process grow by no more than `allowed` bytes and some slack inside a with block.

    Whoever waits there looks again and again: then it is interrupted, and with `stuck_s` the process ends with an error
    when it has not ended after as many seconds. Where there is no /proc, nothing is bounded.
    """
    if sys.platform != "linux":
        yield Growth(interrupt, None, None)
        return
    allowed += SLACK
    growth = Growth(interrupt, allowed, stuck_s)
    _refuse_beyond(allowed)
    try:
        yield growth
    finally:
        _let_go(allowed)


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
