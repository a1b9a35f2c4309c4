"""Models trained anew: what is drawn, what they say, what is kept, and what ends them."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from proponent.encode.checkpoint import load_tokenizer
from proponent.lake import Lake
from proponent.query.evaluate import lds, rankings
from proponent.query.evaluate.facts import read_facts
from proponent.query.evaluate.retraining import told_by
from proponent.query.evaluate.scores import each_scores
from proponent.query.evaluate.statistics import spearman
from proponent.query.evaluate.texts import find_texts
from proponent.query.evaluate.trainer import Job, Task, carry_out
from proponent.schema.errors import EncodingError, InputError, ModelError, SettingsError, WorkerError
from proponent.schema.settings import EvaluationSettings, RetrainingSettings, TrainingSettings

TRAINING = TrainingSettings(epochs=2, batch_size=8)
RETRAINING = RetrainingSettings(
    subsets=4, counterfactuals=2, without=3, draws=2, opponents=True, seeds=2, training=TRAINING, processes=1
)
METHODS = ("with:trackstar", "without:trak", "bm25", "with:hybrid", "random")
CHOSEN: dict[str, Any] = {"methods": METHODS, "retraining": RETRAINING, "resamples": 100}


class Told:
    """Counts models that are trained or known, and acts after some."""

    def __init__(self, at: int = 0, act: Callable[[], object] = lambda: None) -> None:
        self.n, self._at, self._act = 0, at, act

    def __call__(self, stage: str, _total: int) -> Callable[[int], object]:
        return self.count if stage == "retraining" else lambda _n: None

    def count(self, n: int) -> None:
        self.n += n
        if n and self.n == self._at:
            self._act()


@pytest.fixture(scope="module")
def folder(lake: Lake, facts: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation with 8 models of subsets, and 14 or so without some texts."""
    output = tmp_path_factory.mktemp("retrained") / "first"
    lake.evaluate(facts, output=output, **CHOSEN)
    return output


def results_of(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text("utf-8"))
    return results


def searched(lake: Lake, facts: list[dict[str, Any]]) -> rankings.Searched:
    at = lake.snapshot
    with lake._session_at(None) as session:
        texts = find_texts(lake.store, session, at, encoders=["with", "without"], where=None)
    settings = EvaluationSettings(methods=METHODS, depth=100, resamples=100)
    return rankings.Searched(lake.store, at, texts, read_facts(facts), settings, lake._encoders)


def job(lake: Lake, facts: list[dict[str, Any]], checkpoint: Path, **more: Any) -> Job:
    [*texts] = (row["text"] for row in lake.sql("SELECT DISTINCT text FROM passages ORDER BY text").to_dicts())
    targets = tuple((fact["prompt"], fact["target"]) for fact in facts)
    return Job(tuple(texts), targets, str(checkpoint), 64, TRAINING, **more)


# What is drawn


def test_subsets_are_of_one_size_and_stay_when_more_are_drawn() -> None:
    few, many = (lds.subsets(50, n, 0.3, seed=1) for n in (4, 9))
    assert (many[:4] == few).all()
    assert set(many.sum(axis=1)) == {15}
    assert len({row.tobytes() for row in many}) == 9
    assert not (lds.subsets(50, 4, 0.3, seed=2) == few).all()


@pytest.mark.parametrize("name", ["with:trackstar", "without:trak", "without:graddot", "bm25"])
def test_scores_order_the_texts_as_rankings_do(lake: Lake, facts: list[dict[str, Any]], name: str) -> None:
    among = searched(lake, facts)
    one = rankings.resolve(lake.store, among.at, rankings.Spec(name, name.rpartition(":")[2], name.rpartition(":")[0] or None), lake._encoders)  # fmt: skip  # noqa: E501
    scores = np.concatenate([*each_scores(one, among, lambda _n: None)])
    assert scores.shape == (len(facts), 60)
    listed = rankings.rank(one, among, lambda _n: None).proponents
    for row, order in zip(scores, listed, strict=True):
        ordered = sorted((-score, key) for score, key in zip(row.tolist(), among.texts.keys, strict=True) if score > 0)
        assert [key for _, key in ordered] == order


# What models say


