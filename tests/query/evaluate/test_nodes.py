"""What nodes do in an evaluation, with nodes that are only said to be there: those are tests/proponent/cluster's."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from proponent.encode.checkpoint import read_facts
from proponent.lake import Lake
from proponent.query.evaluate import nodes
from proponent.query.evaluate.trainer import Job, Task
from proponent.schema.errors import ModelMismatchError, WorkerError
from proponent.schema.settings import RetrainingSettings, TrainingSettings

RETRAINING = RetrainingSettings(
    subsets=3, counterfactuals=1, without=3, draws=1, training=TrainingSettings(epochs=1, batch_size=8), processes=1
)
ASKED: dict[str, Any] = {
    "methods": ["with:trackstar", "bm25"], "tail_patch": 2, "retraining": RETRAINING, "resamples": 100
}  # fmt: skip


class Cluster:
    """Does in this process, with copies and in another order, what nodes would do, and fails after some of it."""

    def __init__(self, lake: Lake, *, workers: int = 3, fails_after: int = 1000) -> None:
        self._lake, self._workers, self._left = lake, workers, fails_after
        self.done: list[str] = []

    def workers(self, *, on_gpu: bool) -> int:
        return self._workers

    def each(
        self, function: Callable[..., Any], shared: Any, items: Sequence[Any], *, on_gpu: bool
    ) -> Iterator[tuple[int, Any]]:
        sent = pickle.dumps((function, shared))
        for place in reversed(range(len(items))) if self._left > len(items) else range(len(items)):
            if self._left == 0:
                raise WorkerError("node 7 is gone")
            function, shared = pickle.loads(sent)
            self._left -= 1
            self.done.append(function.__name__)
            yield place, pickle.loads(pickle.dumps(function(self._lake.store, shared, items[place])))


def results_of(folder: Path) -> dict[str, Any]:
    """Return results without what they cost, which other processes have read."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text("utf-8"))
    for method in found.get("methods", ()):
        del method["cost"]
    return found


