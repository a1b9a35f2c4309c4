"""A lake of the first release becomes one of this release with every row that it had, and everything works on it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import proponent
from proponent import migrations
from proponent.cli import cli
from proponent.lake import Lake
from proponent.schema.errors import LakeVersionError
from proponent.schema.settings import EncoderSettings
from proponent.schema.tables import TABLE_MIGRATION
from proponent.store.backup import back_up
from proponent.store.lake import open_store


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory, unpack: Callable[[Path], Path]) -> Path:
    """A migrated lake that knows where its checkpoint is; tests add to it at most."""
    folder = tmp_path_factory.mktemp("migrated")
    lake = unpack(folder)
    assert proponent.migrate(lake) == ["near_duplicates", "index_tables", "indexes"]
    with proponent.open(lake) as opened:
        opened.add_model(folder / "checkpoint", name="tiny")
    return lake


@pytest.fixture
def lake(migrated: Path) -> Iterator[Lake]:
    with proponent.open(migrated) as opened:
        yield opened


def rows_of(lake: Lake, relation: str, columns: list[str], at: int | None = None) -> list[dict[str, Any]]:
    named = ", ".join(f'"{column}"' for column in columns)
    found = lake.sql(f"SELECT {named} FROM {relation}", at=at).to_dicts()
    plain = [{key: _plain(value) for key, value in row.items()} for row in found]
    return sorted(plain, key=lambda row: json.dumps(row, sort_keys=True))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, int | float | str | list | None) else value.isoformat()


@pytest.mark.parametrize("command", [["status"], ["sql", "SELECT 1"], ["check"], ["history"], ["compact"], ["index"]])
def test_every_command_says_what_to_run_first(first_lake: Path, command: list[str]) -> None:
    done = CliRunner().invoke(cli, [command[0], str(first_lake), *command[1:]])
    assert isinstance(done.exception, LakeVersionError)
    assert str(done.exception).endswith(f"run `proponent migrate {first_lake}`")
    assert len(str(done.exception).splitlines()) == 1


def test_migrate_check_names_catalog_and_tables_and_changes_nothing(first_lake: Path) -> None:
    for _ in range(2):
        done = CliRunner().invoke(cli, ["migrate", str(first_lake), "--check"])
        assert done.exit_code == 1
        assert str(done.exception).startswith(f"the catalog of {first_lake} is at revision 0001 of ")
        assert f" and the tables of {first_lake} are at migration 0 of {TABLE_MIGRATION}; " in str(done.exception)
    assert CliRunner().invoke(cli, ["migrate", str(first_lake)]).exit_code == 0
    done = CliRunner().invoke(cli, ["migrate", str(first_lake), "--check"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "up to date" in done.stderr


def test_every_row_is_what_the_first_release_answered(lake: Lake, expected: dict[str, Any]) -> None:
    assert set(expected["rows"]) >= {"documents", "passages", "hits", "encodings", "influence", "traces"}
    for relation, rows in expected["rows"].items():
        assert rows, relation
        assert rows_of(lake, relation, list(rows[0]), at=8) == rows, relation


def test_it_is_sound_to_the_last_byte(lake: Lake) -> None:
    assert lake.check(deep=True) == []


def test_snapshots_from_before_keep_their_form(lake: Lake) -> None:
    forms = {row.snapshot_id: row.table_migration for row in lake.sql("SELECT * FROM snapshots")}
    assert [forms[number] for number in (1, 7, 8, 9, 12)] == [0, 0, 1, 2, TABLE_MIGRATION]
    assert set(list(forms.values())[11:]) == {TABLE_MIGRATION}, "what is published later has the newest"
    assert [len(lake.sql("FROM documents", at=number)) for number in (1, 2, 7)] == [0, 25, 25]
    assert len(lake.sql("FROM near_duplicates", at=7)) == 0


def test_a_question_of_then_has_the_same_answer(lake: Lake, expected: dict[str, Any]) -> None:
    [former] = {row["trace_id"] for row in expected["rows"]["traces"] if not row["filter"]}
    wanted = [row for row in expected["rows"]["influence"] if row["trace_id"] == former]
    for approximate in (False, True):
        found = lake.trace("France: the capital is", " Paris", k=3, approximate=approximate).to_dicts()
        scores = {(row["side"], row["rank"]): row["score"] for row in found}
        assert len(scores) == len(wanted) == 6
        for row in wanted:
            assert scores[row["side"], row["rank"]] == pytest.approx(row["score"], rel=1e-3)


def test_everything_else_works_on_it(lake: Lake, tmp_path: Path, expected: dict[str, Any]) -> None:
    [former] = {row["trace_id"] for row in expected["rows"]["traces"] if row["filter"]}
    assert "Lima" in lake.report(former, tmp_path / "report.html").read_text("utf-8")
    assert lake.explain(former, "1")
    assert lake.mark_near_duplicates()["documents"] == 25
    (tmp_path / "more.jsonl").write_text('{"id": "new", "text": "Lima: the capital is of Peru.", "source": "atlas"}\n')
    lake.ingest(tmp_path / "more.jsonl", corpus="notes")
    lake.encode("tiny", settings=EncoderSettings(blocks=1, side=8))
    lake.index()
    assert lake.index_text()["rows"] == 26
    assert len(lake.trace("Peru: the capital is", " Lima", method="bm25", k=2)) > 0
    assert lake.delete("doc_key = 'new'")["documents"] == 1
    assert len(lake.group_influence_of(former, by="source")) > 0
    lake.compact()
    assert lake.check() == []
    lake.backup(tmp_path / "backup")
    proponent.restore(tmp_path / "backup", tmp_path / "again")
    with proponent.open(tmp_path / "again") as again:
        assert len(again.sql("FROM documents")) == 25


@pytest.mark.full
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_backup_from_before_is_restored_in_the_present_form(
    database: str, first_lake: Path, tmp_path: Path, expected: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    store = open_store(first_lake)
    migrations.upgrade(store.catalog.engine)  # as a version had it that knew backups, and no migrations of tables
    back_up(store, tmp_path / "backup", upgrade=migrations.upgrade)
    store.close()
    on_postgres = {}
    if database == "postgres":
        request.getfixturevalue("empty_postgres")
        on_postgres = {"catalog": request.getfixturevalue("postgres")}
    proponent.restore(tmp_path / "backup", tmp_path / "again", **on_postgres)
    with proponent.open(tmp_path / "again") as again:
        assert [finding for finding in again.check(deep=True) if finding["grade"] != "note"] == []
        assert again.snapshot.table_migration == TABLE_MIGRATION
        documents = expected["rows"]["documents"]
        assert rows_of(again, "documents", list(documents[0])) == documents
