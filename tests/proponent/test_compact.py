"""Forgetting leaves no byte of a withdrawn document in the lake's folder, wherever the process ends on the way."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest
from click.testing import CliRunner
from lance.file import LanceFileReader
from sqlalchemy import select

import proponent
from proponent.cli import cli
from proponent.ingest.worklist import run_folder, write_list
from proponent.lake import Lake
from proponent.schema import catalog as models
from proponent.schema.errors import LakeBusyError, NotFoundError
from proponent.schema.settings import EncoderSettings
from proponent.schema.tables import DOCUMENTS, encodings_table
from proponent.store import compaction
from proponent.store.catalog import Catalog
from proponent.store.commit import Committer, write_batch
from proponent.store.files import files_on_disk, named_files, tables_on_disk
from proponent.store.leases import ALONE, lease

SMALL = EncoderSettings(blocks=1, side=8, moments="none", sample=40)
ASKED = ("The capital of", " France")
MARK = "zqxjkv"
OLD = f"An earlier text has {MARK}old in it."
SECRET = {
    "id": f"{MARK}key",
    "text": f"The capital of France lies on a {MARK}text river.",
    "title": f"{MARK}title",
    "url": f"https://example.org/{MARK}url",
    "author": f"{MARK}author",
    "date": f"{MARK}date",
    "entities": [f"{MARK}text", "France"],
    "extra": {"note": f"{MARK}metadata"},
}


def leaks(root: Path, marker: str = MARK) -> list[str]:
    """Every file of a lake that has the marker in it, in its bytes or in the values that they stand for."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return [path.relative_to(root).as_posix() for path in files if marker.encode() in path.read_bytes() + values(path)]


