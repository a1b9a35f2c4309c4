"""A statement of DuckDB while it runs: step by step, within what it may take, until it ends or somebody stops it.

Notable: DuckDB itself takes notice of Ctrl-C after half a minute or not at all, and makes another error of it, while
`interrupt` from another thread stops a statement at once. So the statement runs on a thread, and its caller waits.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

import duckdb
import pyarrow as pa

from proponent.schema.errors import ProponentError, SqlError
from proponent.schema.settings import SqlSettings

from .functions import Functions
from .memory import bounded

T = TypeVar("T")

BATCH_ROWS: Final = 1 << 16
"""Rows of a batch, at most."""
_LOOK_S: Final = 0.05
"""Between two looks at what a statement takes."""
_AGAIN_S: Final = 0.05
"""Between two interrupts, since one that comes while a statement is still planned is forgotten."""
_GRACE_S: Final = 30.0
"""Seconds that a statement may go on after its time is up, since one call of a function is not interrupted."""


class _TimeIsUp(Exception):  # noqa: N818 - raised and caught below alone
    """A step has taken what a statement may."""


class TimeLimit:
    """Seconds that a statement may take in all its steps; None sets no limit."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.left = seconds

    def spend(self, seconds: float) -> None:
        """Take away what a step has taken."""
        if self.left is not None:
            self.left = max(self.left - seconds, 0.0)

    def until(self, began: float, *, at_most: float | None = None) -> float | None:
        """Return how many seconds a step that began then may still take, `at_most` so many."""
        left = None if self.left is None else max(self.left - (time.monotonic() - began), 0.0)
        return at_most if left is None or (at_most is not None and at_most < left) else left

    @property
    def told(self) -> str:
        """What is said when the time is up."""
        return f"the query took longer than {self.seconds or 0:g} s and was stopped"


class Some(NamedTuple):
    """What one step reads of a result."""

    batches: list[pa.RecordBatch]
    ended: bool
    """Whether there is nothing after them."""


class Begun(NamedTuple):
    """A result whose first rows have been read."""

    reader: pa.RecordBatchReader
    first: Some


def _some(reader: pa.RecordBatchReader) -> Some:
    """Read a batch, and on to the end where that is near: a step of its own costs more than a short result."""
    batches: list[pa.RecordBatch] = []
    n_rows = 0
    while (batch := next(reader, None)) is not None:
        batches.append(batch)
        n_rows += batch.num_rows
        if n_rows >= BATCH_ROWS // 2:
            return Some(batches, ended=False)
    return Some(batches, ended=True)


class Running:
    """One statement on a connection of its own."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, functions: Functions, settings: SqlSettings) -> None:
        """Prepare a statement that may take what `settings` say; the memory limit is the connection's own."""
        self._connection = connection
        self._functions = functions
        self._settings = settings
        self._limit = TimeLimit(settings.time_limit_s)

    def begin(self, query: str, parameters: Any) -> "Begun":
        """Begin to run it. Raises SqlError, and what a function of ours raises."""

        def step() -> Begun:
            reader = asked(self._connection, query, parameters).to_arrow_reader(BATCH_ROWS)
            try:
                return Begun(reader, _some(reader))
            except BaseException:
                reader.close()
                raise

        return self._step(step)

    def batches(self, begun: "Begun") -> Iterator[pa.RecordBatch]:
        """Yield its rows; the time that their reader takes does not count."""
        rows, most, some = 0, self._settings.max_rows, begun.first
        while True:
            for batch in some.batches:
                rows += batch.num_rows
                if most is not None and rows > most:
                    raise SqlError(
                        f"the result has more than {most:,} rows (max_rows); ask for less, or raise the limit"
                    )
                yield batch
            if some.ended:
                return
            some = self._step(lambda: _some(begun.reader))

    def _step(self, work: Callable[[], T]) -> T:
        memory, left = self._settings.memory_limit, self._limit.left
        stuck_s = left + _GRACE_S if self._settings.end_process and left is not None else None
        with bounded(self.stop, memory, stuck_s=stuck_s) as growth:
            try:
                with self._functions.running(stopped=self._limit.told), named_errors(memory):
                    return supervised(self.stop, work, self._limit, look=growth.look)
            except SqlError as error:
                if growth.exceeded:
                    raise SqlError(_too_much(memory)) from error
                raise

    def stop(self) -> None:
        """Stop what runs of it now; any thread may."""
        self._functions.stop()
        self._connection.interrupt()


def asked(connection: duckdb.DuckDBPyConnection, query: str, parameters: Any) -> duckdb.DuckDBPyRelation:
    """Return a statement's rows before any is read. Raises SqlError where it has none."""
    found = connection.sql(query, params=parameters)
    if found is None:
        raise SqlError("the statement returned nothing")
    return found


def supervised(
    stop: Callable[[], object], work: Callable[[], T], limit: TimeLimit, *, look: Callable[[], object] = lambda: None
) -> T:
    """Return what `work` returns, a step of a statement that `stop` ends; `look` is called while it is waited for.

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
        while not _has_come(outcome, limit.until(began, at_most=_LOOK_S)):
            look()
            if limit.until(began) == 0:
                raise _TimeIsUp
        return outcome.result()
    except (_TimeIsUp, KeyboardInterrupt) as reason:
        while thread.is_alive():
            stop()
            look()
            thread.join(_AGAIN_S)
        if isinstance(reason, KeyboardInterrupt):
            raise
        raise SqlError(limit.told) from None
    finally:
        limit.spend(time.monotonic() - began)


def _has_come(outcome: Future[Any], seconds: float | None) -> bool:
    """Wait a while for an outcome. Not for its thread: Python 3.11 takes one for ended when Ctrl-C comes meanwhile."""
    try:
        outcome.exception(seconds)
    except TimeoutError:  # of waiting; what the work raised is returned
        return outcome.done()
    return True


@contextmanager
def named_errors(memory_limit: int) -> Iterator[None]:
    """Raise SqlError, with one line, for what DuckDB and Arrow raise."""
    try:
        yield
    except ProponentError:
        raise
    except (duckdb.OutOfMemoryException, MemoryError) as error:
        raise SqlError(_too_much(memory_limit)) from error
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # what fails between two batches is Arrow's
        raise SqlError(_message(error)) from error


def _too_much(memory_limit: int) -> str:
    needs = f"Out of Memory: the query needs more than {memory_limit:,} bytes (memory_limit)"
    return f"{needs}; ask for less, or raise the limit"


def _message(error: Exception) -> str:
    if "INTERRUPT" in str(error):
        return "the query was interrupted"
    if "LanceError(IO)" in str(error):
        return "a file of the lake cannot be read; `proponent check` says which"
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if "Candidate macros:" in lines:
        return f"{lines[0]} It is {lines[lines.index('Candidate macros:') + 1]}"
    return lines[0] if lines else type(error).__name__
