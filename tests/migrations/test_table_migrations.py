"""Migrations of tables: numbered, cut short anywhere and carried out all the same, by whoever comes first."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import proponent
from proponent import migrations
from proponent.migrations.tables import migrate_tables, table_migrations
from proponent.schema.errors import LakeBusyError, LakeVersionError
from proponent.schema.tables import TABLE_MIGRATION
from proponent.store.lake import open_store
from proponent.store.leases import lease
from proponent.store.snapshots import latest_snapshot

MIGRATE = """
import sys
from pathlib import Path
import proponent
from proponent import migrations
print("ready", flush=True)
sys.stdin.readline()
print(*proponent.migrate(Path(sys.argv[1])))
"""


def test_they_are_numbered_without_a_gap_up_to_what_this_code_reads() -> None:
    assert [migration.number for migration in table_migrations()] == list(range(1, TABLE_MIGRATION + 1))
    assert all(migration.plan.__doc__ for migration in table_migrations())


def test_a_new_lake_has_nothing_to_migrate(tmp_path: Path) -> None:
    with proponent.init(tmp_path / "lake") as lake:
        assert lake.snapshot.table_migration == TABLE_MIGRATION
        assert migrate_tables(lake.store) == []
        assert lake.snapshot.snapshot_id == 1


def test_tables_of_a_newer_proponent_are_refused(tmp_path: Path) -> None:
    with proponent.init(tmp_path / "lake") as lake, lake.store.catalog.write() as session:
        session.connection().exec_driver_sql("UPDATE snapshots SET table_migration = 999")
    for call in (proponent.open, proponent.migrate):
        with pytest.raises(LakeVersionError, match=r"the tables of .* are at migration 999, made by a newer"):
            call(tmp_path / "lake")


def test_nobody_may_write_meanwhile(first_lake: Path) -> None:
    store = open_store(first_lake)
    migrations.upgrade(store.catalog.engine)
    with lease(store.catalog, "ingest c"):
        with pytest.raises(LakeBusyError, match="lock 'ingest c' is held"):
            migrate_tables(store, wait_s=0)
        assert latest_snapshot(store.catalog).table_migration == 0
    store.close()


def require_migrated(lake: Path, expected: dict[str, Any]) -> None:
    with proponent.open(lake) as opened:
        assert [finding for finding in opened.check(deep=True) if finding["grade"] == "damage"] == []
        assert opened.snapshot.table_migration == TABLE_MIGRATION
        for relation in ("documents", "passages", "encodings", "hits"):
            assert len(opened.sql(f"FROM {relation}")) == len(expected["rows"][relation]), relation
        published = opened.sql("SELECT settings->>'name' AS name FROM snapshots JOIN runs USING (run_id)")
        names = [row.name for row in published if row.name]
        assert sorted(names) == sorted(migration.name for migration in table_migrations()), "each of them once"
        assert opened.status()["encoders"][0]["index"]


def test_cut_short_in_the_middle_it_goes_on(
    tmp_path: Path,
    unpack: Callable[[Path], Path],
    crashes: Any,
    crash: type[BaseException],
    expected: dict[str, Any],
) -> None:
    assert cut_short(40, tmp_path, unpack, crashes, crash, expected)


@pytest.mark.full
@pytest.mark.parametrize("first", range(5))
def test_cut_short_at_every_step_it_goes_on(
    first: int,
    tmp_path: Path,
    unpack: Callable[[Path], Path],
    crashes: Any,
    crash: type[BaseException],
    expected: dict[str, Any],
) -> None:
    step = first
    while cut_short(step, tmp_path / str(step), unpack, crashes, crash, expected):
        step += 5
    assert step > 60


def cut_short(
    step: int,
    folder: Path,
    unpack: Callable[[Path], Path],
    crashes: Any,
    crash: type[BaseException],
    expected: dict[str, Any],
) -> bool:
    """Migrate, ending at a step, and once more; return whether there was such a step."""
    lake, ended = unpack(folder), False
    try:
        with crashes.after_steps(step):
            proponent.migrate(lake)
    except crash:
        ended = True
    if ended:
        proponent.migrate(lake)
    require_migrated(lake, expected)
    return ended


@pytest.mark.full
def test_processes_that_migrate_at_once_do_it_once(first_lake: Path, expected: dict[str, Any]) -> None:
    command = [sys.executable, "-c", MIGRATE, str(first_lake)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n", child.communicate()[1]
    done = []
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        told, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
        done += told.split()
    assert sorted(done) == sorted(migration.name for migration in table_migrations())
    require_migrated(first_lake, expected)
