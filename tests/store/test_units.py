"""A unit of work is done by one worker at a time, and counted once, whoever dies."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from proponent import migrations
from proponent.schema.catalog import Run, Unit, now
from proponent.schema.errors import CorpusError, LeaseLostError
from proponent.store.at_work import is_anybody_at_work, runs_at_work
from proponent.store.catalog import Catalog, catalog_engine
from proponent.store.leases import process_start
from proponent.store.runs import new_run
from proponent.store.units import (
    MOST_ATTEMPTS,
    add_units,
    all_units,
    count_units,
    failure_of,
    remove_units,
    reopen_units,
    repeat_units,
    reports_of,
    take_unit,
    written_units,
)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.full)])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    on_postgres = request.param == "postgres"
    engine = (
        request.getfixturevalue("empty_postgres") if on_postgres else catalog_engine("sqlite:///c.db", root=tmp_path)
    )
    migrations.upgrade(engine)
    yield Catalog(engine)
    engine.dispose()


@pytest.fixture
def run_id(catalog: Catalog) -> str:
    run = new_run("encode", {"encoder": "e"})
    with catalog.write() as session:
        session.add(run)
    add_units(catalog, run.run_id, [{"start": n} for n in range(3)])
    return run.run_id


def change(catalog: Catalog, ordinal: int, **values: object) -> None:
    with catalog.write() as session:
        session.execute(update(Unit).where(Unit.ordinal == ordinal).values(**values))


def test_units_are_given_out_in_order_each_to_one(catalog: Catalog, run_id: str) -> None:
    taken = [take_unit(catalog, run_id) for _ in range(4)]
    assert [unit.work if unit else None for unit in taken] == [{"start": 0}, {"start": 1}, {"start": 2}, None]
    assert count_units(catalog, run_id) == {"leased": 3}


def test_a_finished_unit_keeps_its_result(catalog: Catalog, run_id: str) -> None:
    unit = take_unit(catalog, run_id)
    assert unit is not None
    unit.finish({"rows": 5})
    [written] = written_units(catalog, run_id)
    assert (written.ordinal, written.result, written.attempts) == (0, {"rows": 5}, 1)


def test_a_unit_that_is_handed_back_goes_to_the_next(catalog: Catalog, run_id: str) -> None:
    unit = take_unit(catalog, run_id)
    assert unit is not None
    unit.hand_back()
    again = take_unit(catalog, run_id)
    assert again is not None
    assert again.ordinal == 0
    assert all_units(catalog, run_id)[0].attempts == 1


def dead_process() -> tuple[int, str]:
    """The id of a process that is gone, and when it began."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process_start(child.pid)
    child.communicate(b"\n")
    return child.pid, started


def test_a_dead_workers_unit_is_taken_over_at_once_and_its_late_work_is_refused(catalog: Catalog, run_id: str) -> None:
    late = take_unit(catalog, run_id)
    assert late is not None
    pid, started = dead_process()
    change(catalog, 0, pid=pid, process_start=started)
    change(catalog, 1, status="done")
    change(catalog, 2, status="done")
    heir = take_unit(catalog, run_id)
    assert heir is not None
    assert heir.ordinal == 0
    for late_act in (
        late.renew,
        late.hand_back,
        lambda: late.finish({}),
        lambda: late.fail(CorpusError("x")),
        lambda: late.report({}),
    ):
        with pytest.raises(LeaseLostError, match="unit 0 was given to another worker"):
            late_act()
    heir.finish({"by": "heir"})
    assert [unit.result for unit in written_units(catalog, run_id)] == [{"by": "heir"}]


def test_a_unit_of_another_machine_is_taken_over_when_it_expires(catalog: Catalog, run_id: str) -> None:
    assert all(take_unit(catalog, run_id) for _ in range(3))
    change(catalog, 1, host="elsewhere")
    assert take_unit(catalog, run_id) is None
    change(catalog, 1, expires_at=now() - timedelta(seconds=1))
    heir = take_unit(catalog, run_id)
    assert heir is not None
    assert heir.ordinal == 1


