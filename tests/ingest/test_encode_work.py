"""Worker processes encode what one process would, row for row, whoever of them is killed, and whenever."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import proponent
from proponent.ingest import encoding
from proponent.ingest.helping import help_out
from proponent.ingest.progress import Progress
from proponent.lake import Lake
from proponent.schema.errors import ModelError, ProponentError
from proponent.schema.settings import EncoderSettings

SMALL = EncoderSettings(blocks=1, side=8, moments="none", sample=40)
N_TEXTS = 300
Start = Callable[[Path, int], Any]
ENCODE = """
import sys
import proponent
from proponent.ingest import encoding
from proponent.schema.settings import EncoderSettings

encoding.ENCODE_AT_ONCE, encoding.PUBLISH_EVERY = 8, 64
with proponent.open(sys.argv[1]) as lake:
    settings = EncoderSettings(blocks=1, side=8, moments="none", sample=40)
    print(lake.encode(settings=settings, workers=int(sys.argv[2])).encoded)
"""


@pytest.fixture(scope="module")
def template(
    tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path], sentences: list[str]
) -> Path:
    """A lake with a fitted encoder that has encoded a single text, and many that it has not; tests copy it."""
    folder = tmp_path_factory.mktemp("workers")
    rows = [{"id": n, "text": f"{n}: {sentences[n % len(sentences)]}"} for n in range(N_TEXTS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with proponent.init(folder / "lake") as lake:
        lake.add_model(make_checkpoint(folder / "model"), name="tiny")
        lake.ingest(folder / "rows.jsonl", corpus="c")
        lake.encode(settings=SMALL, only="doc_key = '0'")
    return folder / "lake"


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-r", template, tmp_path / "lake"], check=True)
    return tmp_path / "lake"


@pytest.fixture(scope="module")
def expected(template: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one undisturbed process encodes."""
    alone = tmp_path_factory.mktemp("alone") / "lake"
    subprocess.run(["cp", "-r", template, alone], check=True)
    with proponent.open(alone) as lake:
        lake.encode(settings=SMALL)
        return encodings(lake)


def encodings(lake: Lake) -> list[dict[str, Any]]:
    rows = lake.store.table("encodings_tiny", at=lake.snapshot).to_table().sort_by("text_hash")
    assert len(set(rows["text_hash"].to_pylist())) == rows.num_rows
    return rows.to_pylist()


