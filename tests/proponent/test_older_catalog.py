"""A catalog that is restored from a copy older than the tables is found out, refused, and brought up to them."""

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import proponent
from proponent.cli import cli
from proponent.ingest.progress import Progress
from proponent.lake import Lake
from proponent.schema.errors import InputError, NotFoundError, OlderCatalogError
from proponent.schema.settings import EncoderSettings
from proponent.store.published import KNOWN, MARK

SMALL = EncoderSettings(blocks=1, side=8, moments="none", sample=40)
ASKED = ("The capital of", " France")
PG_DUMP = Path("/usr/lib/postgresql/15/bin")


class Copies:
    """A lake's catalog, copied and put back as its administrator would."""

    def __init__(self, folder: Path, lake: Path, server: str | None) -> None:
        self.lake, self._kept, self._server = lake, folder / "kept", server

    def keep(self) -> None:
        if self._server is None:
            with (
                closing(sqlite3.connect(self.lake / "catalog.db")) as source,
                closing(sqlite3.connect(self._kept)) as kept,
            ):
                source.backup(kept)
            return
        self._run("pg_dump", "--clean", "--if-exists", "-f", self._kept)

    def put_back(self) -> None:
        if self._server is None:
            for left in self.lake.glob("catalog.db*"):
                left.unlink()
            shutil.copyfile(self._kept, self.lake / "catalog.db")
            return
        self._run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", self._kept)

    def _run(self, program: str, *arguments: object) -> None:
        host = str(self._server).partition("host=")[2]
        command = [PG_DUMP / program, "-h", host, "-U", "postgres", "-d", "postgres", *arguments]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.full)])