def test_a_unit_that_kills_its_workers_is_given_up(catalog: Catalog, run_id: str) -> None:
    pid, started = dead_process()
    for _ in range(MOST_ATTEMPTS):
        unit = take_unit(catalog, run_id)
        assert unit is not None
        assert unit.ordinal == 0
        change(catalog, 0, pid=pid, process_start=started, status="leased")
        change(catalog, 1, status="done")
        change(catalog, 2, status="done")
    assert take_unit(catalog, run_id) is None
    assert failure_of(catalog, run_id) == {"error": "3 workers died on the same unit, 0", "kind": "WorkerError"}


def test_a_worker_of_a_run_that_is_over_finds_its_unit_gone(catalog: Catalog, run_id: str) -> None:
    unit = take_unit(catalog, run_id)
    assert unit is not None
    remove_units(catalog, [run_id])
    with pytest.raises(LeaseLostError):
        unit.finish({})
    with catalog.read() as session:
        assert session.get(Run, run_id) is not None


def test_many_that_ask_at_once_get_different_units(catalog: Catalog, run_id: str) -> None:
    add_units(catalog, run_id, [{"start": n} for n in range(3, 40)])
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: take_unit(catalog, run_id), range(44)))
    assert sorted(unit.work["start"] for unit in taken if unit) == list(range(40))


def test_how_far_a_unit_is_can_be_seen_until_it_is_written(catalog: Catalog, run_id: str) -> None:
    first, second = take_unit(catalog, run_id), take_unit(catalog, run_id)
    assert first is not None
    assert second is not None
    first.report({"rows": 1})
    second.report({"rows": 3})
    assert reports_of(catalog, run_id) == [{"rows": 1}, {"rows": 3}]
    second.finish({})
    assert reports_of(catalog, run_id) == [{"rows": 1}]
    first.hand_back()
    assert reports_of(catalog, run_id) == []


def test_a_run_that_goes_on_tries_again_what_failed_and_keeps_what_was_written(catalog: Catalog, run_id: str) -> None:
    written, failed = take_unit(catalog, run_id), take_unit(catalog, run_id)
    assert written is not None
    assert failed is not None
    written.finish({"rows": 1})
    failed.fail(CorpusError("the disk is full"))
    assert failure_of(catalog, run_id) == {"error": "the disk is full", "kind": "CorpusError"}
    reopen_units(catalog, run_id)
    assert failure_of(catalog, run_id) is None
    assert [(unit.status, unit.result) for unit in all_units(catalog, run_id)] == [
        ("written", {"rows": 1}),
        ("waiting", None),
        ("waiting", None),
    ]


def test_a_unit_can_be_done_once_more_with_other_work(catalog: Catalog, run_id: str) -> None:
    unit = take_unit(catalog, run_id)
    assert unit is not None
    unit.finish({"rows": 1})
    [done] = written_units(catalog, run_id)
    assert written_units(catalog, run_id, known=[done.unit_id]) == []
    repeat_units(catalog, run_id, {0: {"start": 0, "again": True}})
    again = take_unit(catalog, run_id)
    assert again is not None
    assert again.work == {"start": 0, "again": True}


def test_what_is_at_work_is_told_with_what_is_published_already(catalog: Catalog) -> None:
    run = new_run("encode", {"encoder": "e"})
    with catalog.write() as session:
        session.add(run)
    add_units(catalog, run.run_id, [{"start": at, "stop": at + 10} for at in (0, 10, 20)])
    assert not is_anybody_at_work(catalog)
    first, second = take_unit(catalog, run.run_id), take_unit(catalog, run.run_id)
    assert first is not None
    assert second is not None
    first.finish({"counts": {"encoded": 9, "too_long": 1, "tokens": 2_000_000_000}, "batch": None, "fidelity": None})
    change(catalog, 0, status="done")
    second.finish({"counts": {"encoded": 10, "tokens": 2_000_000_000}, "batch": None, "fidelity": None})
    third = take_unit(catalog, run.run_id)
    assert third is not None
    [seen] = runs_at_work(catalog)
    assert (seen.units_done, seen.units_total, seen.total) == (2, 3, 30)
    assert seen.throughput is not None
    assert (seen.throughput.n, seen.throughput.tokens) == (20, 4_000_000_000)
    [workers] = seen.workers.values()
    assert workers.n == 1
    assert abs((now() - workers.heartbeat).total_seconds()) < 60
    assert is_anybody_at_work(catalog)
    third.hand_back()
    [seen] = runs_at_work(catalog)
    assert (seen.workers, seen.left_s, is_anybody_at_work(catalog)) == ({}, None, False)