def close(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """The same texts, and vectors that differ by rounding in other batches at most."""
    assert [row["text_hash"] for row in found] == [row["text_hash"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["norm"] == pytest.approx(other["norm"], rel=1e-4)
        assert max(abs(a - b) for a, b in zip(one["codes"], other["codes"], strict=True)) <= 1


@pytest.fixture
def start(start_run: Callable[..., Any]) -> Start:
    return lambda folder, workers: start_run(ENCODE, folder, workers)


def test_two_workers_encode_what_one_process_does(folder: Path, expected: list[dict[str, Any]]) -> None:
    with proponent.open(folder) as lake:
        told: list[Progress] = []
        [before] = encodings(lake)
        counts = lake.encode(settings=SMALL, workers=2, progress=told.append)
        assert counts.encoded == N_TEXTS - 1
        assert [now.done for now in told] == sorted(now.done for now in told)
        last = [one for one in told if one.stage == "encoding"][-1]
        assert (last.done, last.total) == (N_TEXTS - 1, N_TEXTS - 1)
        close(encodings(lake), expected)
        assert last.counts["tokens"] == counts.tokens == sum(row["n_tokens"] for row in expected) - before["n_tokens"]
        assert len(lake.sql("FROM units")) == 0
    assert not list((folder / "work").iterdir())


def test_workers_that_are_killed_are_replaced_and_nothing_is_lost_or_doubled(
    folder: Path, expected: list[dict[str, Any]], start: Start
) -> None:
    """Five kills in one run, of workers that have begun to work."""
    run = start(folder, 2)
    chance = random.Random(5)
    for kills in range(5):
        run.wait_until(lambda kills=kills: run.n_done() > 2 * kills and run.kill_a_worker(chance))
    assert int(run.ends_well()) == N_TEXTS - 1
    with proponent.open(folder) as lake:
        close(encodings(lake), expected)


def test_a_run_that_is_killed_takes_its_workers_along_and_a_restart_finishes_the_job(
    folder: Path, expected: list[dict[str, Any]], start: Start
) -> None:
    run = start(folder, 2)
    run.wait_until(lambda: run.n_done() > 10)
    run.kill()
    with proponent.open(folder) as lake:
        seen = len(encodings(lake))
        counts = lake.encode(settings=SMALL)
        assert seen <= counts.before < N_TEXTS  # more where the kill came while something was being published
        assert counts.before + counts.encoded == N_TEXTS
        close(encodings(lake), expected)
        assert len(lake.sql("FROM units")) == 0
    assert not list((folder / "work").iterdir())


def test_the_first_ctrl_c_finishes_what_was_begun_and_publishes_it(folder: Path, start: Start) -> None:
    run = start(folder, 2)
    run.wait_until(lambda: run.n_done() > 3)
    os.killpg(run.process.pid, signal.SIGINT)
    _, errors = run.process.communicate(timeout=60)
    assert run.process.returncode != 0
    assert "KeyboardInterrupt" in errors
    with proponent.open(folder) as lake:
        seen = encodings(lake)
        assert 1 + 4 * 8 <= len(seen) < N_TEXTS
        assert (len(seen) - 1) % 8 in (0, (N_TEXTS - 1) % 8)  # whole units
        assert lake.encode(settings=SMALL).encoded == N_TEXTS - len(seen)


@contextmanager
def other_weights(lake: Lake) -> Iterator[None]:
    """Have a model's file not be what was registered, for a with block."""
    weights = Path(lake.sql("SELECT path FROM models").to_dicts()[0]["path"]) / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        yield
    finally:
        weights.write_bytes(kept)


def test_a_worker_that_cannot_load_the_model_ends_the_run_with_its_reason(folder: Path) -> None:
    with proponent.open(folder) as lake:
        with other_weights(lake), pytest.raises(ModelError, match="has changed since it was registered"):
            lake.encode(settings=SMALL, workers=2)
        assert len(encodings(lake)) == 1
        assert lake.encode(settings=SMALL).encoded == N_TEXTS - 1


@pytest.mark.full
def test_a_helper_that_cannot_load_the_model_leaves_the_run_alone_and_says_why(folder: Path, start: Start) -> None:
    run = start(folder, 2)
    run.wait_until(lambda: run.n_done() > 3)
    run.kill()
    with proponent.open(folder) as lake:
        with other_weights(lake):
            helped = help_out(lake.store, workers=2, wait_s=0)
        assert helped.runs == []
        [reason] = helped.left_alone.values()
        assert "has changed since it was registered" in reason
        lake.encode(settings=SMALL)
        assert len(encodings(lake)) == N_TEXTS


@pytest.mark.parametrize("n_letters", [10, 200_000])
def test_whatever_a_worker_says_at_its_end_is_heard(n_letters: int) -> None:
    """A process that waits until all is read must not be waited for by the one that reads when it has ended."""
    code = f"""
from proponent.ingest.worker import _standard_output, _tell
hears = _standard_output()
print("what a library prints")
_tell(hears, RuntimeError("\u00e9" * {n_letters}))
raise SystemExit(1)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.wait(timeout=60) == 1
    told, printed = process.communicate()
    assert json.loads(told)["kind"] == "RuntimeError"
    assert json.loads(told)["error"].startswith("\u00e9" * 10)
    assert b"what a library prints" in printed


@pytest.mark.full
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_told_in_a_line_and_with_room_a_restart_finishes_the_job(
    folder: Path,
    expected: list[dict[str, Any]],
    small_disk: Path,
    fill: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    workers: int,
) -> None:
    monkeypatch.setattr(encoding, "ENCODE_AT_ONCE", 8)
    monkeypatch.setattr(encoding, "PUBLISH_EVERY", 64)
    subprocess.run(["cp", "-r", folder, small_disk / "lake"], check=True)
    with proponent.open(small_disk / "lake") as lake:
        filler = small_disk / "filler"
        fill(filler, leave=100_000)
        with pytest.raises((ProponentError, OSError)) as caught:
            lake.encode(settings=SMALL, workers=workers)
        told = capfd.readouterr().err + str(caught.value)  # a worker says it, or whoever meets it first
        assert "space" in told or "full" in told
        seen = encodings(lake)  # it can still be read
        assert len(seen) < N_TEXTS
        filler.unlink()
        counts = lake.encode(settings=SMALL, workers=workers)
        assert len(seen) <= counts.before
        assert counts.before + counts.encoded == N_TEXTS
        close(encodings(lake), expected)
        assert len(lake.sql("FROM units")) == 0
        assert not list(lake.store.root.glob("work/*"))


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
def test_a_soak_of_kills_of_workers_and_runs_loses_and_doubles_nothing(
    folder: Path, expected: list[dict[str, Any]], start: Start, seed: int
) -> None:
    """Five kills each at any moment, of a worker or of the whole run, with four workers."""
    chance = random.Random(seed)
    run = start(folder, 4)
    for _ in range(5):
        time.sleep(chance.uniform(0.5, 12))
        if run.process.poll() is not None:
            break
        if chance.random() < 0.4 or not run.kill_a_worker(chance):
            run.kill()
            with proponent.open(folder) as lake:
                assert len(encodings(lake)) <= N_TEXTS  # readable, and no text twice
            run = start(folder, 4)
    run.ends_well()
    with proponent.open(folder) as lake:
        close(encodings(lake), expected)


@pytest.mark.full
@pytest.mark.usefixtures("empty_postgres")
def test_workers_share_a_catalog_on_postgres(
    template: Path, tmp_path: Path, postgres: str, expected: list[dict[str, Any]]
) -> None:
    with proponent.open(template) as lake:
        model = lake.sql("SELECT path FROM models").to_dicts()[0]["path"]
    with proponent.init(tmp_path / "lake", catalog=postgres) as lake:
        lake.add_model(model, name="tiny")
        lake.ingest(template.parent / "rows.jsonl", corpus="c")
        lake.encode(settings=SMALL, only="doc_key = '0'")
        assert lake.encode(settings=SMALL, workers=2).encoded == N_TEXTS - 1
        close(encodings(lake), expected)
