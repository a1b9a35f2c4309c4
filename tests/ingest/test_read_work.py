"""Whoever reads a corpus, and whoever is killed while doing so: the lake is the one that an undisturbed run makes."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import proponent
from proponent.ingest import corpus, pieces, read_work
from proponent.lake import Lake
from proponent.schema.errors import CorpusError, LakeBusyError, ProponentError, SettingsError, WorkerError

TABLES = ("documents", "passages", "mentions", "rejects")
Rows = dict[str, list[dict[str, Any]]]
INGEST = """
import sys
import proponent
from proponent.ingest import pieces, read_work

pieces.PIECE_BYTES = 4000
with proponent.open(sys.argv[1]) as lake:
    print(lake.ingest(sys.argv[2], corpus="c", workers=int(sys.argv[3]), max_reject_share=0.5).read)
"""


def document(n: int, *, edition: int = 1) -> dict[str, Any]:
    words = " ".join(f"word{n * k % 97}" for k in range(1, 40))
    return {"id": n, "text": f"Document {n}, edition {edition}. {words}.", "entities": [f"word{n % 97}"]}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with some documents, and a corpus that changes some, repeats some and has rows that are none."""
    folder = tmp_path_factory.mktemp("reading")
    before = [document(n) for n in range(0, 600, 3)]
    (folder / "before.jsonl").write_text("".join(json.dumps(row) + "\n" for row in before), "utf-8")
    lines = [json.dumps(document(n, edition=1 + (n % 9 == 0))) for n in range(600)]
    lines += [lines[n] for n in range(0, 600, 10)]  # duplicates
    lines += [json.dumps(document(n, edition=7)) for n in range(0, 600, 25)]  # other content
    lines += [f'{{"id": {n}, ' for n in range(20)]  # no JSON
    random.Random(1).shuffle(lines)
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    with proponent.init(folder / "lake") as lake:
        lake.ingest(folder / "before.jsonl", corpus="c")
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-r", template / "lake", tmp_path / "lake"], check=True)
    return tmp_path / "lake"