@pytest.fixture(scope="module")
def alone(lake: Lake, facts: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation on this machine."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "_TOGETHER", 2)
        lake.evaluate(facts, output=folder, **ASKED)
    return folder


def test_what_nodes_do_is_what_one_machine_does(
    lake: Lake, facts: list[dict[str, Any]], alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, list[int]] = {}

    def tell(stage: str, total: int) -> Callable[[int], object]:
        told[stage] = [total]
        return told[stage].append

    monkeypatch.setattr(nodes, "_TOGETHER", 2)
    monkeypatch.setattr(lake.store, "cluster", cluster := Cluster(lake))
    lake.evaluate(facts, output=tmp_path, tell=tell, **ASKED)
    assert results_of(tmp_path) == results_of(alone)
    lines = [(folder / "retrained.jsonl").read_text("utf-8").splitlines() for folder in (alone, tmp_path)]
    assert sorted(lines[0]) == sorted(lines[1])
    assert cluster.done.count("_step") == 3
    assert cluster.done.count("_encode") == 2 * 2  # three nodes share four pairs, for ranks and for subsets' sums
    assert cluster.done.count("_train") == len(lines[0])
    for stage in ("tail-patch", "retraining"):
        total, *done = told[stage]
        assert sum(done) == total > 3


def test_what_was_stepped_on_for_a_method_is_kept_when_nodes_fail(
    lake: Lake, facts: list[dict[str, Any]], alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "_STEPS", 1)
    asked = {**ASKED, "retraining": RetrainingSettings(), "output": tmp_path}
    lake.evaluate(facts, **{**asked, "tail_patch": 0})  # so that orders are known
    monkeypatch.setattr(lake.store, "cluster", Cluster(lake, fails_after=25))
    totals: list[int] = []

    def tell(stage: str, total: int) -> Callable[[int], object]:
        totals.extend([total] if stage == "tail-patch" else [])
        return lambda _n: None

    with pytest.raises(WorkerError, match="node 7 is gone"):
        lake.evaluate(facts, tell=tell, **asked)
    known = results_of(tmp_path)["steps"]["values"]
    wanted = results_of(alone)["steps"]["values"]
    assert 0 < len(known) < len(wanted)
    monkeypatch.setattr(lake.store, "cluster", cluster := Cluster(lake))
    lake.evaluate(facts, tell=tell, **asked)
    assert results_of(tmp_path)["steps"]["values"] == wanted
    assert 0 < cluster.done.count("_step") == totals[1] < totals[0]


@pytest.mark.parametrize(("n_workers", "most"), [(1, 256), (3, 256), (100, 256), (1, 2)])
def test_parts_have_every_text_once_for_all_that_want_it(
    monkeypatch: pytest.MonkeyPatch, n_workers: int, most: int
) -> None:
    monkeypatch.setattr(nodes, "_STEPS", most)
    wanted = {"one": {0: ["a", "b", "c"], 2: ["b"]}, "two": {0: ["c", "d"], 1: ["e", "a"]}, "none": {0: []}}
    parts = nodes._parts(wanted, n_workers)
    assert len(parts) == {(1, 256): 1, (3, 256): 3, (100, 256): 5, (1, 2): 3}[n_workers, most]
    assert [key for part in parts for key in part.keys] == ["a", "b", "c", "d", "e"]
    found = {(place, key) for part in parts for place, keys in part.wanted.items() for key in keys}
    assert found == {(place, key) for of in wanted.values() for place, keys in of.items() for key in keys}
    assert sum(len(keys) for part in parts for keys in part.wanted.values()) == len(found)
    assert nodes._parts({"none": {0: []}}, n_workers) == []


def test_a_checkpoint_that_is_another_one_on_a_node_is_told_with_the_node(
    make_checkpoint: Callable[..., Path], tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from proponent.store import ray_cluster

    monkeypatch.setattr(ray_cluster, "node_name", lambda: "node 10.0.0.7 (beta)")
    facts = read_facts(make_checkpoint(tmp_path / "model"))
    job = Job(("The capital of France",), (), str(facts.path), 64, TrainingSettings(epochs=1))
    make_checkpoint(tmp_path / "model", seed=1)
    with pytest.raises(ModelMismatchError, match=r"^node 10\.0\.0\.7 \(beta\): the checkpoint in .* has changed since"):
        nodes._train(lake.store, nodes._Trained(job, facts), Task((0,), 0))


# What nobody has told to end

TRAINS = """
import sys
from pathlib import Path
from proponent.query.evaluate.retrained import train_here
from proponent.query.evaluate.trainer import Job, Task
from proponent.schema.settings import TrainingSettings
if __name__ == "__main__":
    script = "import subprocess, sys; subprocess.run(['sh', '-c', 'echo $$ > ' + sys.argv[1] + '; sleep 1000'])"
    command = (sys.executable, "-c", script, sys.argv[1], "{passages}", "{output}")
    list(train_here(Job(("a b",), (), "", 0, TrainingSettings(), command), [Task((0,), 0)], processes=1))
"""


@pytest.mark.parametrize("killed", ["who asked", "the worker", "both"])
def test_a_command_ends_with_its_worker_and_leaves_no_file(tmp_path: Path, killed: str) -> None:
    told, folder = tmp_path / "told", tmp_path / "scratch"
    folder.mkdir()
    asking = subprocess.Popen(
        [sys.executable, "-c", TRAINS, str(told)], env=os.environ | {"TMPDIR": str(folder)}, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not (told.exists() and told.read_text()):
            assert time.monotonic() < deadline
            assert asking.poll() is None
            time.sleep(0.05)
        of_command = psutil.Process(int(told.read_text()))
        of_command = [of_command, *of_command.children()]
        assert len(of_command) == 2
        [worker] = [one for one in psutil.Process(asking.pid).children() if "trainer" in " ".join(one.cmdline())]
        for which in {"who asked": [asking], "the worker": [worker], "both": [asking, worker]}[killed]:
            which.send_signal(signal.SIGKILL)
        asking.wait(60)
        _, alive = psutil.wait_procs([worker, *of_command], timeout=30)
        assert not alive
        while os.listdir(folder):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        asking.kill()
        asking.wait()
