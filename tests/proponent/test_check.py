"""A check names what is wrong and where, whatever was done to the files, and repairs what can be made again."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest
from click.testing import CliRunner
from lance.file import LanceFileReader
from sqlalchemy import delete, select, update

import proponent
from proponent.cli import cli
from proponent.lake import Lake
from proponent.schema import catalog as models
from proponent.schema.errors import DamagedLakeError, InputError, LakeBusyError, SqlError
from proponent.schema.settings import EncoderSettings
from proponent.schema.tables import DOCUMENTS, rows_hash
from proponent.store.check import Finding, check, repair
from proponent.store.check.facts import read_facts
from proponent.store.check.tables import TableChecker
from proponent.store.commit import Change, Committer, committing, write_batch
from proponent.store.leases import ALONE, lease, this_machine
from proponent.store.probe import Prober, Unreadable
from proponent.store.runs import new_run
from proponent.store.tags import tagged

SMALL = EncoderSettings(blocks=1, side=8, moments="none", sample=40)
ASKED = ("The capital of", " France")
KINDS = (
    "documents", "passages", "mentions", "rejects", "queries", "hits", "near_duplicates", "norms", "encodings_tiny",
    "index_tiny",
)  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, sentences: list[str]) -> Path:
    """A small lake with a row in every kind of table, and deleted rows."""
    folder = tmp_path_factory.mktemp("check")
    rows = [{"id": f"d{n}", "text": text, "entities": ["France"]} for n, text in enumerate(sentences[:40])]
    rows += [{"id": "twin", "text": sentences[0]}, {"id": "bad"}]
    with proponent.init(folder / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(write(folder / "rows.jsonl", rows), corpus="c")
        lake.mark_near_duplicates()
        lake.encode(settings=SMALL)
        lake.index()
        lake.fit_curvature([ASKED, ("The currency of", " Peru")], name="task")
        lake.trace(*ASKED, method="logra", k=5)
        rows[3]["text"] = "A text that nobody has read before."
        lake.ingest(write(folder / "rows.jsonl", rows), corpus="c")
        lake.encode(settings=SMALL)
        lake.index()
        lake.trace(*ASKED, method="logra", k=7, curvature="task")
        lake.trace_all([ASKED, ("The currency of", " Peru")], average=True, method="logra", k=3)
    return folder / "lake"


@pytest.fixture
def lake(made: Path, tmp_path: Path, read_here: None) -> Iterator[Lake]:
    shutil.copytree(made, tmp_path / "lake")
    with proponent.open(tmp_path / "lake") as lake:
        yield lake


def wrong(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.is_wrong]


def files_of(lake: Lake, table: str) -> list[Path]:
    """The data files of a table as the newest snapshot has it."""
    stored = lake.store.table(table, at=lake.snapshot)
    names = [file.path for fragment in stored.get_fragments() for file in fragment.data_files()]
    return [lake.store.table_dir(table) / "data" / name for name in names]


def a_table(lake: Lake, kind: str) -> str:
    return next(name for name in lake.snapshot.versions if name.startswith(kind))


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swapped(path: Path) -> None:
    """Write a file of as many bytes, all of which are wrong at its beginning."""
    data = path.read_bytes()
    path.write_bytes(bytes(255 - byte for byte in data[:200]) + data[200:])


def test_a_lake_that_is_used_is_sound(lake: Lake) -> None:
    assert check(lake.store) == check(lake.store, deep=True) == []
    assert all(number for name, number in lake.status()["rows"].items()), "every kind of table has rows"


def test_checking_changes_nothing_and_runs_on_a_disk_that_can_only_be_read(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path: path.read_bytes() for path in lake.store.tables_dir.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        from proponent.schema.errors import CatalogError
        from proponent.store.catalog import Catalog

        def refuse(_catalog: Catalog) -> Any:
            raise CatalogError("attempt to write a readonly database")

        patch.setattr(Catalog, "write", refuse)
        assert check(lake.store) == []
    assert {path: path.read_bytes() for path in lake.store.tables_dir.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize("harm", [cut, Path.unlink], ids=["cut", "gone"])
def test_a_file_that_is_cut_or_gone_is_told_where_it_is(lake: Lake, harm: Callable[[Path], None]) -> None:
    with Prober() as prober:
        for kind in KINDS:
            table = a_table(lake, kind)
            [file, *_] = files_of(lake, table)
            before = file.read_bytes()
            harm(file)
            [finding] = checker(lake, prober).check(table).findings
            told = (finding.grade, finding.kind, finding.table, finding.names)
            assert told == ("damage", "rows", table, (f"data/{file.name}",))
            file.write_bytes(before)


def test_other_tables_are_checked_and_read_while_one_is_damaged(lake: Lake) -> None:
    cut(files_of(lake, "mentions")[0])
    publish(lake, Change("near_duplicates", delete=("true",)), Change("documents", delete=("doc_key = 'd5'",)))
    found = {(finding.kind, finding.table) for finding in wrong(check(lake.store))}
    assert found == {("rows", "mentions"), ("references", "passages")}
    assert lake.sql("SELECT count(*) AS n FROM passages").to_dicts() == [{"n": 41}]
    assert lake.trace_all([ASKED], method="logra", k=3)
    with pytest.raises(SqlError, match=r"a file of the lake cannot be read; `proponent check` says which"):
        lake.sql("SELECT count(entity) FROM mentions")


def checker(lake: Lake, prober: Prober, *, deep: bool = True) -> TableChecker:
    return TableChecker(lake.store, read_facts(lake.store.catalog), prober, deep=deep, progress=lambda _n: None)


def decoded(path: Path) -> str:
    return rows_hash(LanceFileReader(str(path)).read_all().to_table())


@pytest.mark.parametrize("times", [4, pytest.param(60, marks=pytest.mark.full)])
def test_a_flipped_bit_of_a_data_file_is_found_or_changes_no_row(lake: Lake, times: int) -> None:
    chance = random.Random(5)
    with Prober() as prober:
        for table in sorted(lake.snapshot.versions):
            for file in sorted((lake.store.table_dir(table) / "data").iterdir()):
                before = file.read_bytes()
                was = prober.rows_hash(file.parent, [file.name])
                for turn in range(times):
                    near_the_end = turn % 2
                    place = len(before) - 1 - chance.randrange(min(len(before), 400 if near_the_end else len(before)))
                    flip(file, place, chance.randrange(8))
                    found = checker(lake, prober).check(table).findings
                    if not found:
                        assert prober.rows_hash(file.parent, [file.name]) == was, (file, place)
                    assert {name for finding in found for name in finding.names} <= {f"data/{file.name}"}
                    file.write_bytes(before)


@pytest.mark.parametrize("times", [2, pytest.param(40, marks=pytest.mark.full)])
def test_a_flipped_bit_of_any_other_file_that_a_snapshot_names_is_found(lake: Lake, times: int) -> None:
    chance = random.Random(7)
    with lake.store.catalog.read() as session:
        recorded = [(stored.table_name, stored.path) for stored in session.scalars(select(models.StoredFile))]
    kinds = {path.partition("/")[0] for _, path in recorded}
    assert kinds == {"_versions", "_deletions", "_indices"}
    with Prober() as prober:
        for table, path in recorded:
            file = lake.store.table_dir(table) / path
            before = file.read_bytes()
            for _ in range(times):
                flip(file, chance.randrange(len(before)), chance.randrange(8))
                found = checker(lake, prober).check(table).findings
                assert any(finding.grade == "damage" for finding in found), path
                file.write_bytes(before)


def test_a_file_whose_reading_ends_the_process_is_told_and_the_next_is_read(lake: Lake, tmp_path: Path) -> None:
    [file, *_] = files_of(lake, "mentions")
    with Prober() as prober:
        was = prober.rows_hash(file.parent, [file.name])
        assert prober._child is not None
        prober._child.kill()
        prober._child.wait()
        assert prober.rows_hash(file.parent, [file.name]) == was == decoded(file)
        (tmp_path / "x.lance").write_bytes(b"no such file")
        with pytest.raises(Unreadable):
            prober.rows_hash(tmp_path, ["x.lance"])


def publish(lake: Lake, *changes: Change) -> None:
    run = new_run("test", {})
    with lake.store.catalog.write() as session:
        session.add(run)
    with committing(lake.store) as committer:
        committer.publish(run.run_id, changes)


@pytest.mark.parametrize(
    ("table", "predicate", "broken"),
    [
        ("documents", "doc_key = 'd5'", {("references", "passages"), ("references", "mentions")}),
        ("passages", "text LIKE '%Peru%'", {("counts", "documents"), ("references", "mentions")}),
        pytest.param("queries", "true", {("references", "queries")}, marks=pytest.mark.full),
        pytest.param("encodings_tiny", "true", {("references", "index_tiny")}, marks=pytest.mark.full),
    ],
)
def test_rows_that_refer_to_rows_which_are_gone_are_found(
    lake: Lake, table: str, predicate: str, broken: set[tuple[str, str]]
) -> None:
    publish(lake, Change(table, delete=(predicate,)))
    assert {(finding.kind, finding.table) for finding in wrong(check(lake.store))} >= broken


def test_rows_that_are_there_twice_are_found(lake: Lake) -> None:
    tables = [a_table(lake, kind) for kind in KINDS if kind not in ("rejects", "mentions", "near_duplicates")]
    stored = {table: lake.store.table(table, at=lake.snapshot).to_table() for table in tables}
    publish(lake, *(Change(table, (write_batch(lake.store, table, stored[table]),)) for table in tables))
    assert {finding.table for finding in check(lake.store) if finding.kind == "repeated"} == set(tables)


def test_hits_and_traces_that_lead_nowhere_are_found(lake: Lake) -> None:
    [trace] = lake.sql("SELECT trace_id FROM traces LIMIT 1")
    rows = [
        {"trace_id": trace.trace_id, "side": "proponent", "rank": 99, "passage_id": "nobody", "score": 1.0},
        {"trace_id": "nobody", "side": "proponent", "rank": 1, "passage_id": "nobody", "score": 1.0},
    ]
    hits = pa.Table.from_pylist([row | {"percentile": None} for row in rows], lake.store.schema("hits"))
    publish(lake, Change("hits", (write_batch(lake.store, "hits", hits),)))
    told = [finding.what for finding in wrong(check(lake.store))]
    assert told == [
        "1 rows of trace_id that catalog.traces does not have: nobody",
        "1 hits of passages that the searched snapshot does not have: nobody",
    ]


def test_columns_that_are_not_as_they_should_be_are_found(lake: Lake) -> None:
    odd = DOCUMENTS.remove(DOCUMENTS.get_field_index("author"))
    rows = lake.store.table("documents", at=lake.snapshot).to_table().drop_columns(["author"])
    batch = write_batch(lake.store, "documents", rows, schema=odd)
    publish(lake, Change("documents", (batch,), schema=odd))
    [finding] = wrong(check(lake.store))
    assert (finding.kind, finding.table) == ("schema", "documents")
    assert "author is missing" in finding.what


def test_damaged_documents_are_told_by_their_keys(lake: Lake) -> None:
    [file, *_] = files_of(lake, "passages")
    cut(file)
    [told] = [finding.what for finding in check(lake.store) if finding.kind == "concerned"]
    assert told.startswith("40 documents have passages in damaged files: d0, ")
    assert all(finding.remedy == "restore from a backup" for finding in wrong(check(lake.store)))


def test_an_artifact_that_was_changed_or_removed_is_found(lake: Lake) -> None:
    first, second = sorted(lake.store.artifacts_dir.iterdir())
    flip(first, 100)
    second.unlink()
    (lake.store.artifacts_dir / "x.safetensors").write_bytes(b"x")
    told = [(finding.grade, finding.where, finding.what) for finding in check(lake.store)]
    assert told == [
        ("damage", f"artifacts/{first.name}", "its content does not match its name"),
        ("damage", f"artifacts/{second.name}", "it is missing"),
        ("leftover", "artifacts/x.safetensors", "no encoder or curvature names it"),
    ]


def test_a_damaged_catalog_is_told_in_a_line(lake: Lake) -> None:
    lake.close()
    path = lake.store.root / "catalog.db"
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 12] = bytes(4096 * 9)
    path.write_bytes(bytes(data))
    done = CliRunner().invoke(cli, ["check", str(lake.store.root)])
    assert done.exit_code == 1
    assert "restore" in done.output or isinstance(done.exception, proponent.schema.errors.ProponentError)


# Mending


def dead_lock(lake: Lake) -> None:
    with lake.store.catalog.write() as session:
        session.merge(
            models.Lock(
                name="ingest c", token="t", host=this_machine(), pid=1 << 22, process_start="x", expires_at=models.now()
            )
        )


def orphan(lake: Lake) -> None:
    rows = lake.store.table("documents", at=lake.snapshot).to_table()
    write_batch(lake.store, "documents", rows)


def half_published(lake: Lake) -> None:
    class Died(BaseException):
        pass

    def die(*_arguments: object) -> None:
        raise Died

    carry_out, Committer._carry_out = Committer._carry_out, die  # type: ignore[method-assign,assignment]
    try:
        publish(lake, Change("hits", delete=("rank > 2",)))
    except Died:
        pass
    finally:
        Committer._carry_out = carry_out  # type: ignore[method-assign]


def unpublished(lake: Lake) -> None:
    lake.store.table("mentions").delete("entity = 'France'")


def without_tags(lake: Lake) -> None:
    shutil.rmtree(lake.store.table_dir("passages") / "_refs")


def worklist(lake: Lake) -> None:
    (lake.store.work_dir / "dead").mkdir(parents=True)


@pytest.mark.parametrize(
    "left_by",
    [
        {"lock": dead_lock, "orphans": orphan, "unpublished": unpublished, "tags": without_tags, "work": worklist},
        {"publication": half_published},
    ],
    ids=["leftovers", "publication"],
)
def test_what_dead_processes_leave_is_told_and_mended(lake: Lake, left_by: dict[str, Callable[[Lake], None]]) -> None:
    for leave in left_by.values():
        leave(lake)
    assert {finding.kind for finding in check(lake.store)} == left_by.keys()
    done = repair.repair(lake.store)
    assert {(finding.grade, finding.kind) for finding in done} == {("mended", kind) for kind in left_by}
    assert check(lake.store, deep=True) == []
    assert lake.sql("SELECT count(*) AS n FROM mentions WHERE entity = 'France'").to_dicts() == [{"n": 40}]
    assert lake.sql("SELECT max(rank) AS n FROM hits").to_dicts() == [{"n": 2 if "publication" in left_by else 7}]


@pytest.mark.parametrize(
    ("kind", "harm"),
    [
        ("encodings_tiny", cut),
        *(
            pytest.param(kind, harm, marks=pytest.mark.full)
            for kind in ("encodings_tiny", "index_tiny", "norms")
            for harm in (Path.unlink, swapped, cut)
        ),
    ],
)
def test_what_can_be_made_again_is_removed_and_made_again(lake: Lake, kind: str, harm: Callable[[Path], None]) -> None:
    table = a_table(lake, kind)
    before = lake.store.table(table, at=lake.snapshot).count_rows()
    harm(files_of(lake, table)[0])
    done = repair.repair(lake.store)
    assert [finding for finding in done if finding.grade == "damage" and finding.kind != "references"] == []
    lake.encode(settings=SMALL)
    lake.index()
    lake.trace(*ASKED, method="logra", k=4, curvature="task")
    assert wrong(check(lake.store)) == []
    assert lake.store.table(table, at=lake.snapshot).count_rows() == before
    assert lake.trace(*ASKED, method="logra", k=5, approximate=True).to_dicts()


def test_a_damaged_index_is_built_again(lake: Lake) -> None:
    stored = lake.store.table("index_tiny", at=lake.snapshot)
    for segment in [segment for index in stored.describe_indices() for segment in index.segments]:
        for file in (lake.store.table_dir("index_tiny") / "_indices" / str(segment.uuid)).iterdir():
            flip(file, file.stat().st_size // 2)
    assert {(finding.kind, finding.table) for finding in wrong(check(lake.store))} == {("index", "index_tiny")}
    repair.repair(lake.store)
    assert wrong(check(lake.store)) == []
    assert lake.store.table("index_tiny", at=lake.snapshot).describe_indices()


def test_documents_that_are_damaged_stay_as_they_are(lake: Lake) -> None:
    [file, *_] = files_of(lake, "documents")
    cut(file)
    before = lake.snapshot
    assert wrong(repair.repair(lake.store)) == wrong(check(lake.store)) != []
    assert lake.snapshot == before


def test_documents_go_back_to_where_they_are_whole_when_asked(lake: Lake, tmp_path: Path) -> None:
    texts = "SELECT doc_key, text FROM documents JOIN passages USING (doc_id) ORDER BY ALL"
    before = lake.sql(texts).to_dicts()
    with pytest.raises(InputError, match="nothing to go back from"):
        lake.check(go_back=True)
    known = set(files_of(lake, "passages"))
    lake.ingest(write(tmp_path / "new.jsonl", [{"id": "new", "text": "It came later."}]), corpus="c")
    [file] = set(files_of(lake, "passages")) - known
    cut(file)
    assert [row["grade"] for row in lake.check(go_back=True)] == ["mended"]
    assert (
        lake.sql("SELECT doc_key, text FROM documents JOIN passages USING (doc_id) ORDER BY ALL").to_dicts() == before
    )
    assert lake.ingest(tmp_path / "new.jsonl", corpus="c").added == 1
    assert lake.check() == []


def test_documents_do_not_go_back_behind_a_withdrawal(lake: Lake) -> None:
    [old, *_] = files_of(lake, "documents")
    lake.delete("doc_key = 'd7'")
    [name] = [
        name
        for fragment in lake.store.table("documents", at=lake.snapshot).get_fragments()
        if (name := fragment.deletion_file())
    ][:1]
    flip(lake.store.table_dir("documents") / name, 30)
    with pytest.raises(DamagedLakeError, match="withdrawn since; restore from a backup"):
        lake.check(go_back=True)
    cut(old)
    with pytest.raises(DamagedLakeError, match="no snapshot has documents whose files are sound"):
        lake.check(go_back=True)


def test_nothing_of_a_run_at_work_is_judged_or_removed(lake: Lake) -> None:
    with lease(lake.store.catalog, "ingest c"):
        orphan(lake)
        unpublished(lake)
        assert [finding.kind for finding in check(lake.store)] == ["at work"]
        (lake.store.artifacts_dir / "x.safetensors").write_bytes(b"x")
        assert wrong(repair.repair(lake.store)) == []
    with lease(lake.store.catalog, ALONE), pytest.raises(LakeBusyError, match="compact"):
        check(lake.store)


def test_what_a_run_that_can_go_on_has_written_stays(lake: Lake) -> None:
    batch = write_batch(lake.store, "documents", lake.store.table("documents", at=lake.snapshot).to_table())
    with lake.store.catalog.write() as session:
        run = new_run("ingest", {})
        session.add(run)
        session.flush()
        result = {"batches": [batch.to_json()]}
        session.add(
            models.Unit(unit_id="u", run_id=run.run_id, ordinal=0, work={}, status="written", attempts=1, result=result)
        )
    assert [(finding.grade, finding.kind) for finding in check(lake.store)] == [("note", "units")]
    repair.repair(lake.store)
    assert all((lake.store.table_dir("documents") / "data" / file).is_file() for file in batch.files)


def test_a_lake_from_before_there_were_hashes_of_files_is_checked_too(lake: Lake) -> None:
    with lake.store.catalog.write() as session:
        session.execute(delete(models.StoredFile))
    assert check(lake.store, deep=True) == []
    stored = lake.store.table("passages", at=lake.snapshot)
    [name] = [fragment.deletion_file() for fragment in stored.get_fragments() if fragment.deletion_file()]
    (lake.store.table_dir("passages") / name).unlink()
    assert {finding.table for finding in wrong(check(lake.store))} == {"passages"}


def test_a_snapshot_that_the_newest_does_not_need_is_checked_by_deep_alone(lake: Lake) -> None:
    rows = lake.store.table("rejects", at=lake.snapshot).to_table()
    [old, *_] = files_of(lake, "rejects")
    batch = write_batch(lake.store, "rejects", rows, schema=rows.schema)
    publish(lake, Change("rejects", (batch,), schema=lake.store.schema("rejects")))
    flip(old, 10)
    assert check(lake.store) == []
    [finding] = wrong(check(lake.store, deep=True))
    assert (finding.table, finding.remedy) == (
        "rejects",
        "restore from a backup; the newest snapshot does not need it",
    )


def test_a_snapshot_whose_version_is_gone_is_found(lake: Lake) -> None:
    with lake.store.catalog.write() as session:
        first = session.scalars(select(models.Snapshot).order_by(models.Snapshot.snapshot_id.desc())).first()
        assert first is not None
        session.execute(
            update(models.Snapshot)
            .where(models.Snapshot.snapshot_id == first.snapshot_id)
            .values(versions=first.versions | {"hits": 99})
        )
    told = [(finding.table, finding.kind) for finding in wrong(check(lake.store))]
    assert told == [("hits", "version")]


# Tags and the command


def test_every_publication_tags_the_tables_that_it_changed(lake: Lake) -> None:
    publish(lake, Change("hits", delete=("rank > 6",)))
    at = lake.snapshot
    tags = {table: tagged(lake.store.table(table)) for table in at.versions}
    assert tags["hits"][at.snapshot_id] == at.versions["hits"]
    assert all(at.snapshot_id not in tags[table] for table in tags if table != "hits")
    for snapshot in read_facts(lake.store.catalog).snapshots[1:]:
        for table, found in tags.items():
            if snapshot.snapshot_id in found:
                assert found[snapshot.snapshot_id] == snapshot.versions[table]
    dataset = lance.dataset(str(lake.store.table_dir("hits")), version=f"snapshot-{at.snapshot_id}")
    assert dataset.version == at.versions["hits"]


def test_tags_go_with_the_snapshots_that_are_erased(lake: Lake) -> None:
    lake.delete("doc_key = 'd7'")
    done = lake.compact(forget=True)
    assert done["snapshots"]
    for table in lake.snapshot.versions:
        assert not tagged(lake.store.table(table)).keys() & set(done["snapshots"])
    assert check(lake.store, deep=True) == []


def test_the_command_tells_and_exits_with_one_when_something_is_wrong(lake: Lake) -> None:
    root = str(lake.store.root)
    sound = CliRunner().invoke(cli, ["check", root, "--format", "json"])
    assert (sound.exit_code, json.loads(sound.stdout)) == (0, [])
    assert "nothing wrong" in sound.stderr
    cut(files_of(lake, "encodings_tiny")[0])
    damaged = CliRunner().invoke(cli, ["check", root, "--format", "json"])
    assert damaged.exit_code == 1
    [row] = [row for row in json.loads(damaged.stdout) if row["grade"] == "damage"]
    assert row.keys() == {"grade", "table", "where", "what", "remedy"}
    assert (row["table"], "encode" in row["remedy"]) == ("encodings_tiny", True)
    mended = CliRunner().invoke(cli, ["check", root, "--repair"])
    assert (mended.exit_code, "mended" in mended.output) == (0, True)
