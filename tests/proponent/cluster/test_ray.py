"""The work of a Ray cluster of several nodes is that of one machine, whatever becomes of a node."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import proponent
from proponent.lake import Lake

NODES = Path(__file__).parent / "ray_nodes"
ROWS = 500
Rows = Callable[[Lake], dict[str, list[Any]]]


@pytest.fixture(scope="module")
def nodes(ray_nodes: Callable[[], Any]) -> Any:
    """Two nodes of a CPU each, which are one machine."""
    made = ray_nodes()
    made.add(2)
    return made


@pytest.fixture
def environment() -> dict[str, str]:
    """One thread each: with others the last bits of a norm may differ."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def work(
    tmp_path: Path, checkpoint_dir: Path, corpus_files: Callable[..., Path], environment: dict[str, str]
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the whole job on a lake, by one engine or the other."""
    corpus, started = corpus_files(tmp_path / "corpus", rows=ROWS, files=6), list[subprocess.Popen[str]]()

    def start(place: object, engine: str, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(NODES / "work.py"), str(place), str(corpus), str(checkpoint_dir), engine]
        started.append(
            subprocess.Popen(command, env=environment | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out


@pytest.fixture
def all_rows(rows_of: Rows) -> Rows:
    """Return the rows of a lake's tables with those of its traces, whose ids tell how often a table was published."""

    def rows(lake: Lake) -> dict[str, list[Any]]:
        found = rows_of(lake)
        for name, query in (
            ("encoders", "SELECT * EXCLUDE (created_at) FROM encoders ORDER BY ALL"),
            ("curvatures", "SELECT * EXCLUDE (created_at) FROM curvatures ORDER BY ALL"),
            # A mean is summed in the order of the rows, which is that in which units were done.
            (
                "traces",
                "SELECT * EXCLUDE (created_at, snapshot, trace_id) REPLACE (round(score_mean, 9) AS score_mean, "
                "round(score_sd, 9) AS score_sd) FROM traces ORDER BY ALL",
            ),
            (
                "hits",
                "SELECT query_id, filter, side, rank, passage_id, score, percentile FROM traces JOIN hits "
                "USING (trace_id) ORDER BY ALL",
            ),
        ):
            found[name] = lake.sql(query).to_dicts()
        return found

    return rows


@pytest.mark.full
def test_a_cluster_makes_the_same_lake_as_one_machine(
    tmp_path: Path, nodes: Any, work: Callable[..., subprocess.Popen[str]], all_rows: Rows
) -> None:
    for name in ("local", "ray"):
        proponent.init(tmp_path / name).close()
    local = work(tmp_path / "local", "local")
    ray = work(tmp_path / "ray", "ray", RAY_ADDRESS=nodes.address)
    told = [ended(local), ended(ray)]
    print(*told)  # how long each step took
    evaluations = [line for out in told for line in out.splitlines() if line.startswith("evaluation ")]
    assert len(evaluations) == 2
    assert evaluations[0] == evaluations[1]
    with proponent.open(tmp_path / "local") as one, proponent.open(tmp_path / "ray") as other:
        wanted, found = all_rows(one), all_rows(other)
        assert wanted.keys() == found.keys()
        assert len(wanted["encodings_model"]) == ROWS
        assert len(wanted["hits"]) > 40 * 20
        for name, rows in wanted.items():
            assert rows == found[name], name
        assert len(one.sql("FROM units")) == len(other.sql("FROM units"))
        assert other.check(deep=True) == one.check(deep=True)
        assert not list((tmp_path / "ray" / "work").iterdir())


def leased_by(place: Path, kind: str) -> set[int]:
    """Processes that hold units of a run of some kind."""
    query = "SELECT DISTINCT pid FROM units JOIN runs USING (run_id) WHERE kind = ? AND units.status = 'leased'"
    with contextlib.closing(sqlite3.connect(place / "catalog.db", timeout=30)) as catalog:
        return {pid for (pid,) in catalog.execute(query, [kind])}


