"""A backup is a lake at one moment, and a restore gives all of it or nothing, wherever either of them ends."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select

import proponent
from proponent.cli import cli
from proponent.lake import Lake
from proponent.schema import catalog as models
from proponent.schema.errors import DamagedLakeError, LakeBusyError, LakeError, LakeNotFoundError
from proponent.schema.settings import EncoderSettings
from proponent.schema.tables import rows_hash
from proponent.store import backup as backing
from proponent.store import restore as restoring
from proponent.store.backup import LIST, read_backup
from proponent.store.commit import Committer
from proponent.store.compaction import compact
from proponent.store.snapshots import readable_snapshots
from proponent.store.tags import tagged

SMALL = EncoderSettings(blocks=1, side=8, moments="none", sample=40)
ASKED = ("The capital of", " France")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def rows(sentences: list[str], n: int) -> list[dict[str, Any]]:
    return [{"id": f"d{place}", "text": text, "entities": ["France"]} for place, text in enumerate(sentences[:n])]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, sentences: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("backup")
    with proponent.init(folder / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(write(folder / "rows.jsonl", rows(sentences, 30)), corpus="c")
        lake.encode(settings=SMALL)
        lake.index()
        lake.ingest(write(folder / "rows.jsonl", [{"id": "d1", "text": "Other."}]), corpus="c")
        lake.trace(*ASKED, method="logra", k=5)
        lake.report("last", lake.store.reports_dir / "a.html")
    return folder / "lake"


@pytest.fixture
def lake(made: Path, tmp_path: Path, read_here: None) -> Iterator[Lake]:
    shutil.copytree(made, tmp_path / "lake")
    with proponent.open(tmp_path / "lake") as lake:
        yield lake


def contents(lake: Lake) -> dict[str, Any]:
    """All rows of a lake at every snapshot, by their hashes, how many rows its catalog has, and its other files."""
    snapshots = readable_snapshots(lake.store.catalog)
    with lake.store.catalog.read() as session:
        counted = {
            table.name: session.scalar(select(func.count()).select_from(table))
            for table in models.Base.metadata.sorted_tables
        }
    seen = {
        (name, one.snapshot_id): rows_hash(lake.store.table(name, at=one).to_table())
        for one in snapshots
        for name in one.versions
    }
    others = (*lake.store.reports_dir.iterdir(), *lake.store.artifacts_dir.iterdir())
    return {"seen": seen, "counted": counted, "files": {path.name: path.read_bytes() for path in others}}


def contents_of(path: Path) -> dict[str, Any]:
    with proponent.open(path) as lake:  # it was checked when it was restored
        return contents(lake)


def test_a_restored_lake_is_the_lake_that_was_backed_up(lake: Lake, tmp_path: Path) -> None:
    lake.backup(tmp_path / "backup")
    before = contents(lake)
    done = proponent.restore(tmp_path / "backup", tmp_path / "again")
    assert (done["snapshot"], done["damage"]) == (lake.snapshot.snapshot_id, [])
    assert contents_of(tmp_path / "again") == before
    with proponent.open(tmp_path / "again") as again:
        assert tagged(again.store.table("hits")) == tagged(lake.store.table("hits"))
        assert again.trace(*ASKED, method="logra", k=5, approximate=True).to_dicts()
        again.ingest(write(tmp_path / "new.jsonl", [{"id": "new", "text": "A new one."}]), corpus="c")
        assert again.compact()["snapshots"] == []


def test_a_second_backup_copies_what_is_new_and_keeps_nothing_that_was_forgotten(lake: Lake, tmp_path: Path) -> None:
    first = lake.backup(tmp_path / "backup")
    assert first["copied"] == first["files"]
    assert lake.backup(tmp_path / "backup")["copied"] <= 1  # the catalog has a lock more, or less
    lake.ingest(write(tmp_path / "new.jsonl", [{"id": "new", "text": "zqxjkv was here."}]), corpus="c")
    second = lake.backup(tmp_path / "backup")
    assert 0 < second["copied"] < first["copied"] / 2

    def leaks() -> bool:
        return any(b"zqxjkv" in path.read_bytes() for path in (tmp_path / "backup").rglob("*") if path.is_file())

    assert leaks()
    lake.delete("doc_key = 'new'")
    lake.compact(forget=True)
    lake.backup(tmp_path / "backup")
    assert not leaks()
    proponent.restore(tmp_path / "backup", tmp_path / "again")
    assert contents_of(tmp_path / "again")["seen"] == contents(lake)["seen"]


def test_what_others_publish_meanwhile_is_not_in_it_and_nobody_compacts(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, times = backing.copy_file, 0
    before = contents(lake)["seen"]

    def copy_while_others_write(*arguments: Any) -> str:
        nonlocal times
        times += 1
        if times == 3:
            with proponent.open(lake.store.root) as other:
                other.ingest(write(tmp_path / "more.jsonl", [{"id": "m", "text": "One more."}]), corpus="d")
                other.encode(settings=SMALL)
                other.delete("doc_key = 'd3'")
                monkeypatch.setattr("proponent.store.compaction.WAIT_S", 0.1)
                with pytest.raises(LakeBusyError, match="backup"):
                    compact(other.store)
        return copy(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(backing, "copy_file", copy_while_others_write)
        lake.backup(tmp_path / "backup")
    proponent.restore(tmp_path / "backup", tmp_path / "again")
    assert contents_of(tmp_path / "again")["seen"] == before


class Ended(BaseException):
    """Stands for a kill: nothing catches it."""


def die(*_arguments: object, **_options: object) -> None:
    raise Ended


def test_what_was_being_published_is_not_in_it(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = write(tmp_path / "more.jsonl", [{"id": "m", "text": "One more."}])
    with monkeypatch.context() as patch:
        patch.setattr(Committer, "_carry_out", die)
        with pytest.raises(Ended):
            lake.ingest(more, corpus="d")
    before = contents(lake)["seen"]
    lake.backup(tmp_path / "backup")
    proponent.restore(tmp_path / "backup", tmp_path / "again")
    with proponent.open(tmp_path / "again") as again:
        again.ingest(write(tmp_path / "other.jsonl", [{"id": "o", "text": "Another."}]), corpus="e")
        assert again.sql("SELECT count(*) AS n FROM documents WHERE corpus = 'd'").to_dicts() == [{"n": 0}]
        assert {key: value for key, value in contents(again)["seen"].items() if key in before} == before


def acts(monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """End before the n-th durable act, and list those that were begun."""
    begun: list[str] = []

    def around(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def acted(*arguments: Any, **options: Any) -> Any:
            begun.append(name)
            if len(begun) == at + 1:
                raise Ended
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, acted)

    for name in ("replace", "mkdir", "unlink"):
        around(Path, name)
    for owner, name in (
        (backing, "copy_to_sqlite"), (restoring, "copy_from_sqlite"), (restoring, "set_tags"), (restoring, "check"),
    ):  # fmt: skip
        around(owner, name)
    return begun


@pytest.mark.parametrize("stride", [29, pytest.param(3, marks=pytest.mark.full)])
def test_wherever_a_backup_ends_the_former_one_is_whole_and_the_next_is_finished(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    lake.backup(tmp_path / "backup")
    first = read_backup(tmp_path / "backup").snapshot
    lake.ingest(write(tmp_path / "new.jsonl", [{"id": "new", "text": "A new one."}]), corpus="c")
    for at in range(0, 10_000, stride):
        folder = tmp_path / f"backup{at}"
        shutil.copytree(tmp_path / "backup", folder)
        with monkeypatch.context() as patch:
            begun = acts(patch, at)
            try:
                lake.backup(folder)
                break
            except Ended:
                pass
        restored = proponent.restore(folder, tmp_path / f"again{at}")
        assert restored["snapshot"] in (first, lake.snapshot.snapshot_id), begun
        assert lake.backup(folder)["snapshot"] == lake.snapshot.snapshot_id
        assert all((folder / file.stored).is_file() for file in read_backup(folder).files)
        shutil.rmtree(tmp_path / f"again{at}")
    assert at > 0


def test_a_first_backup_that_was_cut_short_is_refused_and_finished_by_the_next(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in (5, 40):
        with monkeypatch.context() as patch:
            acts(patch, at)
            with pytest.raises(Ended):
                lake.backup(tmp_path / "backup")
        with pytest.raises(DamagedLakeError, match="was cut short; make it again"):
            proponent.restore(tmp_path / "backup", tmp_path / "again")
        assert not (tmp_path / "again").exists()
    lake.backup(tmp_path / "backup")
    proponent.restore(tmp_path / "backup", tmp_path / "again")


@pytest.mark.parametrize("stride", [37, pytest.param(5, marks=pytest.mark.full)])
def test_wherever_a_restore_ends_there_is_no_lake_and_the_next_makes_it(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    lake.backup(tmp_path / "backup")
    before, finished = contents(lake)["seen"], False
    for at in range(0, 10_000, stride):
        with monkeypatch.context() as patch:
            begun = acts(patch, at)
            try:
                proponent.restore(tmp_path / "backup", tmp_path / "again")
                finished = True
            except Ended:
                assert not (tmp_path / "again").exists(), begun
        if finished:
            break
    assert {"copy_file"} | set(begun) >= {"replace", "set_tags", "check"}
    assert contents_of(tmp_path / "again")["seen"] == before
    assert [path.name for path in tmp_path.iterdir() if "restoring" in path.name] == []


@pytest.mark.parametrize("harm", ["changed", "cut", "gone", "list"])
def test_a_backup_that_was_changed_is_refused(lake: Lake, tmp_path: Path, harm: str) -> None:
    lake.backup(tmp_path / "backup")
    file = (
        tmp_path / "backup" / next(one.stored for one in read_backup(tmp_path / "backup").files if "/data/" in one.path)
    )
    if harm == "changed":
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    elif harm == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif harm == "gone":
        file.unlink()
    else:
        (tmp_path / "backup" / LIST).write_text('{"format": 1', "utf-8")
    with pytest.raises(DamagedLakeError):
        proponent.restore(tmp_path / "backup", tmp_path / "again")
    assert not (tmp_path / "again").exists()
    assert not (tmp_path / ".again.restoring").exists()


def test_a_lake_that_was_damaged_is_restored_only_when_that_is_accepted(lake: Lake, tmp_path: Path) -> None:
    [file, *_] = sorted((lake.store.table_dir("mentions") / "data").iterdir())
    file.write_bytes(file.read_bytes()[:-20] + bytes(20))
    lake.backup(tmp_path / "backup")
    with pytest.raises(DamagedLakeError, match="--accept-damage"):
        proponent.restore(tmp_path / "backup", tmp_path / "again")
    done = proponent.restore(tmp_path / "backup", tmp_path / "again", accept_damage=True)
    assert file.name in done["damage"][0]
    with proponent.open(tmp_path / "again") as again:
        assert again.status()["rows"]["documents"] == 30


def test_folders_that_are_for_other_things_are_refused(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("x")
    with pytest.raises(LakeError, match=r"holds other things \(letter.txt\)"):
        lake.backup(tmp_path / "full")
    with pytest.raises(LakeError, match="lie in each other"):
        lake.backup(lake.store.root / "backup")
    lake.backup(tmp_path / "backup")
    with proponent.init(tmp_path / "other") as other, pytest.raises(LakeError, match="the backup of another lake"):
        other.backup(tmp_path / "backup")
    with pytest.raises(LakeError, match="not empty"):
        proponent.restore(tmp_path / "backup", tmp_path / "full")
    with pytest.raises(LakeNotFoundError, match="is no backup"):
        proponent.restore(tmp_path / "full", tmp_path / "again")
    (tmp_path / "empty").mkdir()
    proponent.restore(tmp_path / "backup", tmp_path / "empty")
    assert contents_of(tmp_path / "empty")["seen"] == contents(lake)["seen"]


def test_a_list_that_names_places_outside_is_refused(lake: Lake, tmp_path: Path) -> None:
    lake.backup(tmp_path / "backup")
    described = json.loads((tmp_path / "backup" / LIST).read_text("utf-8"))
    described["files"][3][0] = "../../evil"
    (tmp_path / "backup" / LIST).write_text(json.dumps(described), "utf-8")
    with pytest.raises(DamagedLakeError, match="outside"):
        proponent.restore(tmp_path / "backup", tmp_path / "again")
    assert not (tmp_path / "evil").exists()


def test_the_commands_say_what_they_did(lake: Lake, tmp_path: Path) -> None:
    invoke: Callable[..., Any] = CliRunner().invoke
    done = invoke(cli, ["backup", str(lake.store.root), str(tmp_path / "backup")])
    assert f"as of snapshot {lake.snapshot.snapshot_id}" in done.stderr
    done = invoke(cli, ["restore", str(tmp_path / "backup"), str(tmp_path / "again")])
    assert f"is at snapshot {lake.snapshot.snapshot_id}" in done.stderr


WRITES = """
import json, sys
from pathlib import Path
import proponent
from proponent.schema.settings import EncoderSettings
from proponent.schema.tables import rows_hash
with proponent.open(sys.argv[1]) as lake:
    print("ready", flush=True)
    for n in range(1000):
        if sys.argv[2] == "encode":
            lake.encode(settings=EncoderSettings(blocks=1, side=8, moments="none", sample=40))
        else:
            rows = [{"id": f"{n}-{i}", "text": f"Text {n} {i}."} for i in range(20)]
            rows.append({"id": "same", "text": f"Now {n}."})
            path = Path(sys.argv[1]).parent / "loop.jsonl"
            path.write_text("".join(json.dumps(row) + chr(10) for row in rows))
            lake.ingest(path, corpus="loop")
