"""Sessions for readers: a few that are kept open, each used by one thread at a time.

Notable: opening a session takes some hundredths of a second, since it registers the whole catalog; a page should not
wait for that. One is kept as long as the lake is as it was when it was opened, so that the next page sees a new
snapshot; and since every trace makes one, all pages share a session, which is opened once for all of them.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn

from sqlalchemy import func, select

from proponent.query.memo import Memo
from proponent.query.session import Session
from proponent.schema import catalog as models
from proponent.schema.errors import LakeBusyError, SettingsError
from proponent.schema.settings import SqlSettings
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot, get_snapshot


class State(NamedTuple):
    """A state of the lake: whatever changes its tables makes a snapshot, and whatever changes the catalog is a run."""

    snapshot: int
    n_begun: int
    """Runs, but for those that store traces, which nobody misses until they are done, moments later."""
    n_finished: int
    settled: tuple[int, str, int]
    """Finished runs that did more than store traces, when the last of them ended, and the last snapshot of theirs.

    While it is the same, what was stored before is the same. A run that goes on after it failed ends twice and counts
    once; and what a process that died was publishing, whoever stores a trace may finish, while its run never ends.
    """


_STOP_AGAIN_S: Final = 0.05
_STOPS: Final = 100
"""How often a statement is told to stop, at most, when everything ends."""
_WAIT_S: Final = 20.0
"""Seconds that a reader waits for a session."""


def _refuse(name: str | None, *, with_moments: bool) -> NoReturn:
    """Stand for what loads a model, which no page does: a crowd of readers would load it a crowd of times."""
    raise SettingsError(
        "trace() asks the model, which statements here cannot; ask on the page Ask and select from `influence`, "
        "or use `proponent sql`"
    )


@dataclass(eq=False)
class _Opened:
    """An open session of one state of the lake."""

    state: State
    at: int
    session: Session
    n_readers: int = 0


class Readers:
    """Gives sessions of a lake to threads, `most` at a time.

    With `shared`, which is for statements that call no functions, all readers of a snapshot are on one session, each on
    a connection of its own; without it, each has a session to itself.
    """

    def __init__(self, lake: LakeStore, *, most: int, settings: SqlSettings, memo: Memo, shared: bool) -> None:
        self._lake = lake
        self._most = most
        self._settings = settings
        self._memo = memo
        self._shared = shared
        self._lock = threading.Condition()
        self._opening = threading.Lock()
        self._opened: list[_Opened] = []
        """Sessions of the present state, those used last at the end."""
        self._n_out = 0
        self._out: list[Session] = []
        self._closed = False

    def state(self) -> State:
        """Return what tells one state of the lake from another."""
        newest = select(func.max(models.Snapshot.snapshot_id)).scalar_subquery()
        more = models.Run.kind != "trace"
        theirs = select(models.Snapshot.snapshot_id).join(models.Run).where(more)
        last = theirs.order_by(models.Snapshot.snapshot_id.desc()).limit(1).scalar_subquery()
        ended = models.Run.finished_at
        counts = func.count().filter(more), func.count(ended), func.count(ended).filter(more)
        with self._lake.catalog.read() as session:
            row = session.execute(select(newest, *counts, func.max(ended).filter(more), last)).one()
        snapshot, n_begun, n_finished, n_others, ended_at, of_others = row
        return State(int(snapshot), n_begun, n_finished, (n_others, str(ended_at), of_others or 0))

    @contextmanager
    def session(self, at: int | None = None) -> Iterator[Session]:
        """Give a session at a snapshot, by default the newest, to one thread.

        Raises NotFoundError when there is no such snapshot, LakeBusyError when all sessions stay in use.
        """
        self._wait_for_turn()
        opened: _Opened | None = None
        failed = True
        try:
            state = self.state()
            opened = self._found_or_opened(state, state.snapshot if at is None else at)
            with self._used(opened) as session:
                yield session
            failed = False
        finally:
            self._give_back(opened, failed=failed)

    @contextmanager
    def _used(self, opened: _Opened) -> Iterator[Session]:
        session = opened.session.beside() if self._shared else opened.session
        with self._lock:
            self._out.append(session)
        try:
            yield session
        finally:
            with self._lock:
                self._out.remove(session)
            if self._shared:
                session.close()

    def close(self) -> None:
        """Close the sessions that are not in use, stop the statements of the others, and close those afterwards."""
        with self._lock:
            self._closed = True
            idle = self._taken_out(lambda one: not one.n_readers)
        for one in idle:
            one.session.close()
        with self._lock:
            for _ in range(_STOPS):
                for session in self._out:
                    session.stop()
                if self._lock.wait_for(lambda: not self._out, timeout=_STOP_AGAIN_S):
                    return

    def _open(self, at: int) -> Session:
        found: Snapshot = get_snapshot(self._lake.catalog, at)
        return Session(self._lake, found, threads=2, memo=self._memo, load=_refuse, settings=self._settings)

    def _wait_for_turn(self) -> None:
        with self._lock:
            if not self._lock.wait_for(lambda: self._n_out < self._most, timeout=_WAIT_S):
                raise LakeBusyError("all readers are busy; try again in a moment")
            if self._closed:
                self._lock.notify()
                raise LakeBusyError("the explorer is about to end")
            self._n_out += 1

    def _found_or_opened(self, state: State, at: int) -> _Opened:
        """Return a session that fits, with this reader counted."""
        if (found := self._found(state, at)) is not None:
            return found
        if not self._shared:
            return self._kept(_Opened(state, at, self._open(at)))
        with self._opening:  # who comes while a session opens waits for that one
            return self._found(state, at) or self._kept(_Opened(state, at, self._open(at)))

    def _found(self, state: State, at: int) -> _Opened | None:
        with self._lock:
            stale = self._taken_out(lambda one: one.state != state and not one.n_readers)
            fitting = (one for one in reversed(self._opened) if (one.state, one.at) == (state, at))
            found = next((one for one in fitting if self._shared or not one.n_readers), None)
            if found is not None:
                found.n_readers += 1
        for one in stale:
            one.session.close()
        return found

    def _kept(self, opened: _Opened) -> _Opened:
        with self._lock:
            opened.n_readers += 1
            self._opened.append(opened)
        return opened

    def _give_back(self, opened: _Opened | None, *, failed: bool) -> None:
        """Count a reader no more, and close what is of no more use."""
        over: list[_Opened] = []
        with self._lock:
            self._n_out -= 1
            if opened is not None:
                opened.n_readers -= 1
                self._opened.remove(opened)
                self._opened.append(opened)
                # What a failed or stopped statement leaves behind is closed rather than examined; of a shared session
                # that is the reader's own connection, which is closed by now.
                if not opened.n_readers and (self._closed or (failed and not self._shared)):
                    over = self._taken_out(lambda one: one is opened)
                elif len(self._opened) > self._most:
                    idle = next((one for one in self._opened if not one.n_readers), None)
                    over = self._taken_out(lambda one: one is idle)
            self._lock.notify()
        for one in over:
            one.session.close()

    def _taken_out(self, which: Callable[[_Opened], bool]) -> list[_Opened]:
        """Forget some sessions, under the lock, and return them."""
        out = [one for one in self._opened if which(one)]
        self._opened = [one for one in self._opened if not which(one)]
        return out