def test_a_model_says_the_same_in_another_process_and_with_another_seed_something_else(
    lake: Lake, facts: list[dict[str, Any]], folder: Path, checkpoint_dir: Path
) -> None:
    rows = [json.loads(line) for line in (folder / "retrained.jsonl").read_text("utf-8").splitlines()]
    known = {tuple(row["log_probability"]) for row in rows}
    among = searched(lake, facts)
    texts = {row["text_hash"]: row["text"] for row in lake.sql("FROM passages").to_dicts()}
    made = job(lake, facts, checkpoint_dir)
    made = Job(tuple(texts[key] for key in among.texts.keys), *list(made.__dict__.values())[1:])
    members = lds.subsets(60, 1, 0.5, seed=0)[0]
    places = [
        place for place in np.flatnonzero(members) for _ in range(among.texts.n_passages[among.texts.keys[place]])
    ]
    said = [tuple(carry_out(made, Task(tuple(map(int, places)), seed)).log_probability) for seed in (0, 1, 2)]
    assert [one in known for one in said] == [True, True, False]


def test_the_score_is_the_correlation_over_the_subsets(lake: Lake, facts: list[dict[str, Any]], folder: Path) -> None:
    found = results_of(folder)["lds"]
    assert set(found["methods"]) == set(METHODS) - {"with:hybrid"}
    assert found["left_out"] == {"with:hybrid": "it joins ranks, and a sum of them stands for nothing"}
    assert found["how"]["subsets"] == 4
    assert found["how"]["texts"] == 30
    assert found["between_seeds"]["n"] == len(facts)
    assert found["stating_texts"]["n"] == len(facts) - 1  # one is stated nowhere
    for name, mean in found["methods"].items():
        values = found["values"][name]
        assert mean["mean"] == pytest.approx(np.mean(values))
        assert all(-1 <= value <= 1 for value in values)
    rows = [row for row in results_of(folder)["comparisons"] if row["measure"] == "LDS"]
    assert len(rows) == 4 * 3 / 2


def test_scores_that_foretell_the_outputs_correlate_with_them() -> None:
    draw = np.random.default_rng(0)
    effects, members = draw.normal(size=(3, 40)), lds.subsets(40, 200, 0.5, seed=0)
    outputs = effects @ members.T + draw.normal(size=(3, 200))
    right = lds.correlations(effects @ members.T, outputs)
    assert min(right) > 0.9
    assert max(map(abs, lds.correlations(draw.normal(size=(3, 40)) @ members.T, outputs))) < 0.4
    assert lds.correlations(np.zeros((3, 200)), outputs) == [0, 0, 0]
    assert lds.between_seeds([outputs]) == []
    assert lds.between_seeds([outputs, -outputs, outputs]) == pytest.approx([-1 / 3] * 3)


def test_a_change_is_between_models_of_one_seed(facts: list[dict[str, Any]], folder: Path) -> None:
    results = results_of(folder)
    found = results["counterfactual"]
    assert len(found["facts"]) == 2
    names = {"random passages"} | {
        f"{name}, {side}" for name in METHODS[:4] for side in ("proponents", "opponents")
    } - {"bm25, opponents", "with:hybrid, opponents"}
    assert set(found["answers"]) == names
    for name, answers in found["answers"].items():
        runs = 2 * 2 if name == "random passages" else 2
        assert {one["log_probability"]["n"] for one in answers.values()} == {runs}
        mean = np.mean([one["log_probability"]["mean"] for one in answers.values()])
        assert found["means"][name]["log_probability"]["mean"] == pytest.approx(mean)
        assert found["means"][name]["log_probability"]["n"] == len(answers)


def test_results_tell_of_retraining_in_words(folder: Path) -> None:
    page, text = ((folder / name).read_text("utf-8") for name in ("results.html", "results.md"))
    for title in ("linear datamodelling score", "what is left out", "single answers"):
        assert f"Retraining: {title}" in page
        assert f"Retraining: {title}" in text
    assert "(two seeds)" in text
    assert "(stating texts alone)" in page
    assert "left out: it joins ranks" in text


def test_without_what_states_a_fact_a_model_finds_it_less_likely(
    lake: Lake, facts: list[dict[str, Any]], checkpoint_dir: Path
) -> None:
    made = job(lake, facts, checkpoint_dir)
    made = Job(**{**made.__dict__, "training": TrainingSettings(epochs=12, batch_size=8, learning_rate=1e-2)})
    stating = [place for place, text in enumerate(made.texts) if "franc" in text]
    other = [place for place, text in enumerate(made.texts) if "river" in text][: len(stating)]
    whole, without, random = (
        carry_out(made, Task(tuple(place for place in range(60) if place not in gone), 0)).log_probability[3]
        for gone in ([], stating, other)
    )  # the currency of France
    assert whole > -1
    assert without < min(whole, random) - 3


