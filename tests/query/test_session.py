"""The SQL session shows the lake's relations and reaches nothing else of the machine."""

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from proponent.query.rows_of_hits import rows_of_hits
from proponent.query.session import Session
from proponent.schema import catalog as models
from proponent.schema.errors import SqlError
from proponent.schema.settings import SqlSettings
from proponent.schema.tables import LAKE_TABLES
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot, get_snapshot

secret_frame = {"secret": [1]}
"""A variable of the module that a replacement scan would find."""

NO_SELECT = [
    "", ";", "--", "SELECT 1; SELECT 2", "SELECT 1; DROP VIEW documents", "SELEC 1", "SELECT", "🙂", "\x00",
    "INSERT INTO documents VALUES (1)", "UPDATE documents SET title = 'x'", "DELETE FROM documents",
    "TRUNCATE documents",
    "MERGE INTO documents USING passages ON true WHEN MATCHED THEN DELETE", "CREATE TABLE t (i INTEGER)",
    "CREATE TABLE t AS SELECT 1", "CREATE TEMP TABLE t AS SELECT 1", "CREATE VIEW v AS SELECT 1",
    "CREATE OR REPLACE VIEW documents AS SELECT 1", "CREATE MACRO f() AS 1", "CREATE OR REPLACE MACRO length(x) AS 1",
    "CREATE SCHEMA s", "CREATE SEQUENCE s", "CREATE TYPE t AS ENUM ('a')", "CREATE SECRET (TYPE s3)",
    "CREATE INDEX i ON documents (title)", "DROP VIEW documents", "DROP SCHEMA main CASCADE",
    "ALTER VIEW documents RENAME TO d", "ALTER TABLE documents ADD COLUMN x INTEGER",
    "COMMENT ON VIEW documents IS 'x'",
    "COPY (SELECT 1) TO '{out}'", "COPY documents TO '{out}' (FORMAT parquet)", "COPY documents FROM '{file}'",
    "EXPORT DATABASE '{out}'", "IMPORT DATABASE '{folder}'", "ATTACH '{out}' AS other", "ATTACH ':memory:' AS other",
    "DETACH memory", "USE memory", "LOAD json", "LOAD '{file}'", "INSTALL httpfs", "FORCE INSTALL httpfs",
    "UPDATE EXTENSIONS",
    "SET memory_limit = '100GB'", "SET lock_configuration = false", "SET enable_external_access = true",
    "SET GLOBAL threads = 64", "RESET memory_limit", "SET VARIABLE x = 1", "RESET VARIABLE x", "SET search_path = 'x'",
    "PRAGMA database_list", "PRAGMA memory_limit = '100GB'", "PRAGMA version", "PRAGMA enable_profiling",
    "CALL pragma_version()", "CALL enable_logging()", "EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT 1",
    "EXPLAIN ANALYZE CREATE OR REPLACE VIEW documents AS SELECT 1", "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
    "EXPLAIN (ANALYZE, FORMAT JSON) DROP VIEW documents", "BEGIN", "COMMIT", "ROLLBACK", "CHECKPOINT", "VACUUM",
    "ANALYZE",
    "PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE p", "PREPARE p AS DROP VIEW documents",
    "WITH x AS (INSERT INTO documents VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM documents RETURNING *) SELECT * FROM x",
    "WITH x AS (UPDATE documents SET title = 'x' RETURNING *) SELECT * FROM x", "SELECT 1 INTO t",
    "WITH x AS (CREATE VIEW v AS SELECT 1) SELECT 1", "DESCRIBE INSERT INTO documents VALUES (1)",
    "DESCRIBE CREATE VIEW v AS SELECT 1", "SUMMARIZE CREATE VIEW v AS SELECT 1", "SHOW; DROP VIEW documents",
]  # fmt: skip

