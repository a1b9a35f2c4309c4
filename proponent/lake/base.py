"""What every part of an open lake builds on: its store, its encoders, and its SQL session."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sqlalchemy import func, select

from proponent.encoders import EncoderCache, encoder_row
from proponent.schema import catalog as models
from proponent.schema.settings import SqlSettings
from proponent.store.commit import finish_interrupted
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot, get_snapshot, latest_snapshot

if TYPE_CHECKING:
    from proponent.encode.checkpoint import DeviceMap
    from proponent.query.session import Session

StrPath = str | Path
Progress = Callable[[int], object]


def ignore(_n: int) -> None:
    """Take no notice of progress."""


class LakeBase:
    """An open lake, without what one does with it."""

    def __init__(self, store: LakeStore, *, device_map: "DeviceMap | None" = None) -> None:
        self.store = store
        self._encoders = EncoderCache(store, device_map=device_map)
        self._session: tuple[tuple[int, ...], Session] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Lake {self.store.root}>"

    def close(self) -> None:
        """Close the SQL session and the catalog."""
        if self._session:
            self._session[1].close()
            self._session = None
        self.store.close()

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot."""
        return latest_snapshot(self.store.catalog)

    @contextmanager
    def _session_at(self, at: int | None, *, settings: SqlSettings | None = None) -> "Iterator[Session]":
        """Give a session at a snapshot, by default the newest. Raises NotFoundError when there is none."""
        # The memory of a session is settled when it is made: a query that asks for another gets a session of its own.
        if at is None and (settings is None or settings.memory_limit == SqlSettings().memory_limit):
            yield self._current_session()
            return
        from proponent.query.session import Session

        snapshot = self.snapshot if at is None else get_snapshot(self.store.catalog, at)
        with Session(self.store, snapshot, load=self._encoders.find, settings=settings) as session:
            yield session

    def _current_session(self) -> "Session":
        from proponent.query.session import Session

        newest = self.snapshot
        with self.store.catalog.read() as session:
            # Whatever changes the catalog without a new snapshot is a run.
            n_runs, n_finished = session.execute(select(func.count(), func.count(models.Run.finished_at))).one()
        state = (newest.snapshot_id, n_runs, n_finished)
        if self._session is None or self._session[0] != state:
            memo = None
            if self._session is not None:
                self._session[1].close()
                memo = self._session[1].memo
            self._session = (state, Session(self.store, newest, memo=memo, load=self._encoders.find))
        return self._session[1]

    def _state(self, at: int | None) -> Snapshot:
        """Return a snapshot by its number, or the newest after what was cut short is finished."""
        if at is not None:
            return get_snapshot(self.store.catalog, at)
        finish_interrupted(self.store)
        return self.snapshot

    def _trace_of_gradients(self, name: str) -> tuple[str, models.Encoder]:
        """Return the id of a stored trace, and its encoder."""
        from proponent.query.stored import require_gradients, resolve_trace

        trace_id = resolve_trace(self.store, name)
        with self.store.catalog.read() as session:
            stored = session.get_one(models.Trace, trace_id)
        require_gradients(trace_id, stored.method)
        return trace_id, encoder_row(self.store, stored.encoder)
