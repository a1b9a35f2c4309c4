"""Models that the nodes of a Ray cluster train anew, and the steps that they take, are those of one machine."""

import contextlib
import json
import os
import re
import shlex
import signal
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
from proponent.schema.settings import EncoderSettings

pytestmark = pytest.mark.full

ROWS = 60
WAITS = 240.0
RETRAINING = ("--lds", "4", "--counterfactual", "2", "--without", "3", "--draws", "1", "--retrain-seeds", "2")
TRAINING = (*RETRAINING, "--retrain-epochs", "2", "--retrain-batch", "8", "--processes", "1")

Run = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """What the nodes have for TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="scratch-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def nodes(ray_nodes: Callable[[], Any], scratch: Path) -> Any:
    """Three nodes of a CPU each, which are one machine."""
    made = ray_nodes()
    made.add(3, TMPDIR=str(scratch))
    return made


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    rows = [
        {"id": str(n), "text": f"The capital of country {n} lies on a river. It has {n * 7} bridges."}
        for n in range(ROWS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = [
        {"prompt": f"The capital of country {n} lies", "target": " on a river", "doc_keys": [str(n)]} for n in range(6)
    ]
    (folder / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    with proponent.init(folder / "lake") as lake:
        lake.add_model(checkpoint, name="model")
        lake.ingest(folder / "rows.jsonl", corpus="c")
        lake.encode(settings=EncoderSettings(blocks=1, side=8, sample=40))
    return folder


@pytest.fixture
def run(lake: Path, nodes: Any) -> Iterator[Run]:
    """Start an evaluation, on the cluster or on this machine, with one thread: with others last bits may differ."""
    started = list[subprocess.Popen[str]]()

    def start(engine: str, *options: object) -> subprocess.Popen[str]:
        arguments = ("evaluate", lake / "lake", lake / "facts.jsonl", "--resamples", 100, "--engine", engine, *options)
        command = [sys.executable, "-m", "proponent", *map(str, arguments)]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment |= {"OMP_NUM_THREADS": "1"} | ({"RAY_ADDRESS": nodes.address} if engine == "ray" else {})
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=WAITS)
    assert process.returncode == 0, errors


def told(process: subprocess.Popen[str], code: int) -> str:
    """Return the last line that a command says that fails."""
    _, errors = process.communicate(timeout=WAITS)
    assert process.returncode == code, errors
    return str([line for line in errors.splitlines() if line.strip()][-1])


def results_of(folder: Path) -> dict[str, Any]:
    """Return the results of an evaluation, without what they cost."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text("utf-8"))
    for method in found["methods"]:
        del method["cost"]
    return found


def kept_of(folder: Path) -> list[str]:
    """Return what models say, without the order in which they were trained."""
    path = folder / "retrained.jsonl"
    return sorted(path.read_text("utf-8").splitlines()) if path.exists() else []