OUT_OF_REACH = [
    "FROM '{file}'", "SELECT * FROM '{file}'", 'SELECT * FROM "{file}"', "SELECT * FROM '{folder}/*.csv'",
    "SELECT * FROM read_csv('{file}')", "SELECT * FROM read_csv_auto('{file}')", "SELECT * FROM read_text('{file}')",
    "SELECT * FROM read_blob('{file}')", "SELECT * FROM read_json('{file}')",
    "SELECT * FROM read_ndjson_objects('{file}')",
    "SELECT * FROM read_parquet('{file}')", "SELECT * FROM parquet_metadata('{file}')",
    "SELECT * FROM parquet_schema('{file}')",
    "SELECT * FROM parquet_bloom_probe('{file}', 'a', 1)", "SELECT * FROM sniff_csv('{file}')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM read_duckdb('{file}')", "SELECT * FROM 'https://example.com/x.csv'",
    "SELECT * FROM 's3://bucket/x.parquet'",
    "SELECT * FROM read_csv('https://example.com/x.csv')", "SELECT * FROM '/proc/self/environ'",
    "SELECT * FROM read_text('/proc/self/environ')", "SELECT content FROM read_text(['{file}'])",
    "SELECT getenv('HOME')", "SELECT * FROM secret_frame", "SELECT * FROM filled", "SELECT * FROM session",
    "SELECT * FROM query('FROM ''{file}''')", "SELECT * FROM query('SELECT * FROM read_text(''{file}'')')",
    "SELECT * FROM query('DROP VIEW documents')", "SELECT * FROM query('CREATE VIEW v AS SELECT 1')",
    "SELECT * FROM query('SELECT 1; SELECT 2')", "SELECT * FROM query('COPY (SELECT 1) TO ''{out}''')",
    "SELECT * FROM query('SELECT 42')", "SELECT * FROM query_table('documents')",
    "SELECT * FROM query_table('{file}')", "SELECT * FROM query_table(['documents', '{file}'])",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''{file}'')'))",
    "SELECT * FROM json_execute_serialized_sql('{{}}')", "SELECT * FROM enable_logging(storage_path := '{out}')",
    "SELECT * FROM disable_logging()", "SELECT * FROM enable_profiling(save_location := '{out}')",
    "SELECT * FROM disable_profiling()", "SELECT * FROM duckdb_extensions()", "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM which_secret('s3://x', 's3')", "SELECT set_config('threads', '64', false)", "SELECT nextval('s')",
    "SELECT * FROM arrow_scan(1, 2, 3)", "SELECT * FROM arrow_scan(1::POINTER, 2::POINTER, 3::POINTER)",
    "SELECT * FROM pandas_scan(1)", "SELECT * FROM python_arrow_scan(1)", "SELECT * FROM python_map_function(1)",
    "SELECT * FROM seq_scan('documents')", "SELECT * FROM sqlite_scan('{file}', 't')",
    "SELECT * FROM iceberg_scan('{folder}')",
    "SELECT * FROM encodings_e AT (VERSION => 1)", "SELECT codes FROM encodings_e", "SELECT vector FROM index_e",
    "SELECT * FROM locks_nowhere", "SELECT 1/0::secret", "SELECT * FROM force_checkpoint()",
    "SELECT * FROM destroy_external_resource('x', 1)", "SELECT * FROM create_external_resource('x', MAP {{'a': 'b'}})",
    "SELECT * FROM register_external_resource_type('x', kind := 'y')",
    "SELECT " + "-(" * 3000 + "1" + ")" * 3000,
]  # fmt: skip

HARMLESS = [
    "SELECT 1;", "SELECT 1\x00", "(" * 500 + "SELECT 1" + ")" * 500, "/* a comment */ SELECT 1 -- another",
    "VALUES (1), (2)", "FROM documents LIMIT 1", "TABLE documents",
    "DESCRIBE influence", "SHOW TABLES", "SUMMARIZE documents", "-- a comment\nDESCRIBE documents",
    "WITH x AS (SELECT 1) SELECT * FROM x",
    "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x WHERE n < 9) FROM x",
    "SELECT current_setting('memory_limit')",
    "SELECT * FROM duckdb_settings()", "SELECT * FROM information_schema.tables", "SELECT * FROM duckdb_views()",
    "SELECT * FROM checkpoint()", "SELECT write_log('x')", "SELECT setseed(0.5), random()", "SELECT getvariable('x')",
    "SELECT count(*) FROM documents JOIN passages USING (doc_id) LEFT JOIN mentions USING (passage_id)",
    "SELECT * FROM truncate_duckdb_logs()", "SELECT * FROM duckdb_functions() LIMIT 1",
    "SELECT * FROM pragma_table_info('documents')",
]  # fmt: skip