def processes_of(raylet: int) -> set[int]:
    """Return the processes of a node."""
    return {raylet, *(process.pid for process in psutil.Process(raylet).children(recursive=True))}


def kill_node(raylet: int) -> None:
    """End a node as a machine ends that loses its power."""
    for process in processes_of(raylet):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["ingest", "encode"])
def test_a_node_that_is_killed_in_mid_run_loses_nothing_and_doubles_nothing(
    tmp_path: Path, nodes: Any, work: Callable[..., subprocess.Popen[str]], all_rows: Rows, kind: str
) -> None:
    for name in ("local", "ray"):
        proponent.init(tmp_path / name).close()
    nodes.add(1)
    raylets = nodes.raylets[1:]  # without the head
    local = work(tmp_path / "local", "local")
    ray = work(tmp_path / "ray", "ray", RAY_ADDRESS=nodes.address)
    deadline, killed = time.monotonic() + 240, list[int]()
    while not killed:
        assert time.monotonic() < deadline, "no node had a unit"
        assert ray.poll() is None, ray.communicate()
        held = leased_by(tmp_path / "ray", kind)
        killed = [raylet for raylet in raylets if held & processes_of(raylet)][:1]
        time.sleep(0.02)
    kill_node(killed[0])
    nodes.raylets.remove(killed[0])
    ended(local)
    ended(ray)
    with proponent.open(tmp_path / "local") as one, proponent.open(tmp_path / "ray") as other:
        wanted, found = all_rows(one), all_rows(other)
        for name, rows in wanted.items():
            assert rows == found[name], name
        assert other.check(deep=True) == one.check(deep=True)


@pytest.mark.full
def test_a_ctrl_c_lets_begun_units_be_finished_and_leaves_nothing_behind(
    tmp_path: Path, checkpoint_dir: Path, corpus_files: Callable[..., Path], environment: dict[str, str]
) -> None:
    place, folder = tmp_path / "lake", tempfile.mkdtemp(prefix="tmp-")  # a short path: Ray's sockets have a limit
    with proponent.init(place) as lake:
        lake.add_model(checkpoint_dir, name="model")
        lake.ingest(corpus_files(tmp_path / "corpus", rows=4000, files=1), corpus="c")
    command = [sys.executable, "-m", "proponent", "encode", str(place), "--engine", "ray", "--blocks=1", "--side=8"]
    encoding = subprocess.Popen(
        command, env=environment | {"TMPDIR": folder}, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 240
        while not leased_by(place, "encode"):
            assert time.monotonic() < deadline, "there was no unit"
            assert encoding.poll() is None, encoding.communicate()
            time.sleep(0.05)
        of_cluster = psutil.Process(encoding.pid).children(recursive=True)
        assert len(of_cluster) > 5
        os.killpg(encoding.pid, signal.SIGINT)  # as a terminal does, to the whole group
        _, errors = encoding.communicate(timeout=240)
    finally:
        encoding.kill()
        encoding.communicate()
    assert encoding.returncode == 130, errors
    said = [line for line in errors.splitlines() if line.strip()]
    assert said[-2:] == [
        "WARNING: finishing what has been begun; press Ctrl-C again to stop at once",
        "interrupted; start the same command again to go on",
    ], errors
    _, alive = psutil.wait_procs(of_cluster, timeout=30)
    assert not alive
    assert not os.listdir(folder), "Ray's own files"
    os.rmdir(folder)
    with proponent.open(place) as lake:
        [run] = lake.sql("SELECT status, error, counts FROM runs WHERE kind = 'encode'").to_dicts()
        assert (run["status"], run["error"]) == ("failed", "KeyboardInterrupt: ")
        n = len(lake.sql("SELECT DISTINCT text_hash FROM encodings JOIN passages USING (passage_id)"))
        assert 0 < n < 4000
        assert n % 512 == 0, "whole units"
        assert lake.check(deep=True) == []
