"""Somebody who waits for a page, and what reads the lake for them: what nobody waits for is stopped.

Notable: a reader who closes the page, or presses Cancel, only ends the connection; so that is what stops a statement.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from proponent.query.session import Session

T = TypeVar("T")

STOP_AGAIN_S: Final = 0.05
"""Between two words to a statement that it should stop."""


class Waiting:
    """One request that is waited for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: list[Session] = []
        self._over = threading.Event()

    def for_(self, work: Callable[[], T]) -> T:
        """Do some work, on this thread."""
        _NOW.set(self)
        try:
            return work()
        finally:
            _NOW.set(None)
            self._over.set()

    def stop(self) -> None:
        """Stop the statements that run for it now; any thread may."""
        with self._lock:
            for session in self._sessions:
                session.stop()

    def give_up(self) -> None:
        """Stop everything that runs for it from now on, until its work has ended; nobody waits for that."""
        if self._over.is_set():
            return
        threading.Thread(target=self._stop_to_the_end, name="given up", daemon=True).start()

    def _stop_to_the_end(self) -> None:
        while not self._over.wait(STOP_AGAIN_S):  # a statement forgets what it is told while it is planned
            self.stop()

    @contextmanager
    def _reading(self, session: Session) -> Iterator[None]:
        with self._lock:
            self._sessions.append(session)
        try:
            yield
        finally:
            with self._lock:
                self._sessions.remove(session)


_NOW: Final[ContextVar[Waiting | None]] = ContextVar("waiting", default=None)


@contextmanager
def for_everybody() -> Iterator[None]:
    """Say that what is done now on this thread is waited for by others, too, and not to be stopped for one of them."""
    token = _NOW.set(None)
    try:
        yield
    finally:
        _NOW.reset(token)


@contextmanager
def reading(session: Session) -> Iterator[Session]:
    """Say that a session works for whoever is waited for on this thread, if anybody is."""
    waiting: Any = _NOW.get()
    if waiting is None:
        yield session
        return
    with waiting._reading(session):
        yield session
