"""What pages read from and actions work on: the lake, sessions of it, jobs, what asks the model, settings."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, TypeVar

from proponent.observe.metrics import Metrics
from proponent.query.functions import may_call
from proponent.query.memo import Memo
from proponent.query.session import Session
from proponent.schema.settings import ServeSettings, SqlSettings
from proponent.store.lake import LakeStore

from .asker import Asker
from .evaluated import Evaluated
from .jobs import Job, Jobs, JobView
from .kept import Kept
from .readers import Readers, State
from .waiting import reading

T = TypeVar("T")

N_READERS: Final = 4
"""Pages that read the lake at one time; the others wait their turn."""
MOST_KEPT: Final = 128
MOST_PAGES: Final = 512
"""Pages that are kept as they were sent, tens of kilobytes each."""
MOST_REMEMBERED: Final = 2000
N_STATEMENTS: Final = 3
"""Statements of people that run at one time."""
N_CALLING: Final = 1
"""... and those that call functions besides, each in a session that it has to itself."""
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
    metrics: Metrics | None = None
    """What is counted, where somebody may ask for it at /metrics."""
    readers: Readers = field(init=False)
    statements: Readers = field(init=False)
    """Sessions for what people wrote themselves, which may take as long as it likes without keeping pages waiting."""
    calling: Readers = field(init=False)
    jobs: Jobs = field(init=False)
    _kept: Kept = field(init=False, default_factory=lambda: Kept(MOST_KEPT))
    _pages: Kept = field(init=False, default_factory=lambda: Kept(MOST_PAGES))
    _remembered: OrderedDict[tuple[str, ...], Any] = field(init=False, default_factory=OrderedDict)
    _marks: dict[str, tuple[int, int]] = field(init=False, default_factory=dict)
    """Of each trace of which something is remembered, how many things, and a number that no state of it had before."""
    _numbers: Iterator[int] = field(init=False, default_factory=lambda: count(1))
    _keeping: threading.Lock = field(init=False, default_factory=threading.Lock)
    closing: threading.Event = field(init=False, default_factory=threading.Event)
    """Set when the server is about to end, so that nobody goes on watching."""

    def __post_init__(self) -> None:
        memo = Memo()
        self.readers = Readers(self.lake, most=N_READERS, settings=PAGE_SQL, memo=memo, shared=True)
        self.statements = Readers(self.lake, most=N_STATEMENTS, settings=PAGE_SQL, memo=memo, shared=True)
        self.calling = Readers(self.lake, most=N_CALLING, settings=PAGE_SQL, memo=memo, shared=False)
        self.jobs = Jobs(waiting=self.settings.waiting)

    @property
    def name(self) -> str:
        """What the lake is called."""
        return self.lake.root.resolve().name

    @contextmanager
    def session(self, at: int | None = None) -> Iterator[Session]:
        """Give a session of a snapshot, by default the newest, to this thread."""
        with self.readers.session(at) as session, reading(session):
            yield session

    @contextmanager
    def statement_session(self, query: str) -> Iterator[Session]:
        """Give a session of the newest snapshot to this thread, for a statement that somebody wrote."""
        readers = self.calling if may_call(query) else self.statements
        with readers.session() as session, reading(session):
            yield session

    def rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of one SELECT at the newest snapshot."""
        with self.session() as session:
            return session.sql(query, parameters).to_dicts()

    def state(self) -> State:
        """Return what tells one state of the lake from another."""
        return self.readers.state()

    def kept(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return what was made under a name since the lake last changed, or make it; for what several pages want."""
        return self._kept.get((self.state(), name), make)

    def kept_settled(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return what was made under a name since the lake last changed but for new traces, or make it."""
        return self._kept.get((self.state().settled, name), make)

    def kept_of_trace(self, trace_id: str, name: Hashable, make: Callable[[], T]) -> T:
        """Return what was made of a stored trace, or make it: other traces that are stored since change none of it."""
        return self._kept.get((self.state().settled, trace_id, name), make)

    def state_of_trace(self, trace_id: str) -> Hashable:
        """Return what tells one state of what is known of a stored trace from another."""
        settled = self.state().settled  # not under the lock, which a slow catalog would keep from everybody
        with self._keeping:
            return settled, trace_id, self._marks.get(trace_id, (0, 0))[1]

    def kept_page(self, address: Hashable, state: Hashable, make: Callable[[], T]) -> T:
        """Return a page that was made while what it depends on was the same, or make it."""
        return self._pages.get((address, state), make)

    def remember(self, name: tuple[str, ...], value: object) -> None:
        """Keep something that took long, whatever becomes of the lake; what was kept first is forgotten.

        `name` says what it is and then of which trace.
        """
        with self._keeping:
            self._mark(name[1], more=name not in self._remembered)
            self._remembered[name] = value
            while len(self._remembered) > MOST_REMEMBERED:
                forgotten, _ = self._remembered.popitem(last=False)
                self._mark(forgotten[1], more=-1)

    def _mark(self, trace_id: str, *, more: int) -> None:
        """Say that what is remembered of a trace is not what it was; without anything, it is what it was at first."""
        n = self._marks.pop(trace_id, (0, 0))[0] + more
        if n:
            self._marks[trace_id] = n, next(self._numbers)

    def remembered(self, name: tuple[str, ...]) -> Any:
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
        self.statements.close()
        self.calling.close()