NAMED = {
    "documents": "doc_id doc_key corpus source published published_precision title url author language license "
    "trained_on n_passages metadata",
    "passages": "passage_id doc_id ordinal char_start char_end n_tokens text text_hash",
    "mentions": "passage_id doc_id entity surface type origin char_start char_end",
    "encodings": "encoder passage_id norm loss n_tokens",
    "queries": "query_id prompt target query_set metadata created_at",
    "traces": "trace_id query_id encoder curvature method filter snapshot k exact created_at",
    "hits": "trace_id side rank passage_id score percentile",
    "influence": "trace_id query_id prompt target query_metadata side rank passage_id score percentile z_score text "
    "doc_id doc_key corpus source published title url author language license trained_on metadata entities",
}


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "file.csv").write_text("secret,value\n1,2\n")
    return {"file": tmp_path / "file.csv", "folder": tmp_path, "out": tmp_path / "out"}


@pytest.fixture(autouse=True)
def untouched(filled: LakeStore, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test of this file asks, the lake's files stay as they are and none appears elsewhere."""
    here = set(Path.cwd().iterdir())
    before = hashes(filled.root)
    yield
    assert hashes(filled.root) == before
    assert not (tmp_path / "out").exists()
    assert set(Path.cwd().iterdir()) - here <= {Path.cwd() / ".pytest_cache", Path.cwd() / ".hypothesis"}


def hashes(root: Path) -> dict[str, str]:
    # SQLite's shared memory and log change when the catalog is only read.
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith("catalog.db-"))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def relations(session: Session) -> list[str]:
    return [row.name for row in session.sql("SHOW TABLES")]


def stays_whole(session: Session) -> None:
    assert session.sql("SELECT count(*) AS n FROM documents").to_dicts() == [{"n": 60}]
    names = "('lock_configuration', 'enable_external_access')"
    locked = f"SELECT value FROM duckdb_settings() WHERE name IN {names} ORDER BY name"
    assert [row.value for row in session.sql(locked)] == ["false", "true"]
    assert "v" not in relations(session)
    assert "t" not in relations(session)


@pytest.mark.parametrize("query", NO_SELECT + OUT_OF_REACH, ids=lambda text: repr(text[:50]))
def test_everything_but_a_select_over_the_lake_is_refused_in_one_line(
    session: Session, query: str, place: dict[str, Path]
) -> None:
    text = query.format(**place) if "{" in query else query
    with pytest.raises(SqlError) as caught:
        session.sql(text)
    message = str(caught.value)
    assert message.strip()
    assert len(message.splitlines()) == 1
    stays_whole(session)


@pytest.mark.parametrize("query", HARMLESS, ids=lambda text: repr(text[:50]))
def test_what_only_reads_runs_and_leaves_no_trace(session: Session, query: str) -> None:
    session.sql(query)
    stays_whole(session)


def test_the_tables_are_not_vacuous() -> None:
    assert len(NO_SELECT) + len(OUT_OF_REACH) > 120


def test_parameters_are_bound_and_never_read_as_sql(session: Session) -> None:
    nasty = "'); DROP VIEW documents; --"
    assert session.sql("SELECT ? AS a, ? AS b", [nasty, 1]).to_dicts() == [{"a": nasty, "b": 1}]
    assert session.sql("SELECT $x AS a", {"x": nasty}).to_dicts() == [{"a": nasty}]
    assert session.sql(
        "SELECT doc_key FROM documents WHERE source = $s AND doc_key = 'd2'", {"s": "O'Reilly"}
    ).to_dicts() == [{"doc_key": "d2"}]
    assert session.sql("SELECT unnest($ids) AS id", {"ids": ["a", "b"]}).to_dicts() == [{"id": "a"}, {"id": "b"}]
    assert session.sql("SELECT ? IS NULL AS n", [None]).to_dicts() == [{"n": True}]


@pytest.mark.parametrize(
    ("query", "parameters"),
    [("SELECT ?", None), ("SELECT ?", [1, 2]), ("SELECT $x", {"y": 1}), ("SELECT $x", [object()])],
)
def test_wrong_parameters_are_named(session: Session, query: str, parameters: object) -> None:
    with pytest.raises(SqlError):
        session.sql(query, parameters)  # type: ignore[arg-type]