def until(is_so: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """Wait until something is so, while a command is at work."""
    deadline = time.monotonic() + WAITS
    while not (found := is_so()):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return found


def is_at_work(node: psutil.Process) -> bool:
    """Return whether a process of a node does something for a lake, which Ray says in its title."""
    for process in node.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "_with_lake" in " ".join(process.cmdline()):
                return True
    return False


def is_left_empty(scratch: Path) -> bool:
    """Return whether nothing that trained has left a file, given the seconds in which that is cleared away."""
    deadline = time.monotonic() + 30
    while left := list(scratch.glob("proponent-retrain*")):
        if time.monotonic() > deadline:
            return not left
        time.sleep(0.1)
    return True


def test_an_evaluation_on_a_cluster_is_that_of_one_machine(run: Run, tmp_path: Path) -> None:
    asked = ("--methods", "trackstar,random", "--tail-patch", 4, *TRAINING)
    ended(run("local", *asked, "-o", tmp_path / "local"))
    ended(run("ray", *asked, "-o", tmp_path / "ray"))
    wanted, found = results_of(tmp_path / "local"), results_of(tmp_path / "ray")
    assert len(wanted["lds"]["values"]["trackstar"]) == 6
    assert len(wanted["steps"]["values"]["trackstar, proponents"]) == 4
    assert len(wanted["counterfactual"]["means"]) == 2
    assert wanted == found
    assert kept_of(tmp_path / "local") == kept_of(tmp_path / "ray")


def test_a_node_that_dies_while_it_trains_loses_nothing(run: Run, nodes: Any, tmp_path: Path) -> None:
    asked = ("--methods", "random", "--lds", 9, "--retrain-epochs", 6, "--retrain-batch", 4)
    ray = run("ray", *asked, "-o", tmp_path / "ray")
    node = psutil.Process(nodes.raylets.pop())
    until(lambda: kept_of(tmp_path / "ray") and is_at_work(node), ray)
    for process in [node, *node.children(recursive=True)]:
        process.kill()
    assert len(kept_of(tmp_path / "ray")) < 9
    ended(ray)
    ended(run("local", *asked, "-o", tmp_path / "local"))
    assert len(kept_of(tmp_path / "ray")) == 9
    assert kept_of(tmp_path / "local") == kept_of(tmp_path / "ray")
    assert results_of(tmp_path / "local") == results_of(tmp_path / "ray")


@pytest.mark.parametrize("script", ["import sys; sys.exit('no memory left')", "pass"])
def test_what_a_model_fails_with_is_told_as_on_one_machine(run: Run, scratch: Path, script: str) -> None:
    command = shlex.join([sys.executable, "-c", script, "{passages}", "{output}"])
    asked = ("--methods", "random", *RETRAINING, "--retrain-command", command, "--processes", 1)
    local, ray = (told(run(engine, *asked), 1) for engine in ("local", "ray"))
    folder = re.compile(r"/\S+/model")  # where it should have been, which is the worker's own
    assert folder.sub("FOLDER", local) == folder.sub("FOLDER", ray)
    assert local.startswith("error: ")
    assert is_left_empty(scratch)


COMMAND = """
import subprocess, sys, pathlib
place = pathlib.Path(sys.argv[1])
sleeping = subprocess.Popen(["sleep", "1000"])
pathlib.Path(sys.argv[3] + ".part").write_text("half")
(place / str(sleeping.pid)).touch()
sleeping.wait()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_trains_ends_with_the_evaluation_and_leaves_nothing(
    run: Run, scratch: Path, tmp_path: Path, how: signal.Signals
) -> None:
    place = tmp_path / "started"
    place.mkdir()
    command = shlex.join([sys.executable, "-c", COMMAND, str(place), "{passages}", "{output}"])
    ray = run("ray", "--methods", "random", *RETRAINING, "--retrain-command", command)
    until(lambda: list(place.iterdir()), ray)
    assert list(scratch.glob("proponent-retrain*/proponent-retrain*/model.part"))
    at_work = [psutil.Process(int(path.name)) for path in place.iterdir()]
    ray.send_signal(how)
    ray.communicate(timeout=WAITS)
    assert ray.returncode in (130, -signal.SIGKILL)
    _, alive = psutil.wait_procs(at_work, timeout=60)
    assert not alive
    assert is_left_empty(scratch)


@pytest.mark.skipif(subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0, reason="needs a namespace")
@pytest.mark.parametrize("asked", [("--tail-patch", 4), (*RETRAINING, "--retrain-epochs", 30, "--retrain-batch", 2)])
def test_a_node_without_the_checkpoint_is_told(
    run: Run, nodes: Any, checkpoint: Path, asked: tuple[object, ...]
) -> None:
    with nodes.without(checkpoint):
        line = told(run("ray", "--methods", "random", *asked), 1)
    assert re.search(rf"^error: node [\d.]+ \(.*\): {checkpoint} is no checkpoint: it has no config.json", line), line
