"""Waiting for a statement of DuckDB so that Ctrl-C and a time limit stop it.

Notable: DuckDB itself takes notice of Ctrl-C after half a minute or not at all, and makes another error of it, while
`interrupt` from another thread stops a statement at once. So the statement runs on a thread, and its caller waits.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

import duckdb

from proponent.schema.errors import SqlError

T = TypeVar("T")

_AGAIN_S: Final = 0.05
"""Between two interrupts, since one that comes while a statement is still planned is forgotten."""


class TimeLimit:
    """Seconds that a statement may take in all its steps; None sets no limit."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.left = seconds

    def spend(self, seconds: float) -> None:
        """Take away what a step has taken."""
        if self.left is not None:
            self.left = max(self.left - seconds, 0.0)


def supervised(connection: duckdb.DuckDBPyConnection, work: Callable[[], T], limit: TimeLimit) -> T:
    """Return what `work` returns, a step of a statement of one connection.

    Raises what it raises, SqlError when the time is up, and KeyboardInterrupt; then the statement has ended already.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name="statement", daemon=True)
    began = time.monotonic()
    try:
        thread.start()
        return outcome.result(limit.left)
    except (TimeoutError, KeyboardInterrupt) as stop:
        if outcome.done() and isinstance(stop, TimeoutError):
            raise  # the statement's own
        _stop(connection, thread)
        if isinstance(stop, KeyboardInterrupt):
            raise
        raise SqlError(f"the query took longer than {limit.seconds:g} s and was stopped") from stop
    finally:
        limit.spend(time.monotonic() - began)


def _stop(connection: duckdb.DuckDBPyConnection, thread: threading.Thread) -> None:
    while thread.is_alive():
        connection.interrupt()
        thread.join(_AGAIN_S)