def test_a_query_that_takes_too_long_is_stopped_and_the_session_lives_on(session: Session) -> None:
    began = time.monotonic()
    with pytest.raises(SqlError, match=r"the query took longer than 0\.5 s and was stopped"):
        session.sql(
            "SELECT count(*) FROM range(1000000000) a, range(1000000) b WHERE a.range + b.range = -1",
            settings=SqlSettings(time_limit_s=0.5),
        )
    assert time.monotonic() - began < 10
    stays_whole(session)


def test_no_timer_outlives_its_query(session: Session) -> None:
    session.sql("SELECT 1")
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert all(timer.finished.is_set() for timer in timers)


def test_a_query_that_needs_too_much_memory_is_refused_and_the_session_lives_on(
    filled: LakeStore, at: Snapshot
) -> None:
    with Session(filled, at, threads=1, settings=SqlSettings(memory_limit=100_000_000)) as session:
        for query in (
            "SELECT list(range) FROM range(100000000)",
            "SELECT range FROM range(100000000) ORDER BY hash(range)",
        ):
            with pytest.raises(SqlError, match="Out of Memory") as caught:
                session.sql(query)
            assert len(str(caught.value).splitlines()) == 1
        stays_whole(session)


@pytest.mark.parametrize("relation", NAMED)
def test_the_columns_that_people_type_are_there(session: Session, relation: str) -> None:
    columns = session.sql(f"FROM {relation} LIMIT 0").columns
    assert set(NAMED[relation].split()) <= set(columns)


def test_every_catalog_table_and_every_lake_table_is_a_relation_and_no_vector_is(session: Session) -> None:
    shown = set(relations(session))
    catalog = set(models.Base.metadata.tables)
    assert catalog | set(LAKE_TABLES) | {"encodings", "influence"} <= shown
    types = [row.data_type for row in session.sql("SELECT data_type FROM duckdb_columns() WHERE NOT internal")]
    assert not [kind for kind in types if "FLOAT[" in kind or "TINYINT[" in kind]


def test_every_relation_and_every_column_is_explained(session: Session) -> None:
    for table, name in (
        ("views", "view_name"),
        ("columns", "table_name || '.' || column_name"),
        ("tables", "table_name"),
    ):
        silent = session.sql(
            f"SELECT {name} AS name FROM duckdb_{table}() "
            "WHERE NOT internal AND schema_name = 'main' AND coalesce(trim(comment), '') = ''"
        )
        assert [row.name for row in silent] == []


def test_dates_are_dates_and_times_are_times_in_utc(session: Session) -> None:
    (row,) = session.sql(
        "SELECT typeof(published) AS d, typeof(t.created_at) AS c FROM influence JOIN traces t USING (trace_id) LIMIT 1"
    )
    assert tuple(row) == ("DATE", "TIMESTAMP WITH TIME ZONE")
    created = next(iter(session.sql("SELECT created_at FROM traces"))).created_at
    assert created.utcoffset().total_seconds() == 0


def test_influence_joins_a_hit_with_everything_people_ask_for(session: Session) -> None:
    rows = session.sql("SELECT * FROM influence ORDER BY score DESC").to_dicts()
    assert [(row["side"], row["rank"], row["target"], row["method"]) for row in rows] == [
        ("proponent", 1, " France", "trackstar"), ("opponent", 1, " France", "trackstar"),
    ]  # fmt: skip
    for row in rows:
        (document,) = session.sql(
            "SELECT d.* FROM documents d JOIN passages USING (doc_id) WHERE passage_id = ?", [row["passage_id"]]
        )
        assert (row["doc_key"], row["source"], row["published"]) == (
            document.doc_key,
            document.source,
            document.published,
        )
        named = session.sql("SELECT DISTINCT entity FROM mentions WHERE passage_id = ? ORDER BY 1", [row["passage_id"]])
        assert row["entities"] == [mention.entity for mention in named]


def test_encodings_has_one_row_for_each_encoded_passage_of_each_encoder(
    session: Session, filled: LakeStore, at: Snapshot
) -> None:
    encoded = filled.table("encodings_e", at=at).to_table(columns=["text_hash"])["text_hash"].to_pylist()
    texts = filled.table("passages", at=at).to_table(columns=["text_hash"])["text_hash"].to_pylist()
    expected = sum(text in set(encoded) for text in texts)
    for _ in range(2):  # a scan is not used up
        counts = session.sql(
            "SELECT encoder, count(*) AS n, count(DISTINCT passage_id) AS d FROM encodings GROUP BY 1 ORDER BY 1"
        )
        assert counts.to_dicts() == [{"encoder": name, "n": expected, "d": expected} for name in ("by_text", "e")]


