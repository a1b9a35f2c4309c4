"""The catalog's migrations make exactly what the models say, from any number of processes, on SQLite and PostgreSQL."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, text

import proponent
from proponent import migrations
from proponent.schema.catalog import Base, Lock, Query, Recomputation, Trace, now
from proponent.schema.errors import LakeBusyError, LakeError, LakeVersionError
from proponent.store.catalog import Catalog, catalog_engine
from proponent.store.leases import lease
from proponent.store.withdrawn import withdrawn_documents

UPGRADE = """
import sys
from pathlib import Path
from proponent import migrations
from proponent.store.catalog import catalog_engine
engine = catalog_engine(sys.argv[1], root=Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
migrations.upgrade(engine)
"""
FIRST_ROWS = (
    "INSERT INTO runs VALUES ('r', 'fit', 'done', '{}', '{}', '{}', NULL, '2026-01-01 00:00:00', NULL)",
    "INSERT INTO models VALUES ('m', 'm', 'p', 'a', 1, 1, 8, 'w', 't', NULL, NULL, '2026-01-01 00:00:00')",
    "INSERT INTO encoders VALUES ('e', 'i', 'm', 64, 'none', '{}', 'x', 1.0, '[]', 'f', '2026-01-01 00:00:00')",
    "INSERT INTO curvatures VALUES ('c', 'e', 'reference', 9, 0.0, '{}', '2026-01-01 00:00:00')",
)
"""A run, a model, an encoder and a curvature as revision 0001 has them."""


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Engine]:
    engine = catalog_engine("sqlite:///catalog.db", root=tmp_path)
    yield engine
    engine.dispose()


@pytest.fixture
def upgrade_at_once() -> Callable[[str, Path], None]:
    """Upgrade one catalog from four processes at the same moment."""

    def upgrade(url: str, root: Path) -> None:
        command = [sys.executable, "-c", UPGRADE, url, str(root)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        children = [subprocess.Popen(command, **pipes) for _ in range(4)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n", child.communicate()[1]
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        for child in children:
            _, errors = child.communicate(timeout=60)
            assert child.returncode == 0, errors

    return upgrade


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, Base.metadata))


def test_the_migrations_make_what_the_models_say(sqlite: Engine) -> None:
    migrations.upgrade(sqlite)
    assert differences(sqlite) == []
    migrations.require_current(sqlite, lake="lake")


def queries_from_before(engine: Engine) -> None:
    """Upgrade a catalog of revision 0001 that has a query, and read it with today's models."""
    with engine.execution_options(writes=True).connect() as connection, connection.begin():
        migrations.command.upgrade(migrations._config(connection), "0001")
        connection.execute(
            text("INSERT INTO queries (query_id, prompt, target, created_at) VALUES ('q', 'p', 't', :now)"),
            {"now": "2025-01-01 00:00:00"},
        )
    migrations.upgrade(engine)
    with Catalog(engine).read() as session:
        old = session.get_one(Query, "q")
    assert (old.prompt, old.target, old.parts, old.chat) == ("p", "t", None, False)
    assert differences(engine) == []


def test_questions_from_before_stay_plain_ones(sqlite: Engine) -> None:
    queries_from_before(sqlite)


def test_withdrawals_from_before_keep_their_documents_out(sqlite: Engine) -> None:
    with sqlite.execution_options(writes=True).connect() as connection, connection.begin():
        migrations.command.upgrade(migrations._config(connection), "0006")
        connection.execute(text(FIRST_ROWS[0]))
        connection.execute(
            text("INSERT INTO withdrawals VALUES ('w', 'd', 'key', 'c', 'r', 'asked', '2026-01-01 00:00:00')")
        )
    migrations.upgrade(sqlite)
    assert withdrawn_documents(Catalog(sqlite), "c") == {"d"}
    assert differences(sqlite) == []


def keep_a_trace_from_before(engine: Engine) -> None:
    """Upgrade a catalog of revision 0007 that has a trace; afterwards one without an encoder can stand beside it."""
    with engine.execution_options(writes=True).connect() as connection, connection.begin():
        migrations.command.upgrade(migrations._config(connection), "0001")
        for statement in FIRST_ROWS:
            connection.execute(text(statement))
        for statement in (
            "INSERT INTO queries (query_id, prompt, target, created_at) VALUES ('q', 'p', 't', '2026-01-01 00:00:00')",
            "INSERT INTO snapshots (run_id, versions, created_at) VALUES ('r', '{}', '2026-01-01 00:00:00')",
        ):
            connection.execute(text(statement))
        migrations.command.upgrade(migrations._config(connection), "0007")
        connection.execute(
            text(
                "INSERT INTO traces (trace_id, query_id, encoder, curvature, method, snapshot, k, exact, n_candidates, "
                "target_loss, target_tokens, completed, settings, created_at) VALUES ('old', 'q', 'e', 'reference', "
                "'trackstar', 1, 10, true, 9, 1.5, 2, false, '{}', '2026-01-01 00:00:00')"
            )
        )
    migrations.upgrade(engine)
    assert differences(engine) == []
    catalog = Catalog(engine)
    with catalog.read() as session:
        old = session.get_one(Trace, "old")
        assert (old.encoder, old.curvature, old.target_loss, old.target_tokens) == ("e", "reference", 1.5, 2)
        assert (old.score_mean, old.score_sd, old.score_sample) == (None, None, None)
        assert session.get_one(Query, "q").facts is None
    with catalog.write() as session:
        words = {"query_id": "q", "method": "bm25", "snapshot": 1, "k": 1, "exact": True, "n_candidates": 9}
        session.add(Trace(trace_id="new", completed=False, settings={}, **words))
        session.flush()
        orders = {"tau": 0.5, "scores": [], "versions": {}}
        session.add(Recomputation(trace_id="old", side="proponent", n=10, n_texts=9, **orders))


def test_traces_from_before_keep_their_encoder(sqlite: Engine) -> None:
    keep_a_trace_from_before(sqlite)


@pytest.mark.full
def test_traces_from_before_keep_their_encoder_on_postgres(empty_postgres: Engine) -> None:
    keep_a_trace_from_before(empty_postgres)


@pytest.mark.full
def test_questions_from_before_stay_plain_ones_on_postgres(empty_postgres: Engine) -> None:
    queries_from_before(empty_postgres)


ENCODER_OF_BEFORE = (
    "INSERT INTO models (model_id, name, path, architecture, n_parameters, n_layers, context_length, weights_hash, "
    "tokenizer_hash, created_at) VALUES ('m', 'm', 'p', 'a', 1, 1, 1, 'w', 't', '2026-01-01')",
    "INSERT INTO encoders (name, encoder_id, model_id, dim, moments, settings, projection_hash, coverage, uncovered, "
    "artifact, created_at) VALUES ('e', 'i', 'm', 64, 'none', '{}', 'x', 1.0, '[]', 'x', '2026-01-01')",
)


def require_int8_after_upgrading(engine: Engine) -> None:
    """Upgrade a catalog of the first revision that has an encoder; it comes to have int8 codes, which it had."""
    with engine.execution_options(writes=True).connect() as connection, connection.begin():
        migrations.command.upgrade(migrations._config(connection), "0001")
        for statement in ENCODER_OF_BEFORE:
            connection.execute(text(statement))
    migrations.upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT name, codes, fidelity FROM encoders")).all() == [("e", "int8", None)]
    assert differences(engine) == []


def test_encoders_from_before_there_were_formats_have_int8_codes(sqlite: Engine) -> None:
    require_int8_after_upgrading(sqlite)


def test_upgrading_again_changes_nothing(sqlite: Engine, tmp_path: Path) -> None:
    migrations.upgrade(sqlite)
    with sqlite.connect() as connection:
        before = connection.execute(text("SELECT sql FROM sqlite_master ORDER BY name")).all()
    migrations.upgrade(sqlite)
    with sqlite.connect() as connection:
        assert connection.execute(text("SELECT sql FROM sqlite_master ORDER BY name")).all() == before
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1


def check_that_rows_are_kept(engine: Engine) -> None:
    """Take a catalog with rows from its first revision to the newest."""
    with engine.execution_options(writes=True).connect() as connection, connection.begin():
        migrations.command.upgrade(migrations._config(connection), "0001")
        for statement in FIRST_ROWS:
            connection.execute(text(statement))
    migrations.upgrade(engine)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT name, n_rows, mixing, artifact FROM curvatures")).one()
        assert tuple(found) == ("reference", 9, 0.0, None)
        assert connection.execute(text("SELECT kind FROM runs")).scalar() == "fit"
    assert differences(engine) == []


def test_an_older_catalog_keeps_its_rows(sqlite: Engine) -> None:
    check_that_rows_are_kept(sqlite)


def test_processes_that_upgrade_at_once_make_one_catalog(
    sqlite: Engine, tmp_path: Path, upgrade_at_once: Callable[[str, Path], None]
) -> None:
    upgrade_at_once("sqlite:///catalog.db", tmp_path)
    migrations.require_current(sqlite, lake="lake")
    assert differences(sqlite) == []


def test_an_upgrade_that_fails_leaves_the_catalog_as_it_was(sqlite: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    command_upgrade = migrations.command.upgrade

    def failing(*args: object) -> None:
        command_upgrade(*args)
        raise KeyError

    monkeypatch.setattr(migrations.command, "upgrade", failing)
    with pytest.raises(KeyError):
        migrations.upgrade(sqlite)
    with sqlite.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar() == 0
    monkeypatch.undo()
    migrations.upgrade(sqlite)
    assert differences(sqlite) == []


@pytest.mark.parametrize("revision", ["9999", "abcdef123456"])
def test_a_revision_of_a_newer_proponent_is_refused(tmp_path: Path, revision: str) -> None:
    with proponent.init(tmp_path / "lake") as lake, lake.store.catalog.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    with pytest.raises(LakeVersionError, match=f"at revision {revision}, made by a newer proponent") as caught:
        proponent.open(tmp_path / "lake")
    assert isinstance(caught.value, RuntimeError)


def test_a_catalog_without_a_revision_asks_for_a_migration(sqlite: Engine) -> None:
    with pytest.raises(LakeVersionError, match="run `proponent migrate lake`"):
        migrations.require_current(sqlite, lake="lake")


def test_a_catalog_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    engine = catalog_engine("sqlite:///catalog.db", root=tmp_path / "nowhere")
    for call in (lambda: migrations.upgrade(engine), lambda: migrations.require_current(engine, lake="lake")):
        with pytest.raises(LakeError, match="the catalog cannot be opened: unable to open database file"):
            call()


def test_a_downgrade_is_refused() -> None:
    from proponent.migrations.versions import __path__ as folder

    revisions = sorted(path for path in Path(folder[0]).glob("[0-9]*.py"))
    assert revisions
    for path in revisions:
        assert "raise NotImplementedError" in path.read_text(encoding="utf-8")


def test_every_column_of_the_catalog_is_explained() -> None:
    for table in Base.metadata.tables.values():
        assert [column.name for column in table.columns if not (column.comment or "").strip()] == []


@pytest.mark.full
def test_postgres_gets_what_the_models_say_from_processes_at_once(
    postgres: str, empty_postgres: Engine, tmp_path: Path, upgrade_at_once: Callable[[str, Path], None]
) -> None:
    upgrade_at_once(postgres, tmp_path)
    migrations.require_current(empty_postgres, lake="lake")
    assert differences(empty_postgres) == []


@pytest.mark.full
def test_postgres_upgrades_encoders_from_before_there_were_formats(empty_postgres: Engine) -> None:
    require_int8_after_upgrading(empty_postgres)


@pytest.mark.full
def test_an_older_catalog_on_postgres_keeps_its_rows(empty_postgres: Engine) -> None:
    check_that_rows_are_kept(empty_postgres)


@pytest.mark.full
def test_postgres_holds_locks_and_times(empty_postgres: Engine) -> None:
    migrations.upgrade(empty_postgres)
    catalog = Catalog(empty_postgres)
    with lease(catalog, "commit") as held:
        with catalog.read() as session:
            expires = session.get_one(Lock, "commit").expires_at
        assert now() < expires < now() + timedelta(minutes=2)
        held.renew()
        with pytest.raises(LakeBusyError), lease(catalog, "commit", wait_s=0):
            pass
    with lease(catalog, "commit", wait_s=0):
        pass


@pytest.mark.full
def test_a_lake_lives_on_postgres(postgres: str, empty_postgres: Engine, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"id": "a", "text": "Paris is the capital of France."}\n')
    with proponent.init(tmp_path / "lake", catalog=postgres) as lake:
        lake.ingest(tmp_path / "corpus.jsonl", corpus="c")
    with proponent.open(tmp_path / "lake") as lake:
        assert lake.sql("SELECT text FROM passages").to_dicts() == [{"text": "Paris is the capital of France."}]
        assert [row.kind for row in lake.sql("SELECT kind FROM runs ORDER BY started_at")] == ["init", "ingest"]
    assert not (tmp_path / "lake" / "catalog.db").exists()
