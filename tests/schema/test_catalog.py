"""The catalog's models are what the migrations make, and time is always in UTC."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from proponent import migrations
from proponent.schema.catalog import Base, Corpus
from proponent.store.catalog import catalog_engine


def test_migrating_an_empty_database_gives_exactly_the_models(tmp_path: Path) -> None:
    engine = catalog_engine("sqlite:///catalog.db", root=tmp_path)
    migrations.upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        made = inspect(connection).get_table_names()
    engine.dispose()
    assert set(made) == {*Base.metadata.tables, "alembic_version"}


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    engine = catalog_engine("sqlite:///catalog.db", root=tmp_path)
    migrations.upgrade(engine)
    migrations.upgrade(engine)
    migrations.require_current(engine, lake="here")
    engine.dispose()


def test_every_table_and_column_says_what_it_is() -> None:
    for mapper in Base.registry.mappers:
        assert mapper.class_.__doc__
    undescribed = [column for table in Base.metadata.tables.values() for column in table.columns if not column.comment]
    assert undescribed == []


def test_times_come_back_in_utc(tmp_path: Path) -> None:
    engine = catalog_engine("sqlite:///catalog.db", root=tmp_path)
    Base.metadata.create_all(engine)
    elsewhere = datetime(2025, 6, 1, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with Session(engine) as session, session.begin():
        session.add(Corpus(name="c", created_at=elsewhere))
    with Session(engine) as session:
        stored = session.get_one(Corpus, "c").created_at
    engine.dispose()
    assert stored == elsewhere
    assert stored.tzinfo is UTC
