"""Jobs: what takes longer than a page may, run one after another on a thread of its own, and watched meanwhile.

Notable: the queue is bounded, so that a crowd gets an answer at once: that it is full. A job ends early when what it
tells of its progress raises, so that cancelling needs nothing of what it runs.
"""

import logging
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Final, Literal

import msgspec

from proponent.query.report.content import Precision, Side
from proponent.schema.catalog import now
from proponent.schema.errors import LakeBusyError, NotFoundError, ProponentError

_log = logging.getLogger(__name__)

MOST_KEPT: Final = 500
"""Jobs that are remembered; of more, those that ended first are forgotten."""

State = Literal["waiting", "running", "done", "failed", "cancelled"]


class BestSoFar(msgspec.Struct, frozen=True, kw_only=True):
    """A hit of a question that is still being answered."""

    side: Side
    rank: int
    score: float
    passage_id: str
    doc_key: str
    title: str | None
    source: str | None
    published: date | None
    published_precision: Precision | None
    text: str
    """How the passage begins."""


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it is at a moment."""

    job: str
    kind: str
    title: str
    state: State
    stage: str = ""
    """What is being done."""
    n_done: int = 0
    n_total: int = 0
    """How much of the stage is to be done; 0 where nobody knows."""
    best: tuple[BestSoFar, ...] = ()
    """The first hits of either side among what was scored so far."""
    ahead: int = 0
    """Jobs that run before this one begins."""
    asked_at: datetime
    url: str | None = None
    """Where the result is, as soon as it can be looked at; what is added to it may take longer."""
    again: str | None = None
    """Where to ask again, with the fields filled in."""
    weighs: str | None = None
    """Trace of which it adds up whole sources now."""
    value: str | None = None
    """A result that is a text, such as a completion."""
    error: str | None = None


_TOLD: Final = (
    *("kind", "title", "state", "stage", "n_done", "n_total", "best"),
    *("asked_at", "url", "weighs", "again", "value"),
)
"""What a view has as its job has it."""


class CancelledError(Exception):
    """Somebody cancelled the job."""


class Job:
    """One job; its work tells it what it is at."""

    def __init__(self, kind: str, title: str, work: "Work", again: str | None) -> None:
        self.job_id = secrets.token_urlsafe(12)
        self.kind, self.title, self.again = kind, title, again
        self.asked_at = now()
        self.state: State = "waiting"
        self.stage, self.n_done, self.n_total = "", 0, 0
        self.best: tuple[BestSoFar, ...] = ()
        self.url: str | None = None
        self.weighs: str | None = None
        self.value: str | None = None
        self.error: str | None = None
        self._work = work
        self._cancelled = threading.Event()
        self.ended = threading.Event()

    def at(self, stage: str, total: int = 0) -> Callable[[int], None]:
        """Say what is done next, and how much it is; return what is told how much was done."""
        self._go_on()
        self.stage, self.n_done, self.n_total = stage, 0, total

        def advance(n: int) -> None:
            self._go_on()
            self.n_done += n

        return advance

    def cancel(self) -> None:
        """End the job at its next step, or before its first."""
        self._cancelled.set()
        if self.state == "waiting":
            self.state = "cancelled"
            self.ended.set()

    def run(self) -> None:
        """Do the work, on the thread of a worker."""
        try:
            self._go_on()
            self.url, self.value = self._work(self)
            self.state = "done"
        except CancelledError:
            self.state = "cancelled"
        except ProponentError as error:
            self.error, self.state = str(error), "failed"
        except Exception as error:
            _log.exception("a job failed")
            self.error, self.state = f"{type(error).__name__}; the server's log says more", "failed"
        finally:
            self.ended.set()

    def _go_on(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError


Work = Callable[[Job], tuple[str | None, str | None]]
"""Does a job's work, and returns where its result is, or a text that is its result."""


class Jobs:
    """Runs jobs in the order they came, on one thread; `waiting` of them may wait.

    One, since a model is used by one thread at a time, and takes all cores for itself.
    """

    def __init__(self, *, waiting: int) -> None:
        self._most_waiting = waiting
        self._waiting: deque[Job] = deque()
        self._known: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._worker.start()

    def add(self, kind: str, title: str, work: Work, *, again: str | None = None) -> JobView:
        """Queue a job. Raises LakeBusyError when too many wait."""
        job = Job(kind, title, work, again)
        with self._lock:
            if len(self._waiting) >= self._most_waiting:
                raise LakeBusyError(f"{self._most_waiting} questions are waiting already; ask again in a moment")
            self._waiting.append(job)
            self._known[job.job_id] = job
            self._forget()
            self._lock.notify()
        return self._view(job)

    def view(self, job_id: str) -> JobView:
        """Return a job as it is now. Raises NotFoundError for an id of none."""
        return self._view(self._find(job_id))

    def cancel(self, job_id: str) -> JobView:
        """Cancel a job; one that has ended stays as it is."""
        job = self._find(job_id)
        with self._lock:
            job.cancel()
            if job in self._waiting:  # its place is for somebody else
                self._waiting.remove(job)
        return self._view(job)

    def active(self) -> list[JobView]:
        """Return the jobs that wait or run, first come first."""
        with self._lock:
            jobs = [job for job in self._known.values() if not job.ended.is_set()]
        return [self._view(job) for job in jobs]

    def close(self, *, patience_s: float = 5.0) -> None:
        """Cancel everything, and wait a little for what runs."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            for job in self._known.values():
                job.cancel()
            self._lock.notify()
        self._worker.join(patience_s)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job.run()

    def _next(self) -> Job | None:
        """Wait for the next job and return it as one that runs, or None when everything ends."""
        with self._lock:
            self._lock.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            job = self._waiting.popleft()
            job.state = "running"
            return job

    def _find(self, job_id: str) -> Job:
        with self._lock:
            if job_id not in self._known:
                raise NotFoundError("there is no such job; jobs are forgotten when the server ends")
            return self._known[job_id]

    def _forget(self) -> None:
        ended = [name for name, job in self._known.items() if job.ended.is_set()]
        for name in ended[: max(0, len(self._known) - MOST_KEPT)]:
            del self._known[name]

    def _view(self, job: Job) -> JobView:
        ahead = 0
        if job.state == "waiting":
            with self._lock:
                for other in self._known.values():
                    if other is job:
                        break
                    ahead += not other.ended.is_set()
        facts: dict[str, Any] = {name: getattr(job, name) for name in _TOLD}
        return JobView(job=job.job_id, ahead=ahead, error=job.error, **facts)