@pytest.fixture(scope="module")
def expected(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """What an undisturbed process makes of the corpus, which it reads in one piece."""
    alone = tmp_path_factory.mktemp("alone") / "lake"
    subprocess.run(["cp", "-r", template / "lake", alone], check=True)
    with proponent.open(alone) as lake:
        counts = lake.ingest(template / "rows.jsonl", corpus="c", max_reject_share=0.5)
        told = {name: getattr(counts, name) for name in ("added", "updated", "unchanged", "duplicates", "rejected")}
        assert told == what_becomes_of((template / "rows.jsonl").read_text("utf-8").splitlines())
        return content(lake)


def what_becomes_of(lines: list[str]) -> dict[str, int]:
    """Count, row by row, what a corpus does to the lake of the template."""
    counts = Counter[str]()
    first: dict[int, str] = {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            counts["rejected"] += 1
            continue
        earlier = first.setdefault(row["id"], row["text"])
        if earlier != row["text"]:
            counts["rejected"] += 1
        elif len(first) == sum(counts[fate] for fate in ("added", "updated", "unchanged")):
            counts["duplicates"] += 1
        elif row["id"] % 3:
            counts["added"] += 1
        else:
            counts["unchanged" if row == document(row["id"]) else "updated"] += 1
    return dict(counts)


def content(lake: Lake) -> Rows:
    """The rows of the tables in their order, but for the runs' ids."""
    found = {}
    for name in TABLES:
        rows = (
            lake.store.table(name, at=lake.snapshot)
            .to_table()
            .drop_columns(["run_id"] if name in ("documents", "rejects") else [])
        )
        found[name] = rows.to_pylist()
    return found


def runs(lake: Lake) -> list[dict[str, Any]]:
    return lake.sql("SELECT run_id, status, error FROM runs WHERE kind = 'ingest' ORDER BY started_at").to_dicts()


def is_clean(lake: Lake) -> bool:
    """No units, no working files, and no data files that no version names."""
    named = {
        file
        for name in TABLES
        for version in lake.store.table(name).versions()
        for file in data_files(lake, name, version["version"])
    }
    there = {path.name for name in TABLES for path in (lake.store.tables_dir / f"{name}.lance" / "data").glob("*")}
    return not len(lake.sql("FROM units")) and not list(lake.store.root.glob("work/*")) and there <= named


def data_files(lake: Lake, name: str, version: int) -> list[str]:
    dataset = lake.store.table(name).checkout_version(version)
    return [Path(file.path).name for fragment in dataset.get_fragments() for file in fragment.data_files()]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 4000)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("workers", [1, 2])
def test_many_pieces_make_the_lake_that_one_piece_makes(
    folder: Path, template: Path, expected: Rows, workers: int
) -> None:
    with proponent.open(folder) as lake:
        counts = lake.ingest(template / "rows.jsonl", corpus="c", max_reject_share=0.5, workers=workers)
        counts.prove()
        assert content(lake) == expected
        assert is_clean(lake)
        assert runs(lake)[-1]["status"] == "done"


@pytest.fixture
def start(start_run: Callable[..., Any], folder: Path, template: Path) -> Callable[[int], Any]:
    return lambda workers: start_run(INGEST, folder, template / "rows.jsonl", workers)


def test_workers_that_are_killed_are_replaced_and_nothing_is_lost_or_doubled(
    folder: Path, expected: Rows, start: Callable[[int], Any]
) -> None:
    """Five kills in one run, of workers that have begun to work."""
    run = start(2)
    chance = random.Random(3)
    for kills in range(5):
        run.wait_until(lambda kills=kills: run.n_done() > kills and run.kill_a_worker(chance))
    assert int(run.ends_well()) == 704
    with proponent.open(folder) as lake:
        assert content(lake) == expected
        assert len(lake.sql("FROM units")) == 0


@pytest.mark.usefixtures("small_pieces")
def test_a_run_that_is_killed_goes_on_where_it_was(
    folder: Path, template: Path, expected: Rows, start: Callable[[int], Any]
) -> None:
    with proponent.open(folder) as lake:
        before = content(lake)
    run = start(2)
    run.wait_until(lambda: run.n_done() > 5)
    run.kill()
    with proponent.open(folder) as lake:
        assert content(lake) == before, "nothing is seen before the last row"
        [*_, cut_short] = runs(lake)
        read = count_units_begun(lake, lambda: lake.ingest(template / "rows.jsonl", corpus="c", max_reject_share=0.5))
        assert 0 < read["kept"] < read["all"]
        assert content(lake) == expected
        assert runs(lake)[-1] == {"run_id": cut_short["run_id"], "status": "done", "error": None}
        assert not list(lake.store.root.glob("work/*"))


def count_units_begun(lake: Lake, action: Callable[[], object]) -> dict[str, int]:
    """Tell how many units a run that went on had, and how many of them it found written."""
    found: dict[str, int] = {}
    right = corpus.reopen_units

    def look(catalog: Any, run_id: str) -> None:
        units = corpus.all_units(catalog, run_id)
        found.update(all=len(units), kept=sum(unit.status == "written" for unit in units))
        right(catalog, run_id)

    corpus.reopen_units = look
    try:
        action()
    finally:
        corpus.reopen_units = right
    return found


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("change", ["file", "settings", "lake"])
def test_a_run_over_something_else_begins_anew_and_clears_away_what_was_left(
    folder: Path, template: Path, tmp_path: Path, start_run: Callable[..., Any], change: str
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes((template / "rows.jsonl").read_bytes())
    run = start_run(INGEST, folder, rows, 2)
    run.wait_until(lambda: run.n_done() > 5)
    run.kill()
    with proponent.open(folder) as lake:
        [*_, cut_short] = runs(lake)
        if change == "file":
            rows.write_bytes(rows.read_bytes() + json.dumps(document(1000)).encode())
        if change == "lake":
            lake.delete("doc_key = '3'")
        share = 0.6 if change == "settings" else 0.5
        lake.ingest(rows, corpus="c", max_reject_share=share)
        found = {one["run_id"]: one for one in runs(lake)}
        assert found[cut_short["run_id"]]["status"] == "failed"
        assert found[cut_short["run_id"]]["error"] == "cut short"
        assert list(found.values())[-1]["status"] == "done"
        assert is_clean(lake)


def test_a_ctrl_c_keeps_what_is_done_for_the_next_time(
    folder: Path, expected: Rows, start: Callable[[int], Any]
) -> None:
    run = start(2)
    run.wait_until(lambda: run.n_done() > 2)
    os.killpg(run.process.pid, signal.SIGINT)
    _, errors = run.process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    again = start(2)
    assert int(again.ends_well()) == 704
    with proponent.open(folder) as lake:
        assert content(lake) == expected
        assert len([one for one in runs(lake) if one["status"] == "done"]) == 2, "before, and the one that went on"
        assert len(runs(lake)) == 2


KILLED = """
import os, signal, sys
from proponent.store.commit import Committer

step, calls = sys.argv[4], 0
right = {name: getattr(Committer, name) for name in ("publish", "_carry_out", "_apply")}

def dying(name):
    def call(self, *arguments, **options):
        global calls
        calls += name == step.split()[0]
        if step == f"{name} {calls}":
            os.kill(os.getpid(), signal.SIGKILL)
        return right[name](self, *arguments, **options)
    return call

for name in right:
    setattr(Committer, name, dying(name))
if step == "remove_units 1":
    from proponent.ingest import unfinished
    unfinished.remove_units = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("step", ["publish 1", "_carry_out 1", "_apply 1", "_apply 3", "remove_units 1"])
def test_a_committer_that_is_killed_between_writing_and_committing_loses_and_doubles_nothing(
    folder: Path, template: Path, expected: Rows, start_run: Callable[..., Any], step: str
) -> None:
    with proponent.open(folder) as lake:
        before = content(lake)
    run = start_run(KILLED + INGEST, folder, template / "rows.jsonl", 1, step)
    run.process.communicate(timeout=120)
    assert run.process.returncode == -signal.SIGKILL
    with proponent.open(folder) as lake:
        assert content(lake) == before or step == "remove_units 1"
        counts = lake.ingest(template / "rows.jsonl", corpus="c", max_reject_share=0.5)
        assert counts.read == 704
        counts.prove()
        assert content(lake) == expected
        assert is_clean(lake)
        assert runs(lake)[-1]["status"] == "done"


def test_a_ctrl_c_before_the_workers_have_begun_is_the_runs_affair_alone(start: Callable[[int], Any]) -> None:
    run = start(2)
    run.wait_until(lambda: len(run.workers()) == 2)
    os.killpg(run.process.pid, signal.SIGINT)
    _, errors = run.process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert "worker.py" not in errors


@pytest.mark.usefixtures("small_pieces")
def test_the_lake_can_be_read_and_asked_while_workers_ingest(
    folder: Path, expected: Rows, start: Callable[[int], Any]
) -> None:
    with proponent.open(folder) as lake:
        before = lake.sql("SELECT count(*) AS n FROM passages").to_dicts()
    run = start(2)
    seen = []
    while run.process.poll() is None:
        with proponent.open(folder) as lake:
            seen.append(lake.sql("SELECT count(*) AS n FROM passages").to_dicts())
    run.ends_well()
    assert all(one in (before, [{"n": len(expected["passages"])}]) for one in seen)


@pytest.mark.usefixtures("small_pieces")
def test_a_second_ingest_of_the_same_corpus_waits_its_turn_or_says_who_is_at_it(
    folder: Path, template: Path, expected: Rows, start: Callable[[int], Any]
) -> None:
    run = start(2)
    run.wait_until(lambda: run.n_done() > 0)
    with proponent.open(folder) as lake:
        try:
            again = lake.ingest(template / "rows.jsonl", corpus="c", max_reject_share=0.5)
        except LakeBusyError:
            again = None  # the first one took longer than anybody waits
        assert again is None or (again.added, again.updated) == (0, 0)
    run.ends_well()
    with proponent.open(folder) as lake:
        assert content(lake)["documents"] == expected["documents"]


@pytest.mark.usefixtures("small_pieces")
def test_a_damaged_file_ends_all_workers_with_its_name_and_leaves_nothing(
    folder: Path, template: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.jsonl").write_text("x" * 10, "utf-16")
    with proponent.open(folder) as lake:
        before = content(lake)
        files = [template / "rows.jsonl", tmp_path / "bad.jsonl"]
        with pytest.raises(CorpusError, match=r"bad\.jsonl cannot be read: it is UTF-16"):
            lake.ingest(files, corpus="c", workers=2, max_reject_share=0.5)
        assert content(lake) == before
        (tmp_path / "bad.jsonl").write_text(json.dumps(document(1000)), "utf-8")
        lake.ingest(files, corpus="c", workers=2, max_reject_share=0.5)
        assert is_clean(lake)


@pytest.mark.usefixtures("small_pieces")
def test_too_many_rejects_stop_a_run_before_its_end(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "_ENOUGH_REJECTS", 50)
    rows = [json.dumps(document(n)) if n % 2 else "{" for n in range(1000, 3000)]
    (tmp_path / "bad.jsonl").write_text("\n".join(rows), "utf-8")
    read = []
    right = read_work.read_file

    def counted(*asked: Any, **options: Any) -> Iterator[Any]:
        for row in right(*asked, **options):
            read.append(row.row)
            yield row

    monkeypatch.setattr(read_work, "read_file", counted)
    with proponent.open(folder) as lake:
        before = content(lake)
        with pytest.raises(CorpusError, match=r"of .* rows were rejected, nothing was ingested"):
            lake.ingest(tmp_path / "bad.jsonl", corpus="c")
        assert len(read) < 300
        after = content(lake)
        assert [after[name] for name in TABLES[:3]] == [before[name] for name in TABLES[:3]]
        assert len(after["rejects"]) >= 50
        assert is_clean(lake)


def test_a_file_that_only_this_process_may_open_is_refused_to_workers(folder: Path) -> None:
    with proponent.open(folder) as lake:
        with pytest.raises(SettingsError, match=r"https://localhost:1/rows.jsonl was given .* leave out --workers"):
            lake.ingest("https://user:word@localhost:1/rows.jsonl", corpus="d", workers=2)
        assert not list(lake.store.root.glob("work/*"))
        assert "word@" not in json.dumps(lake.sql("SELECT settings FROM runs").to_dicts())


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_told_in_a_line_and_with_room_the_run_goes_on(
    folder: Path, template: Path, expected: Rows, small_disk: Path, fill: Callable[..., None], workers: int
) -> None:
    subprocess.run(["cp", "-r", folder, small_disk / "lake"], check=True)
    with proponent.open(small_disk / "lake") as lake:
        before = content(lake)
        filler = small_disk / "filler"
        fill(filler, leave=40_000)
        with pytest.raises((ProponentError, OSError)) as caught:
            lake.ingest(template / "rows.jsonl", corpus="c", max_reject_share=0.5, workers=workers)
        assert "space" in str(caught.value) or "full" in str(caught.value)
        assert content(lake) == before, "it can still be read"
        filler.unlink()
        lake.ingest(template / "rows.jsonl", corpus="c", max_reject_share=0.5, workers=workers)
        assert content(lake) == expected
        assert not list(lake.store.root.glob("work/*"))


@pytest.mark.usefixtures("small_pieces")
def test_a_lake_on_a_disk_that_cannot_be_written_says_so_and_can_be_read(
    folder: Path, template: Path, small_disk: Path
) -> None:
    subprocess.run(["cp", "-r", folder, small_disk / "lake"], check=True)
    with proponent.open(small_disk / "lake") as lake:
        before = content(lake)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with proponent.open(small_disk / "lake") as lake:
        with pytest.raises(ProponentError, match=r"read-?only"):
            lake.ingest(template / "rows.jsonl", corpus="c", max_reject_share=0.5)
        assert content(lake) == before
        assert len(lake.sql("FROM documents")) == len(before["documents"])


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
def test_a_soak_of_kills_of_workers_and_runs_loses_and_doubles_nothing(
    folder: Path, expected: Rows, start: Callable[[int], Any], seed: int
) -> None:
    """Five kills each at any moment, of a worker or of the whole run, with four workers, while somebody reads."""
    chance = random.Random(seed)
    stop = threading.Event()
    reader = threading.Thread(target=_read_again_and_again, args=(folder, len(expected["documents"]), stop))
    reader.start()
    run = start(4)
    for _ in range(5):
        time.sleep(chance.uniform(0.5, 6))
        if run.process.poll() is not None:
            break
        if chance.random() < 0.4 or not run.kill_a_worker(chance):
            run.kill()
            run = start(4)
    run.ends_well()
    stop.set()
    reader.join()
    with proponent.open(folder) as lake:
        assert content(lake) == expected
        assert len(lake.sql("FROM units")) == 0


def _read_again_and_again(folder: Path, n_documents: int, stop: threading.Event) -> None:
    while not stop.wait(0.5):
        with proponent.open(folder) as lake:
            [row] = lake.sql("SELECT count(*) AS n FROM documents")
            assert row.n in (200, n_documents)


@pytest.mark.usefixtures("small_pieces")
def test_workers_that_die_again_and_again_make_no_endless_run(folder: Path, template: Path) -> None:
    stop = threading.Event()

    def kill_workers() -> None:
        while not stop.wait(0.05):
            for child in psutil.Process().children():
                with suppress(psutil.Error):
                    if "proponent.ingest.worker" in child.cmdline():
                        child.kill()

    killer = threading.Thread(target=kill_workers)
    with proponent.open(folder) as lake:
        killer.start()
        try:
            with pytest.raises(WorkerError, match="died"):
                lake.ingest(template / "rows.jsonl", corpus="c", workers=2)
        finally:
            stop.set()
            killer.join()


@pytest.mark.full
@pytest.mark.usefixtures("small_pieces", "empty_postgres")
def test_workers_share_a_catalog_on_postgres(template: Path, tmp_path: Path, postgres: str, expected: Rows) -> None:
    with proponent.init(tmp_path / "lake", catalog=postgres) as lake:
        lake.ingest(template / "before.jsonl", corpus="c")
        lake.ingest(template / "rows.jsonl", corpus="c", max_reject_share=0.5, workers=2)
        assert content(lake) == expected
        assert is_clean(lake)


def test_pipes_are_read_like_files_though_they_can_be_read_once(folder: Path, template: Path, expected: Rows) -> None:
    script = 'exec "$0" -m proponent ingest "$1" <(cat "$2") --corpus c --reader jsonl --max-rejects 0.5'
    command = ["bash", "-c", script, sys.executable, str(folder), str(template / "rows.jsonl")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with proponent.open(folder) as lake:
        found = content(lake)
        assert [found[name] for name in TABLES[:3]] == [expected[name] for name in TABLES[:3]]
        assert is_clean(lake)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("change", ["shorter", "longer"])
def test_files_that_change_while_they_are_read_are_refused(
    folder: Path, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes((template / "rows.jsonl").read_bytes())
    right = read_work.read_file

    def changing(*asked: Any, **options: Any) -> Iterator[Any]:
        yield from right(*asked, **options)
        data = rows.read_bytes()
        rows.write_bytes(data[:-500] if change == "shorter" else data + b'{"id": 9999, "text": "Late."}\n')

    monkeypatch.setattr(read_work, "read_file", changing)
    with proponent.open(folder) as lake:
        before = content(lake)
        with pytest.raises(CorpusError, match="changed while they were being read"):
            lake.ingest(rows, corpus="c", max_reject_share=0.9)
        assert content(lake) == before
        assert is_clean(lake)


def test_a_withdrawn_document_does_not_come_back_as_a_reject(folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "again.jsonl"
    good, bad = document(1000), {"id": 3, "text": "SECRET", "trained_on": "maybe"}
    rows.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n", "utf-8")
    with proponent.open(folder) as lake:
        lake.delete("doc_key = '3'")
        counts = lake.ingest(rows, corpus="c")
        assert (counts.added, counts.withdrawn, counts.rejected) == (1, 1, 0)
        assert content(lake)["rejects"] == []


def test_a_read_that_fails_for_now_keeps_what_is_done(
    folder: Path, template: Path, expected: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 4000)
    right, calls = read_work.read_file, 0

    def failing(*asked: Any, **options: Any) -> Iterator[Any]:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise CorpusError("rows.jsonl cannot be read: Input/output error")
        yield from right(*asked, **options)

    with proponent.open(folder) as lake:
        with monkeypatch.context() as patch:
            patch.setattr(read_work, "read_file", failing)
            with pytest.raises(CorpusError, match="Input/output error"):
                lake.ingest(template / "rows.jsonl", corpus="c", max_reject_share=0.5)
        read = count_units_begun(lake, lambda: lake.ingest(template / "rows.jsonl", corpus="c", max_reject_share=0.5))
        assert read["kept"] == 4
        assert content(lake) == expected
