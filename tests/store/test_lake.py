"""A folder is a whole lake, a lake whose making was cut short, or none; and each says so."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import proponent
from proponent.schema.errors import (
    DamagedLakeError,
    LakeError,
    LakeHalfMadeError,
    LakeNotFoundError,
    LakeVersionError,
    NotFoundError,
    ProponentError,
)
from proponent.schema.tables import LAKE_TABLES
from proponent.store.lake import CONFIG_NAME, FORMAT, LakeConfig, LakeStore, open_store
from proponent.store.snapshots import get_snapshot, latest_snapshot

INIT = """
import sys, lance, proponent
print("ready", flush=True)
sys.stdin.readline()
proponent.init(sys.argv[1]).close()
print("made", flush=True)
"""


def refused(error: type[ProponentError], match: str, path: Path) -> ProponentError:
    with pytest.raises(error, match=match) as caught:
        proponent.open(path)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_new_lake_opens_with_all_its_tables_empty_at_snapshot_1(tmp_path: Path) -> None:
    with proponent.init(tmp_path / "lake") as lake:
        assert lake.snapshot.snapshot_id == 1
    with proponent.open(tmp_path / "lake") as lake:
        assert set(lake.snapshot.versions) == set(LAKE_TABLES)
        for name, schema in LAKE_TABLES.items():
            table = lake.store.table(name, at=lake.snapshot)
            assert table.count_rows() == 0
            assert table.schema.names == schema.names
        assert [run.kind for run in lake.sql("SELECT kind FROM runs WHERE status = 'done'")] == ["init"]


def test_a_lake_can_be_made_in_an_empty_folder_and_below_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        proponent.init(path).close()
        proponent.open(path).close()


def test_a_lake_moves_with_its_folder(tmp_path: Path) -> None:
    proponent.init(tmp_path / "here").close()
    (tmp_path / "here").rename(tmp_path / "there")
    with proponent.open(tmp_path / "there") as lake:
        assert lake.status()["snapshot"] == 1
    assert not (tmp_path / "here").exists()


def test_a_missing_folder_is_a_file_not_found(tmp_path: Path) -> None:
    error = refused(LakeNotFoundError, "does not exist; make a lake with `proponent init", tmp_path / "none")
    assert isinstance(error, FileNotFoundError)


def test_a_folder_of_other_things_is_no_lake_and_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    refused(LakeNotFoundError, "is no lake", tmp_path)
    with pytest.raises(LakeError, match="not empty and no lake"):
        proponent.init(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_lake(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    refused(LakeNotFoundError, "is no lake", file)
    with pytest.raises(LakeError, match="is a file; a lake needs a folder"):
        proponent.init(file)
    with pytest.raises(LakeError, match="cannot be made"):
        proponent.init(file / "below")
    assert file.read_text() == "x"


def test_a_lake_is_not_made_twice(tmp_path: Path) -> None:
    proponent.init(tmp_path / "lake").close()
    before = (tmp_path / "lake" / CONFIG_NAME).read_bytes()
    with pytest.raises(LakeError, match="is a lake already"):
        proponent.init(tmp_path / "lake")
    assert (tmp_path / "lake" / CONFIG_NAME).read_bytes() == before


@pytest.mark.parametrize("part", ["tables", "catalog.db"])
def test_a_half_made_lake_says_how_to_finish_it(tmp_path: Path, part: str) -> None:
    proponent.init(tmp_path / "lake").close()
    (tmp_path / "lake" / CONFIG_NAME).unlink()
    if part == "catalog.db":
        (tmp_path / "lake" / "tables").rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "lake" / "catalog.db").unlink()
    refused(LakeHalfMadeError, "was not finished; run `proponent init", tmp_path / "lake")
    proponent.init(tmp_path / "lake").close()
    proponent.open(tmp_path / "lake").close()


def test_a_newer_format_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    proponent.init(tmp_path / "lake").close()
    (tmp_path / "lake" / CONFIG_NAME).write_text(LakeConfig(format=FORMAT + 1).to_toml())
    refused(LakeVersionError, f"has lake format {FORMAT + 1}, this proponent reads up to {FORMAT}", tmp_path / "lake")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"format = 1",
        b'catalog = "sqlite:///catalog.db"',
        b'format = "one"\ncatalog = "sqlite:///catalog.db"',
        b'format = []\ncatalog = "sqlite:///catalog.db"',
        b"format = = 1",
        b"\xff\xfe\x00",
        b'format = 1\ncatalog = "sqlite:///catalog.db',
    ],
)
def test_a_damaged_configuration_is_a_damaged_lake(tmp_path: Path, text: bytes) -> None:
    proponent.init(tmp_path / "lake").close()
    (tmp_path / "lake" / CONFIG_NAME).write_bytes(text)
    refused(DamagedLakeError, "cannot be read", tmp_path / "lake")


@pytest.mark.parametrize("url", ["", "nonsense", "nosuchdatabase://host/name", "mysql://host/name", "sqlite"])
def test_a_catalog_url_that_names_no_known_database_is_refused_and_makes_nothing(tmp_path: Path, url: str) -> None:
    with pytest.raises(LakeError, match="catalog"):
        proponent.init(tmp_path / "lake", catalog=url)
    assert not (tmp_path / "lake").exists()
    proponent.init(tmp_path / "whole").close()
    (tmp_path / "whole" / CONFIG_NAME).write_text(LakeConfig(catalog=url).to_toml())
    refused(LakeError, "catalog", tmp_path / "whole")


def test_any_catalog_url_survives_the_configuration_file_but_for_its_password() -> None:
    import tomllib

    from sqlalchemy import make_url

    config = LakeConfig(catalog='postgresql://"ü\\\n#\t:hunter2@host/name?password=hunter2&sslmode=require')
    text = config.to_toml()
    assert "hunter2" not in text
    found = make_url(tomllib.loads(text)["catalog"])
    assert (found.username, found.host, found.query) == ('"ü\\\n#\t', "host", {"sslmode": "require"})


def test_another_file_does_not_take_the_place_of_a_lakes_own_catalog(tmp_path: Path) -> None:
    proponent.init(tmp_path / "lake").close()
    shutil.copy(tmp_path / "lake" / "catalog.db", tmp_path / "another.db")
    with pytest.raises(LakeError, match=r"the catalog of .* is sqlite:///catalog\.db, and no other can take its place"):
        proponent.open(tmp_path / "lake", catalog=f"sqlite:///{tmp_path / 'another.db'}")


def test_a_lost_catalog_is_a_damaged_lake_and_no_new_one_is_made(tmp_path: Path) -> None:
    proponent.init(tmp_path / "lake").close()
    (tmp_path / "lake" / "catalog.db").unlink()
    refused(DamagedLakeError, "has lost its catalog.db", tmp_path / "lake")
    assert not (tmp_path / "lake" / "catalog.db").exists()


def test_a_catalog_that_is_no_database_is_named(tmp_path: Path) -> None:
    proponent.init(tmp_path / "lake").close()
    (tmp_path / "lake" / "catalog.db").write_bytes(b"not a database at all" * 100)
    refused(LakeError, "catalog cannot be opened: file is not a database", tmp_path / "lake")


def test_an_empty_catalog_asks_for_a_migration(tmp_path: Path) -> None:
    proponent.init(tmp_path / "lake").close()
    (tmp_path / "lake" / "catalog.db").write_bytes(b"")
    refused(LakeVersionError, "at revision None", tmp_path / "lake")


def test_a_catalog_without_a_snapshot_is_a_damaged_lake(lake: LakeStore) -> None:
    with lake.catalog.write() as session:
        session.connection().exec_driver_sql("DELETE FROM snapshots")
    with pytest.raises(DamagedLakeError, match="names no snapshot"):
        latest_snapshot(lake.catalog)


def test_an_unknown_snapshot_names_those_there_are(lake: LakeStore) -> None:
    with pytest.raises(NotFoundError, match="no snapshot 7; the lake has 1 to 1"):
        get_snapshot(lake.catalog, 7)


def test_unknown_tables_are_not_found(lake: LakeStore) -> None:
    for ask in (lake.table, lake.schema):
        for name in ("nothing", "encodings_nothing", "index_nothing"):
            with pytest.raises(NotFoundError, match="no table"):
                ask(name)
    with pytest.raises(NotFoundError, match="at snapshot 1"):
        lake.table("encodings_later", at=latest_snapshot(lake.catalog))


def test_a_table_whose_versions_are_lost_is_damage(lake: LakeStore) -> None:
    for manifest in (lake.tables_dir / "documents.lance" / "_versions").iterdir():
        manifest.unlink()
    with pytest.raises(DamagedLakeError, match="'documents' cannot be opened") as caught:
        lake.table("documents", at=latest_snapshot(lake.catalog))
    assert "\n" not in str(caught.value)


def works(path: Path, publish: Callable[..., Any], document_rows: Callable[..., pa.Table]) -> None:
    lake = open_store(path)
    try:
        assert latest_snapshot(lake.catalog).snapshot_id == 1
        at = publish(lake, [("documents", document_rows(["a", "b"]))])
        assert at.snapshot_id == 2
        assert lake.table("documents", at=at).count_rows() == 2
    finally:
        lake.close()


def test_making_a_lake_that_ends_at_any_step_is_finished_by_making_it_again(
    tmp_path: Path, crashes: Any, crash: type[BaseException], make_lake: Any, publish: Any, document_rows: Any
) -> None:
    for step in range(1000):
        path = tmp_path / f"lake{step}"
        try:
            with crashes.after_steps(step):
                make_lake(path)
            break
        except crash:
            if (path / CONFIG_NAME).exists():
                with pytest.raises(LakeError, match="already"):
                    make_lake(path)
            else:
                with pytest.raises((LakeNotFoundError, LakeHalfMadeError)):
                    open_store(path)
                make_lake(path)
            works(path, publish, document_rows)
    assert len(crashes.steps) == step > 20


@pytest.mark.parametrize("table", ["documents", "hits"])
def test_a_table_whose_first_version_was_not_finished_is_made_again(
    tmp_path: Path, make_lake: Any, publish: Any, document_rows: Any, table: str
) -> None:
    (tmp_path / "lake" / "tables" / f"{table}.lance" / "_versions").mkdir(parents=True)
    make_lake(tmp_path / "lake")
    works(tmp_path / "lake", publish, document_rows)


def test_making_a_lake_that_is_killed_at_any_moment_is_finished_by_making_it_again(
    tmp_path: Path, start_python: Any, make_lake: Any, publish: Any, document_rows: Any
) -> None:
    draw = random.Random(0)
    children = [(tmp_path / f"lake{n}", start_python(INIT, tmp_path / f"lake{n}")) for n in range(4)]
    for path, child in children:
        assert child.stdout.readline() == "ready\n"
        child.stdin.write("\n")
        child.stdin.flush()
        time.sleep(draw.uniform(0, 0.15))
        child.kill()
        child.wait()
        if not (path / CONFIG_NAME).exists():
            with pytest.raises((LakeNotFoundError, LakeHalfMadeError)):
                open_store(path)
            make_lake(path)
        works(path, publish, document_rows)
