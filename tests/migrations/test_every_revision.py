"""A catalog of any earlier revision, with rows in every table, comes to the newest one with all of them.

Revisions are looked up, so a new one is tested as soon as it is there.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    inspect,
    select,
)

from proponent import migrations
from proponent.schema.errors import LakeVersionError
from proponent.store.catalog import catalog_engine

ROWS = 3
SCRIPTS = ScriptDirectory.from_config(migrations._config())
REVISIONS = sorted(script.revision for script in SCRIPTS.walk_revisions())
Rows = dict[str, list[dict[str, Any]]]


def make_at(engine: Engine, revision: str) -> None:
    with engine.execution_options(writes=True).connect() as connection, connection.begin():
        migrations.command.upgrade(migrations._config(connection), revision)


def reflected(engine: Engine) -> list[Table]:
    metadata = MetaData()
    metadata.reflect(engine)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def value_of(column: Column[Any], n: int) -> Any:
    """Return what the n-th row has: the second nothing where it may, the third what is hard to carry."""
    references = next(iter(column.foreign_keys), None)
    if references is not None:
        return value_of(references.column, n)
    if n == 1 and column.nullable:
        return None
    kind, text = column.type, f"{n} {['plain', '日本 🙂', chr(39) + chr(34) + ' %s :x'][n]} {column}"
    by_kind: dict[Any, Any] = {
        JSON: [{"of": str(column), "n": n}, ["é", None, 0.1 + 0.2, 2**53][n:]],
        Boolean: n % 2 == 0,
        DateTime: datetime(2025, 1, 1, 12, 30, 15, 123456, UTC) + timedelta(days=n),
        Integer: n + 1,
        Float: [0.1 + 0.2, 0.0, -1e300][n],
        String: text[: getattr(kind, "length", None)],
    }
    return next(value for one, value in by_kind.items() if isinstance(kind, one))


def fill(engine: Engine) -> None:
    with engine.execution_options(writes=True).connect() as connection, connection.begin():
        for table in reflected(engine):
            rows = [{column.name: value_of(column, n) for column in table.columns} for n in range(ROWS)]
            connection.execute(table.insert(), rows)


def rows_of(engine: Engine) -> Rows:
    with engine.connect() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]
            for table in reflected(engine)
        }


def require_kept(before: Rows, after: Rows) -> None:
    assert before.keys() <= after.keys()
    for table, rows in before.items():
        assert len(rows) == ROWS
        kept = [{name: row[name] for name in rows[0]} for row in after[table]]
        assert kept == rows, table


def schema_of(engine: Engine) -> dict[str, Any]:
    """Return everything that tables are made of, without the order of columns."""
    found = inspect(engine)
    return {
        table: {
            "columns": {
                one["name"]: (str(one["type"]), one["nullable"], one.get("default"), one.get("comment"))
                for one in found.get_columns(table)
            },
            "key": found.get_pk_constraint(table),
            "foreign": sorted(found.get_foreign_keys(table), key=lambda one: one["name"] or ""),
            "indexes": sorted(found.get_indexes(table), key=lambda one: one["name"] or ""),
            "unique": sorted(found.get_unique_constraints(table), key=lambda one: one["name"] or ""),
        }
        for table in found.get_table_names()
    }


def upgrade_from(revision: str, engine: Engine, upgrade: Callable[[], None]) -> None:
    make_at(engine, revision)
    fill(engine)
    before = rows_of(engine)
    assert all(before.values())
    upgrade()
    require_kept(before, rows_of(engine))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    engine = catalog_engine("sqlite:///fresh.db", root=tmp_path_factory.mktemp("fresh"))
    migrations.upgrade(engine)
    schema = schema_of(engine)
    engine.dispose()
    return schema


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_revision_keeps_its_rows(revision: str, tmp_path: Path, fresh: dict[str, Any]) -> None:
    engine = catalog_engine("sqlite:///catalog.db", root=tmp_path)
    upgrade_from(revision, engine, lambda: migrations.upgrade(engine))
    assert schema_of(engine) == fresh
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    engine.dispose()


@pytest.mark.full
def test_every_revision_keeps_its_rows_on_postgres(empty_postgres: Engine) -> None:
    schemas = []
    for revision in [None, *REVISIONS]:
        with empty_postgres.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
        if revision is None:
            migrations.upgrade(empty_postgres)
        else:
            upgrade_from(revision, empty_postgres, lambda: migrations.upgrade(empty_postgres))
        schemas.append(schema_of(empty_postgres))
    assert all(schema == schemas[0] for schema in schemas[1:])


@pytest.mark.full
def test_eight_processes_upgrade_a_full_catalog_at_once(
    tmp_path: Path, fresh: dict[str, Any], upgrade_at_once: Callable[..., None]
) -> None:
    url = "sqlite:///catalog.db"
    engine = catalog_engine(url, root=tmp_path)
    upgrade_from(REVISIONS[0], engine, lambda: upgrade_at_once(url, tmp_path, processes=8))
    assert schema_of(engine) == fresh
    engine.dispose()


@pytest.mark.full
def test_eight_processes_upgrade_a_full_catalog_at_once_on_postgres(
    postgres: str, empty_postgres: Engine, tmp_path: Path, upgrade_at_once: Callable[..., None]
) -> None:
    upgrade_from(REVISIONS[0], empty_postgres, lambda: upgrade_at_once(postgres, tmp_path, processes=8))
    with pytest.raises(LakeVersionError, match=r"^the tables of lake are at migration 0 of"):  # and not the catalog
        migrations.require_current(empty_postgres, lake="lake")
