"""What pages read from and actions work on: the lake, sessions of it, jobs, what asks the model, settings."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from proponent.query.session import Session
from proponent.schema.settings import ServeSettings, SqlSettings
from proponent.store.lake import LakeStore

from .asker import Asker
from .evaluated import Evaluated
from .jobs import Job, Jobs, JobView
from .readers import Readers, State

T = TypeVar("T")

N_READERS: Final = 4
"""Pages that read the lake at one time; the others wait their turn."""
PAGE_SQL: Final = SqlSettings(memory_limit=1 << 30, time_limit_s=20.0, max_rows=200_000, max_bytes=256 << 20)
"""What a page's own statement may take."""


@dataclass
class Explorer:
    """An open lake, with what is kept of it for readers.

    `status` tells what `proponent status` tells. All of it may be used by several threads, but `asker`, which only jobs
    use, by `ask`.
    """

    lake: LakeStore
    settings: ServeSettings
    asker: Asker
    status: Callable[[], dict[str, Any]]
    has_lake: bool = True
    """Whether what is shown is a lake of somebody's, and not files of results alone."""
    evaluations: Mapping[str, Evaluated] = field(default_factory=dict)
    """Evaluations that are shown beside the lake, by their names."""
    readers: Readers = field(init=False)
    jobs: Jobs = field(init=False)
    _kept: dict[str, tuple[State, Any]] = field(init=False, default_factory=dict)
    _keeping: threading.RLock = field(init=False, default_factory=threading.RLock)
    closing: threading.Event = field(init=False, default_factory=threading.Event)
    """Set when the server is about to end, so that nobody goes on watching."""

    def __post_init__(self) -> None:
        self.readers = Readers(self.lake, most=N_READERS, settings=PAGE_SQL)
        self.jobs = Jobs(waiting=self.settings.waiting)

    @property
    def name(self) -> str:
        """What the lake is called."""
        return self.lake.root.resolve().name

    @contextmanager
    def session(self, at: int | None = None) -> Iterator[Session]:
        """Give a session of a snapshot, by default the newest, to this thread."""
        with self.readers.session(at) as session:
            yield session

    def rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of one SELECT at the newest snapshot."""
        with self.session() as session:
            return session.sql(query, parameters).to_dicts()

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """Return what was made under a name since the lake last changed, or make it; for what every page wants."""
        state = self.readers.state()
        with self._keeping:
            if name not in self._kept or self._kept[name][0] != state:
                self._kept[name] = (state, make())
            made: T = self._kept[name][1]
            return made

    def ask(
        self, kind: str, title: str, work: Callable[[Asker, Job], tuple[str | None, str | None]], *, again: str
    ) -> JobView:
        """Queue something that asks the model. Raises LakeBusyError when too much waits."""
        return self.jobs.add(kind, title, lambda job: work(self.asker, job), again=again)

    def close(self) -> None:
        """Cancel jobs and close sessions; the lake is its opener's."""
        self.closing.set()
        self.jobs.close()
        self.readers.close()