"""


@pytest.mark.full
def test_a_backup_amid_an_ingest_and_an_encoding_restores_to_a_sound_lake(lake: Lake, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITES, str(lake.store.root)]
    writers = [subprocess.Popen([*command, what], stdout=subprocess.PIPE) for what in ("ingest", "encode")]
    try:
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        for turn in range(4):
            time.sleep(1)
            lake.backup(tmp_path / "backup")
            proponent.restore(tmp_path / "backup", tmp_path / f"again{turn}")
            with proponent.open(tmp_path / f"again{turn}") as again:
                assert again.check() == []
                assert again.status()["rows"]["documents"] >= 30
        assert all(writer.poll() is None for writer in writers)
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


@pytest.mark.full
@pytest.mark.parametrize("what", ["backup", "restore"])
def test_processes_that_are_killed_at_any_moment_are_followed_by_one_that_finishes(
    lake: Lake, tmp_path: Path, what: str
) -> None:
    root, folder, again = lake.store.root, tmp_path / "backup", tmp_path / "again"
    if what == "restore":
        lake.backup(folder)
    command = [
        sys.executable,
        "-m",
        "proponent",
        *([what, root, folder] if what == "backup" else [what, folder, again]),
    ]
    for wait in (0.5, 0.8, 1.1, 1.4, 1.7, 2.0, 2.5, 3.0):
        process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if again.exists():
            break
    lake.backup(folder)
    if not again.exists():
        proponent.restore(folder, again)
    assert contents_of(again)["seen"] == contents(lake)["seen"]


@pytest.mark.full
def test_a_catalog_on_postgres_is_backed_up_without_its_password_and_restored_into_either(
    postgres: str, empty_postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = postgres.replace("postgres@", "postgres:hunter2zq@")
    with proponent.init(tmp_path / "lake", catalog=secret) as lake:
        lake.ingest(
            write(tmp_path / "rows.jsonl", [{"id": str(n), "text": f"Text {n}."} for n in range(9)]), corpus="c"
        )
        before = contents(lake)
        lake.backup(tmp_path / "backup")
    files = [path for path in (tmp_path / "backup").rglob("*") if path.is_file()]
    assert not any(b"hunter2zq" in path.read_bytes() for path in files)
    with pytest.raises(LakeError, match="belongs to another lake"):
        proponent.restore(tmp_path / "backup", tmp_path / "again", catalog=secret)
    proponent.restore(tmp_path / "backup", tmp_path / "plain")
    assert contents_of(tmp_path / "plain") == before
    with empty_postgres.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    for name in ("check", "set_tags", "copy_from_sqlite"):
        with monkeypatch.context() as patch:
            patch.setattr(restoring, name, die)
            with pytest.raises(Ended):
                proponent.restore(tmp_path / "backup", tmp_path / "again", catalog=secret)
        assert not (tmp_path / "again").exists()
    proponent.restore(tmp_path / "backup", tmp_path / "again", catalog=secret)
    assert contents_of(tmp_path / "again") == before
    with proponent.open(tmp_path / "again") as again:
        newest = again.snapshot.snapshot_id
        again.ingest(write(tmp_path / "rows.jsonl", [{"id": "x", "text": "More."}]), corpus="c")
        assert again.snapshot.snapshot_id > newest
        assert again.check(deep=True) == []