def copies(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copies:
    if request.param == "sqlite":
        proponent.init(tmp_path / "lake").close()
        return Copies(tmp_path, tmp_path / "lake", None)
    server = request.getfixturevalue("postgres")
    request.getfixturevalue("empty_postgres")
    monkeypatch.setenv("PROPONENT_CATALOG", server)
    proponent.init(tmp_path / "lake", catalog=server).close()
    return Copies(tmp_path, tmp_path / "lake", server)


def write(path: Path, sentences: list[str], start: int, stop: int) -> Path:
    rows = [{"id": f"d{n}", "text": sentences[n], "entities": ["France"]} for n in range(start, stop)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def begun(copies: Copies, tmp_path: Path, sentences: list[str], checkpoint: Path) -> None:
    """Put something of every kind into the lake, and keep its catalog."""
    with proponent.open(copies.lake) as lake:
        lake.add_model(checkpoint, name="tiny")
        lake.ingest(write(tmp_path / "a.jsonl", sentences, 0, 20), corpus="c")
        lake.encode(settings=SMALL)
        lake.trace(*ASKED, method="logra", k=3)
    copies.keep()


def grown(copies: Copies, tmp_path: Path, sentences: list[str]) -> None:
    """Do all that a lake's tables can go through since."""
    with proponent.open(copies.lake) as lake:
        lake.ingest(write(tmp_path / "b.jsonl", sentences, 20, 40), corpus="c")
        lake.ingest(write(tmp_path / "other.jsonl", sentences, 40, 44), corpus="later")
        lake.delete("doc_key = 'd3'", reason="asked to")
        lake.delete("doc_key = 'd41'")
        lake.mark_near_duplicates()
        lake.encode(settings=SMALL)
        lake.encode(encoder="second", settings=EncoderSettings(blocks=1, side=8, moments="none", sample=40, seed=7))
        lake.index("second")
        lake.fit_curvature([ASKED, ("The currency of", " Peru")], encoder="tiny", name="task")
        lake.trace(*ASKED, encoder="tiny", method="logra", k=7, curvature="task")
        lake.requantise("tiny", codes="int4") if lake.status()["encoders"][0]["codes"] != "int4" else None


def rows_of(lake: Lake) -> dict[str, list[Any]]:
    at, found = lake.snapshot, {}
    for name in sorted(at.versions):
        if not name.startswith(("hits", "queries", "index_")):
            rows = lake.store.table(name, at=at).to_table()
            kept = rows.drop_columns([one for one in ("codes", "scales") if one in rows.column_names])
            found[name] = sorted(map(str, kept.to_pylist()))
    return found


def refused(lake: Path, *arguments: str) -> str:
    done = CliRunner().invoke(cli, [arguments[0], str(lake), *arguments[1:]])
    assert isinstance(done.exception, OlderCatalogError), done.output
    return str(done.exception)


def test_all_but_check_refuse_a_catalog_that_is_older_than_the_tables(
    copies: Copies, tmp_path: Path, sentences: list[str], checkpoint_dir: Path
) -> None:
    begun(copies, tmp_path, sentences, checkpoint_dir)
    with proponent.open(copies.lake) as lake:
        before = lake.snapshot.snapshot_id
        lake.ingest(write(tmp_path / "b.jsonl", sentences, 20, 24), corpus="c")
    copies.put_back()
    for command in (
        ("status",),
        ("sql", "SELECT 1"),
        ("ingest", str(tmp_path / "a.jsonl"), "--corpus", "c"),
        ("compact",),
    ):
        told = refused(copies.lake, *command)
        assert f"ends with snapshot {before}, and they are at {before + 1}" in told
        assert "--catch-up" in told
    with proponent.open(copies.lake, may_be_older=True) as lake:
        [finding] = lake.check()
        assert (finding["grade"], finding["where"]) == ("damage", "catalog")
        assert [one["where"] for one in lake.check(repair=True)] == ["catalog"], "nothing is repaired on such ground"
        with pytest.raises(OlderCatalogError):
            lake.ingest(tmp_path / "a.jsonl", corpus="another")


def test_catching_up_gives_back_what_was_published_and_keeps_withdrawn_documents_away(
    copies: Copies, tmp_path: Path, sentences: list[str], checkpoint_dir: Path
) -> None:
    begun(copies, tmp_path, sentences, checkpoint_dir)
    grown(copies, tmp_path, sentences)
    with proponent.open(copies.lake) as lake:
        wanted, newest = rows_of(lake), lake.snapshot
        snapshots = {row.snapshot_id: row.versions for row in lake.sql("SELECT snapshot_id, versions FROM snapshots")}
    copies.put_back()

    done = CliRunner().invoke(cli, ["check", str(copies.lake), "--catch-up", "--format", "json", "-q"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [one["grade"] for one in told] == ["mended", "mended"]
    assert "2 documents stay withdrawn" in told[1]["what"]

    with proponent.open(copies.lake) as lake:
        assert rows_of(lake) == wanted
        assert lake.check(deep=True) == []
        found = {row.snapshot_id: row.versions for row in lake.sql("SELECT snapshot_id, versions FROM snapshots")}
        assert {number: json.loads(found[number]) for number in snapshots} == {
            number: json.loads(versions) for number, versions in snapshots.items()
        }, "numbers mean what they meant"
        assert lake.snapshot.snapshot_id > newest.snapshot_id
        for at in range(2, newest.snapshot_id + 1):
            hidden = lake.sql("SELECT count(*) n FROM documents WHERE doc_key IN ('d3', 'd41')", at=at)
            assert next(iter(hidden)).n == 0
        lake.ingest(tmp_path / "a.jsonl", corpus="c")
        assert lake.sql("SELECT doc_key FROM documents WHERE doc_key = 'd3'").to_dicts() == []
        assert len(lake.trace(*ASKED, encoder="second", method="logra", k=3).to_dicts())
        assert (
            lake.encode(
                encoder="second", settings=EncoderSettings(blocks=1, side=8, moments="none", sample=40, seed=7)
            ).encoded
            == 0
        )
        lake.compact()
        assert lake.check(deep=True) == []
        with pytest.raises(InputError, match="nothing to catch up"):
            lake.catch_up()


def test_a_run_that_was_at_work_when_the_copy_was_made_takes_nothing_away(
    copies: Copies, tmp_path: Path, sentences: list[str]
) -> None:
    files = write(tmp_path / "a.jsonl", sentences, 0, 20)
    kept = list[bool]()

    def keep(now: Progress) -> None:
        if now.done == now.total and not kept:  # its units are written, and not published
            kept.append(True)
            copies.keep()

    with proponent.open(copies.lake) as lake:
        lake.ingest(files, corpus="c", progress=keep)
        wanted = rows_of(lake)
    assert kept
    copies.put_back()
    with proponent.open(copies.lake, may_be_older=True) as lake:
        lake.catch_up()
    with proponent.open(copies.lake) as lake:
        assert lake.ingest(files, corpus="c").unchanged == 20
        lake.check(repair=True)
        assert lake.check(deep=True) == []
        assert rows_of(lake) == wanted


def test_what_was_forgotten_since_is_told(
    copies: Copies, tmp_path: Path, sentences: list[str], checkpoint_dir: Path
) -> None:
    begun(copies, tmp_path, sentences, checkpoint_dir)
    with proponent.open(copies.lake) as lake:
        lake.delete("doc_key = 'd3'")
        lake.compact(forget=True)
        wanted = rows_of(lake)
    copies.put_back()
    with proponent.open(copies.lake, may_be_older=True) as lake:
        told = lake.catch_up()
        assert "forgotten since the copy are not known" in " ".join(one["what"] for one in told)
    with proponent.open(copies.lake) as lake:
        assert rows_of(lake) == wanted
        assert lake.check(deep=True) == []
        with pytest.raises(NotFoundError, match="was erased"):
            lake.sql("SELECT 1", at=2)


def test_a_lake_from_before_this_was_written_down_is_known_by_its_tags(
    copies: Copies, tmp_path: Path, sentences: list[str], checkpoint_dir: Path
) -> None:
    begun(copies, tmp_path, sentences, checkpoint_dir)
    with proponent.open(copies.lake) as lake:
        lake.ingest(write(tmp_path / "b.jsonl", sentences, 20, 40), corpus="c")
        lake.encode(encoder="second", settings=EncoderSettings(blocks=1, side=8, moments="none", sample=40, seed=7))
        wanted = rows_of(lake)
    copies.put_back()
    for name in (MARK, KNOWN):
        (copies.lake / name).unlink()
    with proponent.open(copies.lake, may_be_older=True) as lake:
        told = lake.catch_up()
        assert [one["table"] for one in told if "encoder is not known" in one["what"]] == ["encodings_second"]
    with proponent.open(copies.lake) as lake:
        assert rows_of(lake) == {name: rows for name, rows in wanted.items() if name != "encodings_second"}
        assert {one["grade"] for one in lake.check(deep=True)} <= {"leftover"}
        lake.check(repair=True)
        assert lake.check(deep=True) == []


def test_a_publication_that_is_cut_short_at_any_step_is_no_older_catalog(
    tmp_path: Path, sentences: list[str], crashes: Any, crash: type[BaseException]
) -> None:
    proponent.init(tmp_path / "lake").close()
    step = 0
    while True:
        try:
            with proponent.open(tmp_path / "lake") as lake, crashes.after_steps(step):
                lake.ingest(write(tmp_path / f"{step}.jsonl", sentences, 0, 3), corpus=f"c{step}")
        except crash:
            step += 7
            continue
        break
    with proponent.open(tmp_path / "lake") as lake:
        assert [one for one in lake.check() if one["grade"] == "damage"] == []


def test_a_lake_with_more_versions_than_snapshots_is_caught_up_after_a_crash_while_catching_up(
    copies: Copies, tmp_path: Path, sentences: list[str], checkpoint_dir: Path, crashes: Any, crash: type[BaseException]
) -> None:
    begun(copies, tmp_path, sentences, checkpoint_dir)
    with proponent.open(copies.lake) as lake:
        lake.ingest(write(tmp_path / "b.jsonl", sentences, 20, 24), corpus="c")
        lake.trace(*ASKED, method="logra", k=7)
        wanted = rows_of(lake)
    copies.put_back()
    for step in range(0, 60, 5):
        try:
            with proponent.open(copies.lake, may_be_older=True) as lake, crashes.after_steps(step):
                lake.catch_up()
        except crash:
            continue
        except InputError:  # it was caught up, and the crash came after
            pass
        break
    with proponent.open(copies.lake) as lake:
        lake.check(repair=True)
        assert rows_of(lake) == wanted
        assert lake.check(deep=True) == []
