"""What pages read from and actions work on: the lake, sessions of it, jobs, what asks the model, settings."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from proponent.query.session import Session
from proponent.schema.settings import ServeSettings, SqlSettings
from proponent.store.lake import LakeStore

from .asker import Asker
from .evaluated import Evaluated
from .jobs import Job, Jobs, JobView
from .readers import Readers

T = TypeVar("T")

N_READERS: Final = 4
"""Pages that read the lake at one time; the others wait their turn."""
MOST_KEPT: Final = 128
MOST_REMEMBERED: Final = 2000
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
    _kept: OrderedDict[Hashable, Future[Any]] = field(init=False, default_factory=OrderedDict)
    _remembered: OrderedDict[Hashable, Any] = field(init=False, default_factory=OrderedDict)
    _keeping: threading.Lock = field(init=False, default_factory=threading.Lock)
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

    def kept(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return what was made under a name since the lake last changed, or make it; for what several pages want.

        Who comes while it is made waits for it, and for nothing else.
        """
        key = (self.readers.state(), name)
        with self._keeping:
            known = self._kept.get(key)
            future: Future[T] = known or Future()
            self._kept[key] = future
            self._kept.move_to_end(key)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        if known is None:
            try:
                future.set_result(make())
            except BaseException as error:
                with self._keeping:
                    self._kept.pop(key, None)
                future.set_exception(error)
        return future.result()

    def remember(self, name: Hashable, value: object) -> None:
        """Keep something that took long, whatever becomes of the lake; what was kept first is forgotten."""
        with self._keeping:
            self._remembered[name] = value
            while len(self._remembered) > MOST_REMEMBERED:
                self._remembered.popitem(last=False)

    def remembered(self, name: Hashable) -> Any:
        """Return what is remembered under a name, or None."""
        with self._keeping:
            return self._remembered.get(name)

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