def test_an_older_snapshot_is_read_as_it_was(filled: LakeStore) -> None:
    expected = {1: (0, 0, 0), 2: (60, 0, 0), 3: (60, 2, 1)}
    for snapshot, counts in expected.items():
        with Session(filled, get_snapshot(filled.catalog, snapshot), threads=1) as session:
            (row,) = session.sql(
                "SELECT (SELECT count(*) FROM documents), (SELECT count(DISTINCT encoder) FROM encodings), "
                "(SELECT count(DISTINCT trace_id) FROM influence)"
            )
        assert tuple(row) == counts


def test_settings_of_a_run_are_json_that_sql_can_open(session: Session) -> None:
    rows = session.sql(
        "SELECT versions->>'duckdb' AS v, e.settings->>'blocks' AS b FROM runs, encoders e WHERE name = 'e' LIMIT 1"
    )
    (row,) = rows
    assert row.b == "1"
    assert row.v


def test_repeated_columns_of_a_join_are_told_apart(session: Session) -> None:
    result = session.sql("SELECT h.*, t.* FROM hits h JOIN traces t ON h.trace_id = t.trace_id")
    assert len(set(result.columns)) == len(result.columns)
    assert {"trace_id", "trace_id_1"} <= set(result.columns)
    assert result.to_polars().height == len(result) == 2


def test_a_session_of_some_passages_sees_their_documents_whole(filled: LakeStore, at: Snapshot) -> None:
    with Session(filled, at, threads=1) as whole:
        chosen = whole.sql("SELECT passage_id FROM passages WHERE ordinal = 1 ORDER BY text LIMIT 7").to_arrow()
        ids = chosen["passage_id"].combine_chunks()
        documents = "SELECT doc_id FROM passages WHERE passage_id IN (SELECT unnest($ids))"
        with Session(filled, at, threads=1, passages=ids) as narrow:
            for relation in ("documents", "passages", "mentions"):
                statement = f"SELECT * FROM {relation} WHERE doc_id IN ({documents}) ORDER BY ALL"
                expected = whole.sql(statement, {"ids": ids.to_pylist()}).to_dicts()
                assert narrow.sql(f"SELECT * FROM {relation} ORDER BY ALL").to_dicts() == expected
                assert expected
            everything = "SELECT * FROM hits ORDER BY ALL"
            assert narrow.sql(everything).to_dicts() == whole.sql(everything).to_dicts()


def test_a_session_of_no_passages_sees_no_document(filled: LakeStore, at: Snapshot) -> None:
    with Session(filled, at, threads=1, passages=pa.array([], pa.string())) as session:
        for relation in ("documents", "passages", "mentions"):
            assert len(session.sql(f"SELECT * FROM {relation}")) == 0


def test_influence_is_the_same_when_hits_are_so_many_that_whole_tables_are_joined(
    filled: LakeStore, at: Snapshot, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proponent.query.rows_of_hits.AT_ONCE", 1)
    with Session(filled, at) as whole:
        ordered = "FROM influence ORDER BY trace_id, side, rank"
        assert session.sql(ordered).to_arrow() == whole.sql(ordered).to_arrow()


def test_a_session_whose_rows_of_hits_were_stopped_half_way_finds_them_again(
    filled: LakeStore, at: Snapshot, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def stopped_once(*of: Any, **how: Any) -> dict[str, pa.Table]:
        tries.append(1)
        found = rows_of_hits(*of, **how)
        return found if len(tries) > 1 else found | {"no such view": found["passages"]}

    monkeypatch.setattr("proponent.query.session.rows_of_hits", stopped_once)
    ordered = "FROM influence ORDER BY trace_id, side, rank"
    with Session(filled, at) as again:
        with pytest.raises(duckdb.Error):
            again.sql(ordered)
        assert again.sql(ordered).to_arrow() == session.sql(ordered).to_arrow()
    assert len(tries) == 2
