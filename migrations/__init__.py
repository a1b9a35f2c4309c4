"""Migrations of the catalog (Alembic, in `versions/`) and of the Lance tables (`tables/`).

Notable: concurrent Alembic upgrades race, so an upgrade takes a lock: a writing transaction on SQLite, an advisory
lock on PostgreSQL. Tables come after the catalog, whose journal makes their migrations repeatable.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, select, text
from sqlalchemy.exc import DBAPIError

from proponent.schema.catalog import Snapshot
from proponent.schema.errors import LakeError, LakeVersionError
from proponent.schema.tables import TABLE_MIGRATION
from proponent.store.lake import LakeStore

from .tables import migrate_tables

_ADVISORY_KEY: Final = 0x70726F70


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", "proponent:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise LakeError(f"the catalog cannot be opened: {str(error.orig).splitlines()[0]}") from error


def migrate(lake: LakeStore) -> list[str]:
    """Bring a lake's catalog and its tables to their newest form; return the names of the tables' migrations done.

    Cut short anywhere, it goes on where it was when it is called again. Raises LakeVersionError for a lake of a newer
    proponent, LakeBusyError while others write to it, LakeError when the catalog cannot be reached.
    """
    _require_known(lake.catalog.engine, lake=str(lake.root))
    upgrade(lake.catalog.engine)
    return migrate_tables(lake)


def upgrade(engine: Engine) -> None:
    """Bring the catalog to the newest revision. Raises LakeError when it cannot be reached or is no database."""
    with _reaching(), engine.execution_options(writes=True).connect() as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_KEY})
        command.upgrade(_config(connection), "head")


def require_current(engine: Engine, *, lake: str) -> None:
    """Raise LakeVersionError unless the catalog and the tables have the newest form that this version knows.

    Raises LakeError when the catalog cannot be reached or is no database.
    """
    revision, tables = _require_known(engine, lake=lake)
    head = ScriptDirectory.from_config(_config()).get_current_head()
    behind = [] if revision == head else [f"the catalog of {lake} is at revision {revision} of {head}"]
    if tables < TABLE_MIGRATION:
        behind.append(f"the tables of {lake} are at migration {tables} of {TABLE_MIGRATION}")
    if behind:
        raise LakeVersionError(f"{' and '.join(behind)}; run `proponent migrate {lake}`")


def _require_known(engine: Engine, *, lake: str) -> tuple[str | None, int]:
    """Return the catalog's revision and the tables' last migration. Raises LakeVersionError for those of the future."""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    with _reaching(), engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
        newer = "made by a newer proponent; upgrade it"
        if revision is not None and revision not in known:
            raise LakeVersionError(f"the catalog of {lake} is at revision {revision}, {newer}")
        tables = _table_migration(connection)
    if tables > TABLE_MIGRATION:
        raise LakeVersionError(f"the tables of {lake} are at migration {tables}, {newer}")
    return revision, tables


def _table_migration(connection: Connection) -> int:
    """Return the last migration of the newest snapshot's tables; 0 in a catalog from before there were any."""
    if not inspect(connection).has_table("snapshots"):
        return TABLE_MIGRATION  # there are no tables either
    if not any(column["name"] == "table_migration" for column in inspect(connection).get_columns("snapshots")):
        return 0
    newest = select(Snapshot.table_migration).order_by(Snapshot.snapshot_id.desc()).limit(1)
    found = connection.execute(newest).scalar()
    return TABLE_MIGRATION if found is None else int(found)
