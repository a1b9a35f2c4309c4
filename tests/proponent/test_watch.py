"""Watching shows who works on a lake: drawn anew in a terminal, lines elsewhere, until Ctrl-C."""

import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from pexpect.fdpexpect import fdspawn
from sqlalchemy import update

import proponent
from proponent.lake import Lake
from proponent.schema.catalog import Unit, now
from proponent.schema.errors import WorkerError
from proponent.store.at_work import runs_at_work, workers_at_work
from proponent.store.leases import TTL
from proponent.store.runs import recorded_run
from proponent.store.units import HeldUnit, add_units, has_units, take_unit

HERE = (sys.executable, "-u", "-m", "proponent", "status")


def taken(lake: Lake, run_id: str) -> HeldUnit:
    unit = take_unit(lake.store.catalog, run_id)
    assert unit is not None
    return unit


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[Lake]:
    """A lake with a run of five units: one done and one held here, one held elsewhere, one failed, one that waits."""
    with proponent.init(tmp_path / "lake") as lake:
        catalog = lake.store.catalog
        with recorded_run(catalog, "encode", {"encoder": "tiny"}) as run:
            works = [{"start": at * 10, "stop": at * 10 + 10} for at in range(5)]
            add_units(catalog, run.run_id, works)
            done, held, elsewhere, failed = (taken(lake, run.run_id) for _ in range(4))
            done.finish({"counts": {"encoded": 9, "too_long": 1, "tokens": 90}, "batch": None, "fidelity": None})
            held.report({"texts": 4})
            elsewhere.report({"texts": 3})
            failed.fail(WorkerError("no"))
            with catalog.write() as session:
                moved = update(Unit).where(Unit.ordinal == 2)
                session.execute(moved.values(host="other/boot/pid", pid=7, expires_at=now() + TTL))
            yield lake


def test_workers_are_told_with_what_they_have_done(at_work: Lake) -> None:
    catalog = at_work.store.catalog
    [run] = runs_at_work(catalog)
    assert run.throughput is not None
    assert (run.units_done, run.units_total, run.throughput.n, run.total) == (1, 5, 17, 50)
    assert {machine: workers.n for machine, workers in run.workers.items()}.pop("other") == 1
    here, other = sorted(workers_at_work(catalog, run.run_id), key=lambda one: one.machine == "other")
    assert (here.done, here.leased, here.failed, here.n, here.is_alive) == (1, 1, 1, 14, True)
    assert (other.machine, other.pid, other.leased, other.n) == ("other", 7, 1, 3)
    assert other.silent_s is not None
    assert other.silent_s < TTL.total_seconds()
    assert has_units(catalog, run.run_id, "waiting")
    assert not has_units(catalog, run.run_id, "published")


def test_lines_go_into_a_pipe_and_ctrl_c_ends_it_well(at_work: Lake) -> None:
    command = [*HERE, str(at_work.store.root), "--watch", "0.2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(6)]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "encode of tiny: 1 of 5 units, 17 texts" in lines[0]
    assert "left" in lines[0]
    assert any("other 7: 0 done, 1 leased, 0 failed" in line for line in lines[1:3])
    assert "encode of tiny" in lines[3], "and again"
    assert not any("\x1b" in line for line in lines)


def test_a_terminal_is_drawn_anew_and_ctrl_c_ends_it_well(at_work: Lake) -> None:
    mine, its = os.openpty()
    termios.tcsetwinsize(mine, (40, 120))
    command = [*HERE, str(at_work.store.root), "--watch"]
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its)
    os.close(its)
    terminal = fdspawn(mine, encoding="utf-8", timeout=60)
    terminal.expect("encode of tiny: 1 of 5 units")
    terminal.expect("last heartbeat")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    terminal.close()


def test_a_lake_that_nobody_works_on_says_so(tmp_path: Path) -> None:
    proponent.init(tmp_path / "lake").close()
    process = subprocess.Popen([*HERE, str(tmp_path / "lake"), "--watch"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "nothing is at work; snapshot 1" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_command_that_is_told_to_end_ends_as_by_ctrl_c(tmp_path: Path) -> None:
    proponent.init(tmp_path / "lake").close()
    command = [
        sys.executable,
        "-u",
        "-m",
        "proponent",
        "work",
        str(tmp_path / "lake"),
        "--wait",
        "600",
        "--metrics",
        "0",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "metrics are at" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().startswith("interrupted")


@pytest.mark.parametrize("seconds", ["nan", "inf", "0"])
def test_no_time_between_two_looks_is_told(tmp_path: Path, seconds: str) -> None:
    proponent.init(tmp_path / "lake").close()
    command = [*HERE, str(tmp_path / "lake"), "--watch", seconds]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Invalid value for '--watch'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wait_that_is_no_number_is_told(tmp_path: Path) -> None:
    proponent.init(tmp_path / "lake").close()
    command = [sys.executable, "-m", "proponent", "work", str(tmp_path / "lake"), "--wait", "nan"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "Invalid value for '--wait'" in done.stderr
