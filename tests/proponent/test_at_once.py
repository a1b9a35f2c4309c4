"""Compactions, index builds, writers and readers at once, and processes that are killed amid them."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import proponent
from proponent.lake import Lake
from proponent.schema.settings import EncoderSettings

SMALL = EncoderSettings(blocks=1, side=8, moments="none", sample=40)
ASKED = ("The capital of", " France")

KILLED = """
import os, signal, sys
import lance
import proponent

def dying(original, when):
    def call(*arguments, **options):
        result = original(*arguments, **options) if when == "after" else None
        os.kill(os.getpid(), signal.SIGKILL)
    return call

when, where = sys.argv[2].split()
setattr(lance.LanceDataset, where, dying(getattr(lance.LanceDataset, where), when))
lake = proponent.open(sys.argv[1])
lake.index() if sys.argv[3] == "index" else lake.compact()
"""

WRITES = """
import json, sys
from pathlib import Path
import proponent
lake = proponent.open(sys.argv[1])
path = Path(sys.argv[1]).parent / "more.jsonl"
for n in range(int(sys.argv[2])):
    path.write_text(json.dumps({"id": f"more{n:02}", "text": f"Text number {n}.", "entities": ["Peru"]}))
    while True:
        try:
            lake.ingest(path, corpus="more")
            break
        except proponent.schema.errors.LakeBusyError:
            pass
"""

READS = """
import sys
import proponent
lake, seen = proponent.open(sys.argv[1]), 0
print("ready", flush=True)
while not sys.stdin.closed and seen < 10_000:
    newest = lake.snapshot.snapshot_id
    for at in (3, newest):
        [row] = lake.sql("SELECT count(*) AS n, count(text) AS texts FROM passages", at=at)
        assert row.n == row.texts and (at != 3 or row.n == 40), row
    assert len(lake.trace("The capital of", " France", method="logra", k=3, at=3)) == 6
    seen += 1
    print(seen, flush=True)
"""

COMPACTS = """
import sys, time
import proponent
lake = proponent.open(sys.argv[1])
while True:
    try:
        print(lake.compact()["tables"], flush=True)
    except proponent.schema.errors.LakeBusyError:
        pass
    time.sleep(1)  # locks are not fair: who takes one at once again starves the others
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, sentences: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("at-once")
    rows = [{"id": f"d{n}", "text": text} for n, text in enumerate(sentences[:40])]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with proponent.init(folder / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(folder / "rows.jsonl", corpus="c")
        lake.encode(settings=SMALL)
        lake.trace(*ASKED, method="logra", k=3)
    return folder / "lake"


@pytest.fixture
def lake(made: Path, tmp_path: Path) -> Iterator[Lake]:
    shutil.copytree(made, tmp_path / "lake")
    with proponent.open(tmp_path / "lake") as lake:
        yield lake


@pytest.mark.full
@pytest.mark.parametrize("moment", ["before create_index_uncommitted", "after create_index_uncommitted"])
def test_an_index_build_that_is_killed_leaves_what_is_told_and_the_next_builds_it(lake: Lake, moment: str) -> None:
    command = [sys.executable, "-c", KILLED, str(lake.store.root), moment, "index"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    assert {finding["grade"] for finding in lake.check()} == {"leftover"}
    assert lake.trace(*ASKED, method="logra", k=4).to_dicts()
    assert [finding for finding in lake.check(repair=True) if finding["grade"] != "mended"] == []
    assert lake.index()["rows"] == 40
    assert lake.check(deep=True) == []
    assert lake.trace(*ASKED, method="logra", k=3, approximate=True).to_dicts()


@pytest.mark.full
@pytest.mark.parametrize("moment", ["before commit", "after commit", "before cleanup_old_versions", "after delete"])
def test_a_compaction_that_is_killed_leaves_a_lake_that_is_mended(lake: Lake, tmp_path: Path, moment: str) -> None:
    for n in range(12):
        (tmp_path / "row.jsonl").write_text(json.dumps({"id": n, "text": f"Text {n}."}), "utf-8")
        lake.ingest(tmp_path / "row.jsonl", corpus="other")
    command = [sys.executable, "-c", KILLED, str(lake.store.root), moment, "compact"]
    killed = subprocess.run(command, capture_output=True, check=False).returncode
    assert killed == (0 if moment == "after delete" else -9)
    assert {finding["grade"] for finding in lake.check(deep=True)} <= {"leftover", "note"}
    assert lake.check(repair=True) is not None
    assert lake.check(deep=True) == []
    assert lake.compact()["snapshots"] == []
    assert lake.sql("SELECT count(*) AS n FROM documents").to_dicts() == [{"n": 52}]


@pytest.mark.full
def test_compactions_amid_writers_and_readers_lose_nothing_and_stop_nobody(lake: Lake) -> None:
    root = str(lake.store.root)

    def start(script: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, root, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, stdin=pipe, text=True)

    writer, others = start(WRITES, "15"), [start(READS), start(COMPACTS)]
    try:
        _, errors = writer.communicate(timeout=400)
        assert writer.returncode == 0, errors
        time.sleep(1)
        ended = [other.communicate() for other in others if other.poll() is not None]
        assert ended == []
    finally:
        outputs = []
        for other in others:
            other.kill()
            outputs.append(other.communicate()[0])
    assert len(outputs[0].splitlines()) > 1
    assert "passages" in outputs[1]
    done = lake.check(repair=True)
    assert [finding for finding in done if finding["grade"] == "damage"] == []
    assert lake.check(deep=True) == []
    rows = lake.sql("SELECT doc_key, text FROM documents JOIN passages USING (doc_id) WHERE corpus = 'more' ORDER BY 1")
    assert [tuple(row) for row in rows] == [(f"more{n:02}", f"Text number {n}.") for n in range(15)]
