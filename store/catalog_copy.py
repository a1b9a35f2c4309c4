"""Copies of a catalog as it is at one moment, from either database into either.

Notable: what belongs to processes that are at work stays behind: locks, units, and publications that are not visible
yet, whose files a copy of the lake does not have.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import cast

from sqlalchemy import Connection, Engine, create_engine, delete, func, insert, select, update
from sqlalchemy.orm import Session

from proponent.schema import catalog as models

from .catalog import Catalog, catalog_engine

Upgrade = Callable[[Engine], None]
_AT_ONCE = 1000


def copy_to_sqlite(catalog: Catalog, path: Path, *, upgrade: Upgrade) -> None:
    """Write a catalog into a new SQLite file, one file without a journal; `upgrade` makes an empty catalog in it."""
    path.unlink(missing_ok=True)
    if catalog.engine.dialect.name == "sqlite":
        _back_up(catalog.engine, path)
    else:
        engine = catalog_engine(f"sqlite:///{path.name}", root=path.parent)
        upgrade(engine)
        with catalog.moment() as source, Session(engine.execution_options(writes=True)) as target, target.begin():
            _copy_rows(source.connection(), target.connection())
        engine.dispose()
    _leave_work_behind(path)


def is_used(engine: Engine) -> bool:
    """Return whether a database, with the newest revision's tables, has a lake's catalog."""
    with engine.connect() as connection:
        return connection.execute(select(models.Snapshot.snapshot_id).limit(1)).first() is not None


def copy_from_sqlite(path: Path, engine: Engine) -> None:
    """Copy the rows of a SQLite catalog into a database in the place of those there, all or none."""
    source = create_engine(f"sqlite:///{path}")
    with source.connect() as rows, engine.execution_options(writes=True).begin() as target:
        for table in reversed(models.Base.metadata.sorted_tables):
            target.execute(delete(table))
        _copy_rows(rows, target)
        if target.dialect.name == "postgresql":  # the next snapshot is the one after the newest
            newest = select(func.max(models.Snapshot.snapshot_id)).scalar_subquery()
            target.execute(select(func.setval(func.pg_get_serial_sequence("snapshots", "snapshot_id"), newest)))
    source.dispose()


def _copy_rows(source: Connection, target: Connection) -> None:
    for table in models.Base.metadata.sorted_tables:
        for rows in source.execute(select(table)).mappings().partitions(_AT_ONCE):
            target.execute(insert(table), [dict(row) for row in rows])


def _back_up(engine: Engine, path: Path) -> None:
    connection = engine.raw_connection()
    target = sqlite3.connect(path)
    try:
        cast("sqlite3.Connection", connection.driver_connection).backup(target)
    finally:
        target.close()
        connection.close()


def _leave_work_behind(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    open_ones = select(models.Publication.publication_id).where(models.Publication.snapshot_id.is_(None))
    cut_short = {"status": "failed", "error": "it was at work when the backup was made", "finished_at": models.now()}
    with engine.begin() as connection:
        connection.execute(delete(models.Lock))
        connection.execute(delete(models.Unit))
        connection.execute(delete(models.Batch).where(models.Batch.publication_id.in_(open_ones)))
        connection.execute(delete(models.Publication).where(models.Publication.snapshot_id.is_(None)))
        connection.execute(update(models.Run).where(models.Run.status == "running").values(cut_short))
    engine.dispose()
    plain = sqlite3.connect(path, isolation_level=None)
    plain.execute("PRAGMA journal_mode=DELETE")
    plain.execute("VACUUM")
    plain.close()