# What is kept


def test_what_is_kept_is_not_trained_again(
    lake: Lake, facts: list[dict[str, Any]], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy")
    before = results_of(copied)
    monkeypatch.setattr("proponent.query.evaluate.retrained._start", lambda *_: pytest.fail("a process was started"))
    lake.evaluate(facts, output=copied, **CHOSEN)
    again = results_of(copied)
    assert again["lds"] == before["lds"]
    assert again["counterfactual"] == before["counterfactual"]


def test_an_evaluation_that_was_killed_trains_what_is_missing(
    lake: Lake, facts: list[dict[str, Any]], folder: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy")
    kept, before = copied / "retrained.jsonl", results_of(copied)
    lines = kept.read_text("utf-8").splitlines(keepends=True)
    kept.write_text("".join(lines[:-1]) + lines[-1][:50], "utf-8")  # the last line was being written
    told = Told()
    lake.evaluate(facts, output=copied, tell=told, **CHOSEN)
    assert told.n == len(lines)
    assert sorted(kept.read_text("utf-8").splitlines(keepends=True)) == sorted(lines)
    assert results_of(copied)["lds"] == before["lds"]


def test_a_file_that_is_no_output_is_left_alone(
    lake: Lake, facts: list[dict[str, Any]], folder: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy")
    (copied / "retrained.jsonl").write_text("[]\n")
    with pytest.raises(InputError, match=r"retrained.jsonl:1 is no output of a model"):
        lake.evaluate(facts, output=copied, **CHOSEN)
    assert (copied / "retrained.jsonl").read_text() == "[]\n"


# What ends them


def children() -> list[psutil.Process]:
    """Return the processes that train, without those that wait for their end."""
    lines = {one: " ".join(one.cmdline()) for one in psutil.Process().children(recursive=True)}
    return [one for one, line in lines.items() if "trainer" in line and "guarded.py" not in line]


def test_interrupted_and_killed_it_leaves_no_process_and_keeps_what_is_done(
    lake: Lake, facts: list[dict[str, Any]], tmp_path: Path
) -> None:
    two = replace(RETRAINING, processes=2)
    chosen = {**CHOSEN, "methods": ["random"], "retraining": two, "output": tmp_path / "cut"}

    def interrupt() -> None:
        assert len(children()) == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lake.evaluate(facts, tell=Told(2, interrupt), **chosen)
    assert children() == []
    kept = tmp_path / "cut" / "retrained.jsonl"
    assert len(kept.read_text("utf-8").splitlines()) == 2

    def kill() -> None:
        for one in children():
            one.send_signal(signal.SIGKILL)

    with pytest.raises(WorkerError, match="was killed by signal 9; what was trained is kept"):
        lake.evaluate(facts, tell=Told(4, kill), **{**chosen, "retraining": RETRAINING})
    assert children() == []
    assert len(kept.read_text("utf-8").splitlines()) >= 4


def test_what_a_model_fails_with_is_raised_here(lake: Lake, facts: list[dict[str, Any]]) -> None:
    command = shlex.join([sys.executable, "-c", "import sys; sys.exit('no memory left')", "{passages}", "{output}"])
    failing = replace(RETRAINING, processes=1, command=command)
    with pytest.raises(ModelError, match="it said last: no memory left"):
        lake.evaluate(facts, methods=["random"], retraining=failing, resamples=100)


def test_a_fact_that_no_model_could_read_is_named_before_any_is_trained(
    lake: Lake, facts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proponent.query.evaluate.retrained._start", lambda *_: pytest.fail("a process was started"))
    long = {**facts[0], "id": "long", "prompt": "France " * 100}
    with pytest.raises(EncodingError, match="facts:8: prompt and target have"):
        lake.evaluate([*facts, long], methods=["random"], retraining=RETRAINING, resamples=100)


# A command that trains


TRAIN = """
import json, shutil, sys
passages, output, seed, checkpoint, *rest = sys.argv[1:]
texts = [json.loads(line)["text"] for line in open(passages, encoding="utf-8")]
shutil.copytree(checkpoint, output)
open(checkpoint + ".told", "w").write(json.dumps([texts, seed, rest]))
"""


def by_command(lake: Lake, facts: list[dict[str, Any]], command: str) -> Job:
    return job(lake, facts, Path("nowhere"), command=RetrainingSettings(command=command).arguments)


def test_a_command_trains_and_no_shell_reads_it(
    lake: Lake, facts: list[dict[str, Any]], checkpoint_dir: Path, tmp_path: Path
) -> None:
    script, checkpoint = tmp_path / "train it.py", tmp_path / "a checkpoint"
    script.write_text(TRAIN)
    shutil.copytree(checkpoint_dir, checkpoint)
    hostile = f"; touch {tmp_path / 'hacked'} $(touch {tmp_path / 'hacked'})"
    words = [sys.executable, str(script), "{passages}", "{output}", "{seed}", str(checkpoint), hostile]
    made = by_command(lake, facts, shlex.join(words))
    output = carry_out(made, Task((0, 2, 2), 7))
    assert json.loads(Path(f"{checkpoint}.told").read_text()) == [
        [made.texts[0], made.texts[2], made.texts[2]], "7", [hostile]
    ]  # fmt: skip
    assert not (tmp_path / "hacked").exists()
    assert len(output.log_probability) == len(facts)
    assert all(value < 0 for value in output.log_probability)


def test_a_script_that_has_changed_is_another_command(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("first")
    words = ["python", str(script), "{passages}", "{output}"]
    before = told_by(words)
    assert told_by(words) == before
    script.write_text("second")
    assert told_by(words) != before
    assert told_by(words)[:4] == words


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("import sys; sys.exit('no memory left')", "ended with exit code 1; it said last: no memory left"),
        ("pass", "is no checkpoint"),
    ],
)
def test_a_command_that_fails_is_told(lake: Lake, facts: list[dict[str, Any]], script: str, told: str) -> None:
    made = by_command(lake, facts, shlex.join([sys.executable, "-c", script, "{passages}", "{output}"]))
    with pytest.raises(ModelError, match=told):
        carry_out(made, Task((0, 1), 0))


def test_what_a_worker_writes_goes_with_its_job(lake: Lake, facts: list[dict[str, Any]], tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import sys; sys.exit(sys.argv[1])", "{passages}", "{output}"]
    by_command(lake, facts, shlex.join(words)).write(tmp_path / "job.json")
    worker = [sys.executable, "-m", "proponent.query.evaluate.trainer", str(tmp_path / "job.json"), str(tmp_path)]
    asked = json.dumps(Task((0, 1), 0)._asdict()) + "\n"
    done = subprocess.run(worker, input=asked, capture_output=True, text=True, timeout=120, check=True)
    assert f"said last: {tmp_path}/" in json.loads(done.stdout)["error"]


def test_a_command_that_cannot_be_started_is_told(lake: Lake, facts: list[dict[str, Any]]) -> None:
    with pytest.raises(ModelError, match="'no-such-program', cannot be started"):
        carry_out(by_command(lake, facts, "no-such-program {passages} {output}"), Task((0, 1), 0))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"command": "train {passages}"}, r"must have \{output\}"),
        ({"command": "train 'passages} {output}"}, "cannot be read"),
        ({"command": " "}, "is empty"),
        ({"subsets": 2}, "needs 3 subsets"),
        ({"fraction": 1.0}, "fraction"),
        ({"seeds": 0}, "1 to 1000 models"),
        ({"without": 0}, "can be left out"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        RetrainingSettings(**settings)
    with pytest.raises(SettingsError, match="raise the depth"):
        EvaluationSettings(depth=10, retraining=RetrainingSettings(counterfactuals=1, without=11))


def test_a_gguf_file_has_no_architecture_to_train(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    made = Job(("a b", "c d"), (("a", " b"),), str(tmp_path / "model.gguf"), 8, TRAINING)
    with pytest.raises(ModelError, match=r"model.gguf is no folder with a whole model's config.json"):
        carry_out(made, Task((0, 1), 0))


def test_a_tokenizer_is_that_of_the_checkpoint(checkpoint_dir: Path) -> None:
    from proponent.encode.training import token_rows

    tokenizer = load_tokenizer(checkpoint_dir)
    [row] = token_rows(tokenizer, ["The capital of France"])
    assert (row[0], row[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    [cut] = token_rows(tokenizer, ["The capital of France" * 50], context_length=8)
    assert len(cut) == 9


def test_ranks_that_are_equal_share_their_mean() -> None:
    assert spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 1], [3, 2, 1]) == 0
    # Ranks 1.5, 1.5, 3, 4 and 1, 2, 3.5, 3.5
    assert spearman([5, 5, 7, 9], [0, 1, 2, 2]) == pytest.approx(np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3.5, 3.5])[0, 1])
