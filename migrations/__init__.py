"""Migrations of the catalog (Alembic, in `versions/`).

Notable: concurrent Alembic upgrades race, so an upgrade takes a lock: a writing transaction on SQLite, an advisory
lock on PostgreSQL.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from proponent.schema.errors import LakeError, LakeVersionError

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


def upgrade(engine: Engine) -> None:
    """Bring the catalog to the newest revision. Raises LakeError when it cannot be reached or is no database."""
    with _reaching(), engine.execution_options(writes=True).connect() as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_KEY})
        command.upgrade(_config(connection), "head")


def require_current(engine: Engine, *, lake: str) -> None:
    """Raise LakeVersionError unless the catalog has the newest revision that this version knows.

    Raises LakeError when it cannot be reached or is no database.
    """
    with _reaching(), engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(_config())
    if revision == scripts.get_current_head():
        return
    known = {script.revision for script in scripts.walk_revisions()}
    if revision is None or revision in known:
        raise LakeVersionError(f"the catalog of {lake} is at revision {revision}; run `proponent migrate {lake}`")
    raise LakeVersionError(f"the catalog of {lake} is at revision {revision}, made by a newer proponent; upgrade it")