def values(path: Path) -> bytes:
    """What a data file decodes to, since its pages may be compressed."""
    if path.suffix != ".lance":
        return b""
    return str(LanceFileReader(str(path)).read_all().to_table().to_pylist()).encode()


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, sentences: list[str]) -> Path:
    """A lake in whose folder a document is nearly everywhere that it can be, before it is withdrawn."""
    folder = tmp_path_factory.mktemp("forget")
    others = [{"id": f"d{n}", "text": text, "entities": ["France"]} for n, text in enumerate(sentences[:40])]
    with proponent.init(folder / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(write(folder / "first.jsonl", others[:20]), corpus="first")
        assert lake.snapshot.snapshot_id == 2
        rows = [SECRET | {"text": OLD}, *others[20:]]
        lake.ingest(write(folder / "old.jsonl", rows), corpus="second")
        lake.encode(settings=SMALL)
        again = SECRET | {"text": f"Another {MARK}duplicate."}
        lake.ingest(write(folder / "new.jsonl", [SECRET, again, *others[20:]]), corpus="second")
        lake.encode(settings=SMALL)
        lake.index()
        lake.index_text()
        lake.fit_curvature([ASKED, ("The currency of", " Peru")], name="task")
        lake.trace(*ASKED, method="logra", k=100)
        lake.report("last", lake.store.reports_dir / "quotes.html")
        lake.report("last", lake.store.reports_dir / "quotes.md")
        lake.trace(*ASKED, method="logra", k=3, filter="corpus = 'first'")
        lake.report("last", lake.store.reports_dir / "other.html")
        _die_in_the_midst(lake)
    return folder / "lake"


def _die_in_the_midst(lake: Lake) -> None:
    """Leave behind what killed runs leave: fragments that no version names, a worklist with its unit."""
    blank = {field.name: None if field.nullable else "" for field in DOCUMENTS} | {"n_passages": 0}
    row = blank | {"doc_id": "x", "title": f"{MARK}orphan"}
    write_batch(lake.store, "documents", pa.Table.from_pylist([row], DOCUMENTS))
    write_list(
        run_folder(lake.store, "dead"), "texts", pa.table({"text_hash": ["x"], "text": [f"{MARK}work of a dead run"]})
    )


@pytest.fixture
def lake(made: Path, tmp_path: Path) -> Iterator[Lake]:
    """A copy of that lake, with the document withdrawn."""
    shutil.copytree(made, tmp_path / "lake")
    with proponent.open(tmp_path / "lake") as lake:
        lake.delete(f"doc_key = '{MARK}key'", reason="its author asked")
        yield lake


def number(lake: Lake, relation: str, *, at: int | None = None) -> int:
    [row] = lake.sql(f"SELECT count(*) AS n FROM {relation}", at=at)
    return int(row.n)


def require_forgotten(lake: Lake) -> None:
    """What has to hold after forgetting, however it went."""
    assert leaks(lake.store.root) == []
    assert {table: number(lake, table) for table in ("documents", "passages")} == {"documents": 40, "passages": 40}
    assert number(lake, "encodings") == 40
    assert lake.status()["rows"]["index_tiny"] == lake.status()["rows"][encodings_table("tiny")] == 40
    for table in tables_on_disk(lake.store):
        named = {name for names in named_files(lake.store, table).values() for name in names}
        assert files_on_disk(lake.store, table).keys() <= named, table
    [gone] = lake.sql("SELECT doc_id, doc_key, corpus, reason FROM withdrawals").to_dicts()
    assert (gone["doc_key"], gone["corpus"], gone["reason"]) == (None, "second", "its author asked")
    for options in ({"k": 100}, {"k": 5, "approximate": True}, {"k": 5, "curvature": "task"}):
        assert lake.trace(*ASKED, method="logra", **options).to_dicts()
    assert lake.trace("A river", " of France", method="bm25").to_dicts()
    assert lake.trace("zqxjkvtext zqxjkvold", " zqxjkvduplicate", method="bm25").to_dicts() == []
    assert lake.index_text() == {"rows": 40, "added": 0}


def test_nothing_of_a_forgotten_document_is_left_in_any_file(lake: Lake) -> None:
    before = leaks(lake.store.root)
    for place in ("catalog.db", "work/dead/texts.arrow", "reports/quotes.html", "reports/quotes.md"):
        assert place in before
    for table in ("documents", "passages", "mentions", "rejects"):
        assert any(name.startswith(f"tables/{table}.lance/data/") for name in before), table
    done = lake.compact(forget=True)
    assert (done["documents"], done["rejects"], done["reports"]) == (1, 1, ["quotes.html", "quotes.md"])
    require_forgotten(lake)
    assert (lake.store.reports_dir / "other.html").is_file()


def test_no_word_stays_in_an_index_that_was_brought_up_to_date_after_the_withdrawal(
    lake: Lake, tmp_path: Path, sentences: list[str]
) -> None:
    more = [{"id": f"m{n}", "text": text} for n, text in enumerate(sentences[40:45])]

    def folders() -> set[str]:
        return {path.name for path in lake.store.table_dir("passages").glob("_indices/*")}

    lake.ingest(write(tmp_path / "more.jsonl", more), corpus="third")
    old = folders()
    assert lake.index_text() == {"rows": 45, "added": 45}  # made anew, since what it covered is gone
    lake.compact(forget=True)
    assert leaks(lake.store.root) == []
    assert len(folders() - old) == 1
    assert not folders() & old
    assert lake.index_text() == {"rows": 45, "added": 0}


def test_its_vectors_go_too(lake: Lake) -> None:
    stored = lake.store.table(encodings_table("tiny"), at=lake.snapshot)
    last = stored.version
    with_them = stored.checkout_version(last - 1).to_table()
    kept = set(stored.to_table()["text_hash"].to_pylist())
    gone = [row for row in with_them.to_pylist() if row["text_hash"] not in kept]
    needles = [bytes(code % 256 for code in row["codes"]) for row in gone]
    needles += [row["text_hash"].encode() for row in gone]
    assert needles

    def found() -> bool:
        files = [path for path in lake.store.tables_dir.rglob("*") if path.is_file() and path.suffix != ".txn"]
        return any(needle in path.read_bytes() for path in files for needle in needles)

    assert found()
    lake.compact(forget=True)
    assert not found()


def test_snapshots_without_the_document_stay_as_they_were_and_the_others_are_named_as_gone(
    lake: Lake, tmp_path: Path
) -> None:
    newest = lake.snapshot.snapshot_id
    done = lake.compact(forget=True)
    assert done["snapshots"] == list(range(3, newest + 1))
    assert (number(lake, "documents", at=1), number(lake, "documents", at=2)) == (0, 20)
    for erased in (3, newest):
        with pytest.raises(
            NotFoundError,
            match=f"snapshot {erased} was erased on 20.* the newest that can be read are 2, {newest + 1}, ",
        ):
            number(lake, "documents", at=erased)
    for later in range(newest + 1, lake.snapshot.snapshot_id + 1):
        assert number(lake, "documents", at=later) == 40
    done = CliRunner().invoke(cli, ["sql", str(tmp_path / "lake"), "SELECT 1", "--at", "3"])
    assert isinstance(done.exception, NotFoundError)


def test_forgetting_again_changes_nothing(lake: Lake) -> None:
    lake.compact(forget=True)
    before = lake.snapshot
    again = lake.compact(forget=True)
    assert lake.snapshot == before
    assert (again["documents"], again["rejects"], again["tables"], again["snapshots"], again["bytes"]) == (
        0,
        0,
        [],
        [],
        0,
    )
    assert lake.compact(forget=True, dry_run=True) == again


def test_a_dry_run_says_what_goes_and_changes_nothing(lake: Lake) -> None:
    before = {
        path: path.read_bytes() for path in lake.store.root.rglob("*") if path.is_file() and "catalog" not in path.name
    }
    told = lake.compact(forget=True, dry_run=True)
    assert {path: path.read_bytes() for path in before} == before
    assert lake.compact(forget=True) == told
    assert told["bytes"] > 0


def test_it_stays_out_when_its_files_come_again(lake: Lake, made: Path) -> None:
    lake.compact(forget=True)
    for file, rows in (("old.jsonl", 1), ("new.jsonl", 2)):
        counts = lake.ingest(made.parent / file, corpus="second")
        assert (counts.withdrawn, counts.added, counts.updated, counts.rejected) == (rows, 0, 0, 0)
    assert leaks(lake.store.root) == []


def test_a_report_of_a_trace_whose_snapshot_is_gone_says_so(lake: Lake, tmp_path: Path) -> None:
    lake.compact(forget=True)
    [first, _] = [row.trace_id for row in lake.sql("SELECT trace_id FROM traces ORDER BY created_at")]
    text = lake.report(first, tmp_path / "again.md").read_text("utf-8")
    assert "has been erased since" in text
    assert MARK not in text
    assert "The capital" in text


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def steps(monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Die before the n-th of all durable acts, and list those that were begun."""
    begun: list[str] = []

    def around(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def acted(*arguments: Any, **options: Any) -> Any:
            begun.append(name)
            if len(begun) == at + 1:
                raise Killed
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, acted)

    for owner, name in (
        (Committer, "_carry_out"),
        (lance.LanceDataset, "commit"),
        (lance.LanceDataset, "create_index_uncommitted"),
        (lance.LanceDataset, "commit_existing_index_segments"),
        (lance.LanceDataset, "create_scalar_index"),
        (lance.LanceDataset, "cleanup_old_versions"),
        (compaction, "_erase_snapshots"),
        (compaction, "_remove_work"),
        (compaction, "forget_keys"),
        (Path, "unlink"),
        (Catalog, "vacuum"),
    ):
        around(owner, name)
    return begun


@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.full)])
def test_whichever_step_it_is_killed_at_the_next_run_finishes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    for at in range(0, 1000, stride):
        root = tmp_path / f"lake{at}"
        shutil.copytree(made, root)
        with proponent.open(root) as lake:
            lake.delete(f"doc_key = '{MARK}key'", reason="its author asked")
            with monkeypatch.context() as patch:
                begun = steps(patch, at)
                try:
                    lake.compact(forget=True)
                    finished = True
                except Killed:
                    finished = False
            if finished:
                break
            assert number(lake, "documents") == number(lake, "passages") == 40, begun
            assert lake.trace(*ASKED, method="logra", k=4).to_dicts(), begun
            with suppress(NotFoundError):  # the index is not there again, or not measured
                assert lake.trace(*ASKED, method="logra", k=4, approximate=True).to_dicts(), begun
            lake.compact(forget=True)
            require_forgotten(lake)
        shutil.rmtree(root)
    assert set(begun) >= {
        "_carry_out",
        "commit",
        "create_index_uncommitted",
        "cleanup_old_versions",
        "forget_keys",
        "vacuum",
    }
    assert at >= len(begun) > 20


KILLED = """
import os, signal, sys
import proponent
from proponent.store import compaction

clean = compaction._clean
def die_after_three(lake, plan, table):
    clean(lake, plan, table)
    if table == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
compaction._clean = die_after_three
proponent.open(sys.argv[1]).compact(forget=True)
"""


@pytest.mark.parametrize("table", ["documents", "passages"])
def test_a_process_that_is_killed_while_it_removes_files_is_followed_by_one_that_finishes(
    lake: Lake, table: str
) -> None:
    import subprocess

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(lake.store.root), table], capture_output=True, check=False
    )
    assert killed.returncode == -9
    lake.compact(forget=True)
    require_forgotten(lake)


@pytest.mark.parametrize("lock", ["ingest c", "ingest of nobody yet", "encode tiny", "commit", "entities"])
def test_it_waits_for_everybody_who_writes(lake: Lake, lock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "WAIT_S", 0.2)
    with lease(lake.store.catalog, lock), pytest.raises(LakeBusyError, match=lock):
        lake.compact(forget=True)
    assert leaks(lake.store.root)
    assert number(lake, "documents", at=2) == 20


def test_nobody_begins_to_write_meanwhile(lake: Lake, made: Path) -> None:
    with lease(lake.store.catalog, ALONE), pytest.raises(LakeBusyError, match="lock 'compact' is held by process"):
        lake.ingest(made.parent / "first.jsonl", corpus="another")


def test_it_waits_for_a_worker_that_outlives_its_run(lake: Lake) -> None:
    from proponent.store.units import add_units, take_unit

    with lake.store.catalog.read() as session:
        [run_id, *_] = session.scalars(select(models.Run.run_id))
    add_units(lake.store.catalog, run_id, [{"start": 0, "stop": 1}])
    held = take_unit(lake.store.catalog, run_id)
    assert held is not None
    with pytest.raises(LakeBusyError, match=r"a worker, process .* has not ended"):
        lake.compact(forget=True)
    held.finish({})
    lake.compact(forget=True)
    assert leaks(lake.store.root) == []


def test_without_forgetting_every_snapshot_stays_and_small_fragments_become_one(tmp_path: Path) -> None:
    with proponent.init(tmp_path / "pieces") as lake:
        for n in range(12):
            lake.ingest(write(tmp_path / "row.jsonl", [{"id": n, "text": f"Text {n}."}]), corpus="c")
        newest = lake.snapshot
        lake.delete("doc_key = '3'")
        _die_in_the_midst(lake)
        before = {snapshot: number(lake, "documents", at=snapshot) for snapshot in range(1, newest.snapshot_id + 1)}
        done = lake.compact()
        assert (done["snapshots"], done["documents"], done["reports"]) == ([], 0, [])
        assert done["tables"] == ["documents", "passages"]
        assert len(lake.store.table("documents", at=lake.snapshot).get_fragments()) == 1
        assert {snapshot: number(lake, "documents", at=snapshot) for snapshot in before} == before
        assert number(lake, "documents") == 11
        assert leaks(lake.store.root) == []
        assert lake.compact()["tables"] == []
        assert "Text 3." in str([path.read_bytes() for path in lake.store.table_dir("passages").glob("data/*")])
        lake.compact(forget=True)
        assert leaks(lake.store.root, "Text 3.") == []
        assert number(lake, "documents", at=4) == 3


def test_the_command_tells_what_went(lake: Lake) -> None:
    invoke: Callable[..., Any] = CliRunner().invoke
    command = ["compact", str(lake.store.root), "--forget"]
    told = invoke(cli, [*command, "--dry-run"]).stderr
    assert "1 withdrawn documents would be forgotten, and 1 rejected rows of their corpora" in told
    assert "report would be removed, since it quotes them: quotes.html" in told
    done = invoke(cli, [*command, "--format", "json"])
    assert "snapshots erased: 3, 4, " in done.stderr
    [row] = json.loads(done.stdout)
    assert row["documents"] == 1
    history = json.loads(invoke(cli, ["history", str(lake.store.root), "--format", "json"]).stdout)
    assert [row["kind"] for row in history][:3] == ["index", "index", "compact"]
    assert MARK not in json.dumps(history)


@pytest.mark.full
def test_a_catalog_on_postgres_forgets_too(postgres: str, empty_postgres: Any, tmp_path: Path) -> None:
    with proponent.init(tmp_path / "lake", catalog=postgres) as lake:
        rows = [SECRET, SECRET | {"text": f"Another {MARK}."}, {"id": "other", "text": "Another."}]
        lake.ingest(write(tmp_path / "rows.jsonl", rows), corpus="c", max_reject_share=1.0)
        lake.delete(f"doc_key = '{MARK}key'")
        with lease(lake.store.catalog, "ingest c"), pytest.raises(LakeBusyError, match="ingest c"):
            lake.compact(forget=True)
        assert lake.compact(forget=True)["rejects"] == 1
        with lease(lake.store.catalog, ALONE), pytest.raises(LakeBusyError, match="lock 'compact'"):
            lake.ingest(tmp_path / "rows.jsonl", corpus="c")
        assert leaks(lake.store.root) == []
        told = [lake.sql(f"FROM {relation}").to_dicts() for relation in ("withdrawals", "publications", "runs")]
        assert MARK not in str(told)
        assert number(lake, "documents") == 1
        assert lake.ingest(tmp_path / "rows.jsonl", corpus="c").withdrawn == 2
