"""Sessions for readers: a few that are kept open, each used by one thread at a time.

Notable: opening a session takes tenths of a second, since it registers the whole catalog; a page should not wait for
that. One is kept as long as the lake is as it was when it was opened, so that a new snapshot is seen by the next page.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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


@dataclass
class _Kept:
    state: State
    at: int
    session: Session
    used: float = field(default_factory=time.monotonic)


class Readers:
    """Gives sessions of a lake to threads, `most` at a time."""

    def __init__(self, lake: LakeStore, *, most: int, settings: SqlSettings) -> None:
        self._lake = lake
        self._most = most
        self._settings = settings
        self._memo = Memo()
        self._lock = threading.Condition()
        self._idle: list[_Kept] = []
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
        state = self.state()
        wanted = state[0] if at is None else at
        kept = self._take(state, wanted)
        try:
            if kept is None:
                kept = _Kept(state, wanted, self._open(wanted))
            with self._used(kept.session):
                yield kept.session
        except BaseException:
            # What a failed or stopped statement leaves behind is closed rather than examined.
            if kept is not None:
                kept.session.close()
                kept = None
            raise
        finally:
            self._give(kept)

    @contextmanager
    def _used(self, session: Session) -> Iterator[None]:
        with self._lock:
            self._out.append(session)
        try:
            yield
        finally:
            with self._lock:
                self._out.remove(session)

    def close(self) -> None:
        """Close the sessions that are not in use, stop the statements of the others, and close those afterwards."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for kept in idle:
            kept.session.close()
        with self._lock:
            for _ in range(_STOPS):
                for session in self._out:
                    session.stop()
                if self._lock.wait_for(lambda: not self._out, timeout=_STOP_AGAIN_S):
                    return

    def _open(self, at: int) -> Session:
        found: Snapshot = get_snapshot(self._lake.catalog, at)
        return Session(self._lake, found, threads=2, memo=self._memo, load=_refuse, settings=self._settings)

    def _take(self, state: State, at: int) -> _Kept | None:
        """Return a session that fits, or None for one that is to be opened, when it is this reader's turn."""
        stale: list[_Kept] = []
        with self._lock:
            if not self._lock.wait_for(lambda: self._n_out < self._most, timeout=_WAIT_S):
                raise LakeBusyError("all readers are busy; try again in a moment")
            if self._closed:
                self._lock.notify()
                raise LakeBusyError("the explorer is about to end")
            self._n_out += 1
            stale = [kept for kept in self._idle if kept.state != state]
            self._idle = [kept for kept in self._idle if kept.state == state]
            fitting = next((kept for kept in reversed(self._idle) if kept.at == at), None)
            if fitting is not None:
                self._idle.remove(fitting)
        for kept in stale:
            kept.session.close()
        return fitting

    def _give(self, kept: _Kept | None) -> None:
        over: list[_Kept] = []
        with self._lock:
            self._n_out -= 1
            if kept is not None:
                kept.used = time.monotonic()
                self._idle.append(kept)
            if self._closed:
                over, self._idle = self._idle, []
            elif len(self._idle) > self._most:
                over = [self._idle.pop(0)]
            self._lock.notify()
        for one in over:
            one.session.close()
