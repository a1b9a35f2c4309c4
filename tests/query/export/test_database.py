"""A lake as a DuckDB file says what the lake says, to programs that know nothing of proponent."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import sqlalchemy as sa

import proponent
from proponent.query.export import database
from proponent.query.export.database import TABLES, export_database
from proponent.query.session import Session
from proponent.schema.errors import InputError, SqlError
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot, get_snapshot

VIEWS = ["encodings", "fused", "influence", "near_duplicates", "recomputed"]
BY_SIDE = "SELECT side, count(*) AS n, min(score) AS score FROM influence GROUP BY side ORDER BY side"


@pytest.fixture(scope="module")
def exported(filled: LakeStore, at: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "lake.duckdb"
    with Session(filled, at, threads=1) as session:
        told = export_database(session, path, version="1.2.3")
    assert told["documents"] == 60
    assert set(told) == set(TABLES)
    return path


@pytest.fixture
def opened(exported: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(exported), read_only=True) as connection:
        yield connection


@pytest.mark.parametrize("relation", [*TABLES, *VIEWS])
def test_relations_have_the_rows_and_columns_of_the_lake(
    session: Session, opened: duckdb.DuckDBPyConnection, relation: str
) -> None:
    query = f"SELECT {TABLES.get(relation, '*')} FROM {relation} ORDER BY ALL"
    there: pa.Table = opened.sql(query.replace(TABLES["models"], "*")).to_arrow_table()
    here = session.sql(query).to_arrow()
    assert there.column_names == here.column_names
    assert there.to_pylist() == here.to_pylist()


def test_tables_are_not_vacuous(session: Session) -> None:
    filled = [name for name in [*TABLES, *VIEWS] if len(session.sql(f"FROM {name} LIMIT 1"))]
    assert {"documents", "passages", "mentions", "encodings", "near_duplicates", "influence", "models"} <= set(filled)


def test_every_relation_and_column_has_the_comment_of_the_lake(
    session: Session, opened: duckdb.DuckDBPyConnection
) -> None:
    query = "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE schema_name = 'main' AND NOT internal"
    there = opened.sql(f"{query} AND table_name <> 'exported'").fetchall()
    assert set(there) <= {tuple(row) for row in session.sql(query)}
    everything = (
        "SELECT comment FROM duckdb_columns() WHERE NOT internal UNION ALL SELECT comment FROM duckdb_tables() "
        "UNION ALL SELECT comment FROM duckdb_views() WHERE NOT internal"
    )
    assert all(comment for (comment,) in opened.sql(everything).fetchall())


def test_no_vector_and_no_path_of_this_machine_is_there(opened: duckdb.DuckDBPyConnection) -> None:
    columns = opened.sql("SELECT column_name, data_type FROM duckdb_columns() WHERE NOT internal").fetchall()
    assert not [name for name, kind in columns if "FLOAT[" in kind or "TINYINT[" in kind or name.endswith("path")]


def test_the_file_says_what_it_was_made_of(opened: duckdb.DuckDBPyConnection) -> None:
    [row] = opened.sql("SELECT snapshot, texts, proponent, published < exported_at FROM exported").fetchall()
    assert row == (3, True, "1.2.3", True)


def test_an_earlier_snapshot_and_no_texts(filled: LakeStore, tmp_path: Path) -> None:
    path = tmp_path / "earlier.duckdb"
    with Session(filled, get_snapshot(filled.catalog, 2), threads=1) as session:
        export_database(session, path, texts=False, version="1")
    with duckdb.connect(str(path), read_only=True) as connection:
        counts = "SELECT count(*), count(text), (SELECT count(*) FROM hits) FROM passages"
        assert connection.sql(counts).fetchall() == [(90, 0, 0)]
        assert connection.sql("SELECT snapshot, texts FROM exported").fetchall() == [(2, False)]
    assert "ünïcode".encode() not in path.read_bytes()


def test_duckdb_of_its_own_reads_it_without_proponent(session: Session, exported: Path) -> None:
    expected = session.sql(BY_SIDE).to_dicts()
    client = Path(sys.executable).with_name("duckdb")  # of another version, which does not read newer files
    command = [str(client), "-readonly", "-json", str(exported), BY_SIDE]
    assert json.loads(subprocess.run(command, check=True, capture_output=True).stdout) == expected
    script = "import duckdb, sys; print(duckdb.connect(sys.argv[1], read_only=True).sql(sys.argv[2]).fetchall())"
    fresh = [sys.executable, "-I", "-c", script, str(exported), BY_SIDE]
    printed = subprocess.run(fresh, check=True, capture_output=True, text=True).stdout
    assert printed.strip() == repr([tuple(row.values()) for row in expected])


def test_the_file_has_the_storage_version_that_all_read(exported: Path) -> None:
    head = exported.read_bytes()[:20]
    assert head[8:12] == b"DUCK"
    assert int.from_bytes(head[12:20], "little") == 64


def test_sqlalchemy_reads_and_reflects_it(session: Session, exported: Path) -> None:
    engine = sa.create_engine(f"duckdb:///{exported}", connect_args={"read_only": True})
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT rank, score FROM influence WHERE side = :side"), {"side": "opponent"})
        assert rows.fetchall() == [tuple(row) for row in session.sql("SELECT rank, score FROM hits WHERE score < 0")]
    looked = sa.inspect(engine)
    assert sorted(looked.get_view_names()) == VIEWS
    assert {column["name"] for column in looked.get_columns("hits")} == set(session.sql("FROM hits").columns)
    engine.dispose()


def test_polars_reads_it(opened: duckdb.DuckDBPyConnection) -> None:
    assert opened.sql("FROM influence").pl().select("score").to_series().sort().to_list() == [-0.5, 0.5]


def test_a_file_that_cannot_be_finished_leaves_the_former_one(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lake.duckdb"
    path.write_text("former")
    monkeypatch.setattr(database, "TABLES", {"documents": "*", "passages": "*, error('boom')"})
    with pytest.raises(SqlError, match="boom"):
        export_database(session, path, version="1")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("lake.duckdb", "former")]


@pytest.mark.full
def test_texts_larger_than_the_memory_are_written(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "unnest(range(1000)) AS n, repeat(hash(passage_id || n)::VARCHAR, 250) AS text"  # 450 MB
    monkeypatch.setattr(database, "TABLES", {"passages": f"passage_id, {long}"})
    monkeypatch.setattr(database, "MEMORY_LIMIT", "150MB")
    monkeypatch.setattr(database, "_views", lambda: "CREATE SCHEMA nothing")
    assert export_database(session, tmp_path / "lake.duckdb", version="1") == {"passages": 90_000}
    assert [file.name for file in tmp_path.iterdir()] == ["lake.duckdb"]


def test_python_exports_by_suffix(filled: LakeStore, tmp_path: Path) -> None:
    with proponent.open(filled.root) as lake:
        assert lake.export(tmp_path / "lake.duckdb")["passages"] == 90
        assert lake.export(tmp_path / "hits.jsonl", traces="trace") == {"rows": 2}
        query = "SELECT doc_key FROM documents WHERE source = $s"
        assert lake.export(tmp_path / "rows", sql=query, parameters={"s": "O'Reilly"}, form="csv") == {"rows": 12}
        assert lake.export(tmp_path / "then.json", traces=["trac"], at=1) == {"rows": 2}
    hits = [json.loads(line) for line in (tmp_path / "hits.jsonl").read_text("utf-8").splitlines()]
    assert [(hit["side"], hit["score"], bool(hit["text"])) for hit in hits] == [
        ("proponent", 0.5, True), ("opponent", -0.5, True),
    ]  # fmt: skip
    assert [hit["text"] for hit in json.loads((tmp_path / "then.json").read_text("utf-8"))] == [None, None]


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("x.csv", {}, "say which rows"),
        ("x.csv", {"sql": "SELECT 1", "traces": ["last"]}, "either a query or traces"),
        ("x.duckdb", {"sql": "SELECT 1"}, "whole lake"),
        ("x.csv", {"sql": "SELECT 1", "texts": False}, "leave the column out"),
        ("x.txt", {"sql": "SELECT 1"}, "no suffix that names a form"),
        ("no/x.duckdb", {}, "does not exist"),
        ("x.csv", {"sql": "DROP VIEW documents"}, "only SELECT"),
    ],
)
def test_what_does_not_fit_is_said(
    filled: LakeStore, tmp_path: Path, name: str, settings: dict[str, object], says: str
) -> None:
    with proponent.open(filled.root) as lake, pytest.raises(InputError, match=says):
        lake.export(tmp_path / name, **settings)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
