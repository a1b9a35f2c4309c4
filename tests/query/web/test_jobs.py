"""Jobs: their order, their places in the queue, and what they tell."""

import threading
from collections.abc import Iterator

import pytest

from proponent.query.web.jobs import Job, Jobs
from proponent.schema.errors import LakeBusyError


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs(waiting=1)
    yield made
    made.close()


def test_a_cancelled_job_gives_its_place_in_the_queue_to_the_next(jobs: Jobs) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def held(job: Job) -> tuple[str | None, str | None]:
        job.at("holding")
        begun.set()
        assert go_on.wait(60)
        return "/held", None

    first = jobs.add("test", "first", held)
    assert begun.wait(60)
    second = jobs.add("test", "second", lambda _job: ("/second", None))
    with pytest.raises(LakeBusyError, match="1 questions are waiting"):
        jobs.add("test", "too many", lambda _job: (None, None))
    assert jobs.cancel(second.job).state == "cancelled"
    third = jobs.add("test", "third", lambda _job: ("/third", None))
    go_on.set()
    assert jobs._find(third.job).ended.wait(60)
    assert [jobs.view(one.job).state for one in (first, second, third)] == ["done", "cancelled", "done"]


def test_when_everything_ends_nobody_begins(jobs: Jobs) -> None:
    begun = threading.Event()

    def long(job: Job) -> tuple[str | None, str | None]:
        advance = job.at("counting")
        begun.set()
        while True:
            advance(1)

    jobs.add("test", "long", long)
    assert begun.wait(60)
    waiting = jobs.add("test", "waiting", lambda _job: ("/never", None))
    jobs.close()
    assert jobs.view(waiting.job).state == "cancelled"
    assert not jobs._worker.is_alive()
