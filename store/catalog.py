"""Connections to the catalog.

Notable: on SQLite a writing transaction begins as BEGIN IMMEDIATE, so that two writers queue up instead of failing
when the second one turns from reading to writing, and every commit reaches the disk before it returns: Lance commits
rely on the journal entry that precedes them.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote, unquote

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from proponent.schema.errors import CatalogError, DamagedLakeError, LakeError

from .place import LakePath

CATALOG: Final = "PROPONENT_CATALOG"
"""Environment variable with the URL of a lake's catalog on a server, password included."""
_SQLITE_WAIT_S = 30
_NETWORK: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""How long this side waits for a server: seconds to connect, until a silent connection is tried, and between tries;
milliseconds until what was sent has arrived."""
_SESSION: Final = {
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
    "idle_in_transaction_session_timeout": "90s",
    "lock_timeout": "120s",
}
"""How long the server waits for this side, and this side for others' locks: who is cut off must not keep any."""


def catalog_name(url: str) -> str:
    """Return a catalog's URL without the password in it. Raises LakeError for what is no URL."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError as error:
        raise LakeError(f"the catalog's URL cannot be used: {error}") from error


def without_password(url: str) -> str:
    """Return a catalog's URL as a lake names it: who opens it has the password from elsewhere."""
    try:
        parsed = make_url(url).difference_update_query(["password"])
    except ArgumentError:  # whoever opens it says what is wrong with it
        return url
    return parsed._replace(password=None).render_as_string(hide_password=False)


def file_of(engine: Engine) -> Path | None:
    """Return the file of a catalog in SQLite, None for one on a server."""
    if engine.dialect.name != "sqlite":
        return None
    name = str(engine.url.database)
    return Path(unquote(name.removeprefix("file:").partition("?")[0]) if name.startswith("file:") else name)


def catalog_engine(url: str, *, root: LakePath) -> Engine:
    """Return an engine for a catalog's URL; a relative SQLite path is taken from the lake's root.

    Raises LakeError for a URL of anything but SQLite and PostgreSQL, or without its driver.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            return _server_engine(parsed)
    except ArgumentError as error:
        raise LakeError(f"the catalog's URL cannot be used: {error}") from error
    except ModuleNotFoundError as error:
        raise LakeError(f"the catalog's driver is missing ({error}); pip install 'proponent[postgres]'") from error
    if parsed.get_backend_name() != "sqlite":
        raise LakeError(f"a catalog is SQLite or PostgreSQL, not {parsed.get_backend_name()}")
    return _sqlite_engine(parsed, _sqlite_file(parsed, root))


def _server_engine(url: URL) -> Engine:
    """Return an engine for PostgreSQL on which neither side waits for ever for one that the network has cut off."""
    engine = create_engine(url, pool_pre_ping=True, connect_args=_NETWORK)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            for name, value in _SESSION.items():
                cursor.execute(f"SET {name} = '{value}'")
        connection.commit()

    return engine


def _sqlite_file(url: URL, root: LakePath) -> Path:
    database = Path(url.database or "catalog.db")
    if database.is_absolute():
        return database
    if not isinstance(root, Path):
        raise LakeError(f"{root} cannot hold a catalog in SQLite; give --catalog an absolute path or PostgreSQL")
    return root / database


def _sqlite_engine(url: URL, database: Path) -> Engine:
    can_write = not database.is_file() or os.access(database.parent, os.W_OK)
    url_of_database = url.set(database=str(database)) if can_write else _read_only(database)
    engine = create_engine(url_of_database, connect_args={"timeout": _SQLITE_WAIT_S})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        if can_write:
            _use_wal(connection)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _read_only(database: Path) -> URL:
    """Return the URL of a database that this process may only read.

    On a disk that nobody can write SQLite cannot make its own files either, and takes the database for one that never
    changes. Raises LakeError when its last changes are not in it yet there, since they could not be seen.
    """
    url = URL.create("sqlite", database=f"file:{quote(str(database.resolve()))}", query={"mode": "ro", "uri": "true"})
    if not os.statvfs(database.parent).f_flag & os.ST_RDONLY:
        return url
    journal = database.with_name(f"{database.name}-wal")
    if journal.is_file() and journal.stat().st_size:
        raise LakeError(
            f"{database} is on a disk that can only be read and was not closed well; open the lake once where it can "
            "be written"
        )
    return url.update_query_dict({"immutable": "1"})


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a new database to WAL, where it stays; SQLite itself does not wait when others are doing the same."""
    deadline = time.monotonic() + _SQLITE_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextmanager
def _named_errors(engine: Engine) -> Iterator[None]:
    """Name what a database cannot help: a full disk, a folder that cannot be written, a server that is away."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        told = " ".join(str(error.orig).split())
        if engine.dialect.name == "postgresql":
            server = engine.url.render_as_string(hide_password=True)
            told += f"; see that the server of {server} runs and can be reached, then start again"
        raise CatalogError(f"the catalog cannot be used: {told}") from error
    except DatabaseError as error:
        if type(error) is not DatabaseError:  # its subclasses are other matters; this one is a file that makes no sense
            raise
        told = str(error.orig).strip()
        raise DamagedLakeError(f"the catalog is damaged: {told}; restore it from a backup") from error


class Catalog:
    """Short transactions on the catalog."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writing = engine.execution_options(writes=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Give a session for reading; what it returned stays usable afterwards."""
        with _named_errors(self.engine), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def moment(self) -> Iterator[Session]:
        """Give a session for reading in which every statement sees the catalog as it was at the first."""
        engine = self.engine
        if engine.dialect.name == "postgresql":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with _named_errors(engine), Session(engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Give a session for writing, committed at the end or rolled back on an error."""
        with _named_errors(self.engine), Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def vacuum(self) -> None:
        """Write the database anew, so that its files hold nothing of rows that were changed or deleted.

        Raises CatalogError while somebody else keeps it from that.
        """
        if self.engine.dialect.name == "postgresql":
            with (
                _named_errors(self.engine),
                self.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as server,
            ):
                server.exec_driver_sql("VACUUM FULL")
            return
        connection = self.engine.raw_connection()
        database = cast("sqlite3.Connection", connection.driver_connection)
        try:
            database.execute("VACUUM")
            [(busy, *_)] = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.OperationalError as error:
            raise CatalogError(f"the catalog cannot be written anew: {error}; start again") from error
        finally:
            connection.close()
        if busy:
            raise CatalogError("the catalog is being read by another process; end it, then start again")

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()
