"""Attempts on the SQL session: each is refused or bounded, nothing of the lake changes, and the session answers on.

`tests/query/test_session.py` has those that only the kind of a statement or a name gives away. These here are quieter.
"""

import hashlib
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proponent.query.session import Session
from proponent.query.statement import MAX_LENGTH
from proponent.schema.errors import SettingsError, SqlError
from proponent.schema.settings import SqlSettings
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot

DOUBLED = "WITH a0 AS (SELECT 1 AS x), {} SELECT count(*) FROM a{}"
"""CTEs that name the one before twice."""


def doubled(n: int, how: str = "SELECT p.x FROM a{0} p, a{0} q") -> str:
    return DOUBLED.format(", ".join(f"a{i} AS ({how.format(i - 1)})" for i in range(1, n)), n - 1)


REFUSED = {
    # a second statement, or another kind of it, in disguise
    "after a comment that ends": "SELECT 1 /* ; */; DROP VIEW documents",
    "in a line comment's next line": "SELECT 1 -- ;\n; DROP VIEW documents",
    "after a nested comment": "SELECT 1 /* /* */ */; DROP VIEW documents",
    "after a dollar-quoted text": "SELECT $$;$$; DROP VIEW documents",
    "after a tagged dollar-quoted text": "SELECT $a$ $$ ; $a$; DROP VIEW documents",
    "after an escape": "SELECT E'\\';'; DROP VIEW documents",
    "after a quoted name": 'SELECT 1 AS ";"; DROP VIEW documents',
    "many empty ones and another": "SELECT 1;;;;;SELECT 2",
    "behind a form feed": "SELECT 1;\f\vDROP VIEW documents",
    "behind a no-break space": "SELECT 1;\u00a0DROP VIEW documents",
    "behind a byte order mark": "\ufeffDROP VIEW documents",
    "behind a null": "SELECT 1\x00; DROP VIEW documents",
    "full-width letters": "\uff33\uff25\uff2c\uff25\uff23\uff34 1",
    "a full-width semicolon": "SELECT 1\uff1b DROP VIEW documents",
    "a Greek question mark": "SELECT 1\u037e DROP VIEW documents",
    "a zero-width space": "DR\u200bOP VIEW documents",
    "a long s": "\u017felect 1",
    "a lone surrogate": "SELECT '\ud800'",
    "an insert in a nested CTE": "SELECT * FROM (WITH x AS (INSERT INTO hits VALUES (1) RETURNING *) FROM x)",
    "an insert in a second CTE": "WITH a AS (SELECT 1), b AS (DELETE FROM hits RETURNING *) SELECT * FROM a",
    "a merge in a CTE": "WITH x AS (MERGE INTO hits USING passages ON true WHEN MATCHED THEN DELETE) SELECT 1",
    "a copy in a subquery": "SELECT * FROM (COPY hits TO '{out}')",
    "a copy to a program's place": "COPY (SELECT 1) TO '/dev/stdout'",
    "an explain in a subquery": "SELECT * FROM (EXPLAIN SELECT 1)",
    "a pragma in a subquery": "SELECT * FROM (PRAGMA database_list)",
    "a set in a subquery": "SELECT * FROM (SET threads = 1)",
    "a dynamic pivot, which makes a type": "PIVOT documents ON source USING count(*)",
    "a from with a drop": "FROM documents; DROP VIEW documents",
    # reading and writing files, and the network
    "a pattern as a table": "FROM '{folder}/*'",
    "a URL as a table": "FROM 'http://127.0.0.1:9/x.parquet'",
    "a file in a CTE": "WITH x AS (FROM read_csv('{file}')) FROM x",
    "a file in a scalar subquery": "SELECT (SELECT content FROM read_text('{file}'))",
    "a file in EXISTS": "SELECT EXISTS (FROM read_blob('{file}'))",
    "a file in a lateral join": "SELECT * FROM documents, LATERAL (SELECT * FROM read_text('{file}'))",
    "a file by a computed name": "SELECT * FROM read_text('{folder}' || '/file.csv')",
    "a file by a parameter of the session": "SELECT * FROM read_text(getvariable('x'))",
    "a file in DESCRIBE": "DESCRIBE FROM '{file}'",
    "a file in SUMMARIZE": "SUMMARIZE FROM read_csv('{file}')",
    "a file with a schema": "SELECT * FROM system.main.read_text('{file}')",
    "a file with a catalog": 'SELECT * FROM memory.main."{file}"',
    "a database file": "SELECT * FROM read_duckdb('{lake}/catalog.db')",
    "the catalog's own file": "SELECT * FROM sqlite_scan('{lake}/catalog.db', 'locks')",
    "the lake's configuration": "SELECT * FROM read_text('{lake}/proponent.toml')",
    "a Lance table's files": "SELECT * FROM glob('{lake}/tables/*')",
    "an Arrow file": "SELECT * FROM read_arrow('{file}')",
    "a Lance table": "SELECT * FROM lance_scan('{lake}/tables/documents.lance')",
    "a spreadsheet": "SELECT * FROM read_xlsx('{file}')",
    "an Avro file": "SELECT * FROM read_avro('{file}')",
    "a Delta table": "SELECT * FROM delta_scan('{folder}')",
    "a JSON file": "SELECT * FROM read_json_objects_auto('{file}')",
    "another server": "SELECT * FROM postgres_scan('host=127.0.0.1', 'public', 't')",
    "a request": "SELECT http_get('http://127.0.0.1:9/')",
    "an environment variable in upper case": "SELECT GETENV('PATH')",
    "an environment variable with a schema": "SELECT main.getenv('PATH')",
    "a log that is stored": "SELECT * FROM enable_logging(storage := 'file', storage_config := {{'path': '{out}'}})",
    "a test of extensions": "SELECT * FROM load_aws_credentials()",
    # running a text
    "a text as a query": "SELECT * FROM query('SELECT 1')",
    "a text as a query, in upper case": "SELECT * FROM QUERY('SELECT 1')",
    "a text as a query, with a schema": "SELECT * FROM system.main.query('SELECT 1')",
    "a text as a query, in DESCRIBE": "DESCRIBE FROM query('SELECT 1')",
    "a text as a query, in a subquery": "SELECT (SELECT count(*) FROM query('FROM documents'))",
    "a text as a table": "SELECT * FROM query_table('documents')",
    "texts as tables": "SELECT * FROM query_table(['documents', 'passages'], true)",
    "a serialised query": "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "a query in a pragma": "FROM pragma_json_execute_serialized_sql('x')",
    # secrets, settings and Python
    "secrets": "FROM duckdb_secrets(redact := false)",
    "a setting of a secret": "SELECT current_setting('s3_secret_access_key')",
    "a setting that is none": "SELECT current_setting('no_such_setting')",
    "a setting by a function": "SELECT set_config('memory_limit', '1TB', false)",
    "a variable of the caller": "SELECT * FROM caller_frame",
    "a variable of a module": "SELECT * FROM secret_frame",
    "a pointer": "SELECT * FROM arrow_scan_dumb(1::POINTER, 2::POINTER, 3::POINTER)",
    # what cannot be planned
    "ten megabytes": "SELECT '" + "x" * 10_000_000 + "'",
    "ten megabytes of comment": "SELECT 1 /*" + "x" * 10_000_000 + "*/",
    "a hundred thousand parameters": "SELECT " + ",".join("?" * 100_000),
    "sixteen thousand parameters": "SELECT " + ",".join("?" * 16_000),
    "thousands of brackets": "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
    "two thousand selects in each other": "SELECT * FROM (" * 2000 + "SELECT 1" + ")" * 2000,
    "two thousand subqueries in each other": "SELECT (" * 2000 + "SELECT 1" + ")" * 2000,
    "ninety thousand minus signs": "SELECT " + "- " * 45_000 + "1",
    "thousands of terms": "SELECT " + "+".join("1" * 40_000),
    "thousands of lists in each other": "SELECT " + "[" * 20_000 + "]" * 20_000,
    "thousands of casts": "SELECT 1" + "::INT" * 15_000,
    "five thousand unions": " UNION ALL ".join(["SELECT 1"] * 5_000),
    "a column of thousands of names": "SELECT a" + ".b" * 40_000,
    "twenty CTEs, each of two of the one before": doubled(20),
    "forty CTEs, each of two of the one before": doubled(40),
    "CTEs in capitals": doubled(20, "SELECT p.x FROM A{0} p, a{0} q"),
    "CTEs in subqueries": doubled(20, "SELECT (SELECT max(x) FROM a{0}) AS x FROM a{0}"),
    "CTEs that are materialised": doubled(20).replace(" AS (S", " AS MATERIALIZED (S"),
    "CTEs in DESCRIBE": f"DESCRIBE {doubled(20)}",
    "CTEs in a CTE": f"WITH z AS ({doubled(20)}) FROM z",
}  # fmt: skip

TOO_MUCH = {
    "repeat('x', 2^30)": "SELECT repeat('x', 1<<30)",
    "a list of 2^30": "SELECT range(1<<30)",
    "a series of 10^9": "SELECT generate_series(1, 1000000000)",
    "an aggregated list": "SELECT list(range) FROM range(100000000)",
    "an aggregated text": "SELECT string_agg(repeat('x', 1000), ',') FROM range(10000000)",
    "doubling in a recursive CTE": "WITH RECURSIVE t(s, n) AS (SELECT 'x', 0 UNION ALL SELECT s || s, n + 1 FROM t "
    "WHERE n < 40) SELECT max(length(s)) FROM t",
    "a recursive CTE of lists": "WITH RECURSIVE t(l) AS (SELECT [1] UNION ALL SELECT l || l FROM t) FROM t",
    "a sort": "SELECT range FROM range(100000000) ORDER BY hash(range)",
    "distinct values": "SELECT count(DISTINCT range) FROM range(1000000000)",
    "a window": "SELECT sum(range) OVER (ORDER BY hash(range)) FROM range(100000000)",
    "a histogram": "SELECT histogram(range) FROM range(100000000)",
    "a map": "SELECT map(range(50000000), range(50000000))",
    "a resized list": "SELECT list_resize([1], 1000000000)",
    "a replacement": "SELECT replace(repeat('a', 1000000), 'a', repeat('b', 10000))",
    "a replacement by a pattern": "SELECT regexp_replace(repeat('a', 1000000), 'a', repeat('b', 10000), 'g')",
    "all matches of a pattern": "SELECT regexp_extract_all(repeat('a', 50000000), 'a')",
    "a text in pieces": "SELECT string_split(repeat('a', 50000000), '')",
    "a format's width": "SELECT format('{:>1000000000}', 'x')",
}
ENDLESS = {
    "a recursive CTE": "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
    "a product": "SELECT count(*) FROM range(10000000) a, range(1000000) b WHERE a.range + b.range = -1",
    "hashes": "SELECT max(md5(range::VARCHAR)) FROM range(10000000000)",
    "a pattern on many rows": "SELECT count(*) FROM range(1000000000) WHERE regexp_matches(range::VARCHAR, '(1+)+$')",
    "a join of ninety relations": "SELECT count(*) FROM " + ", ".join(f"range(9) r{n}" for n in range(90)),
}
BOUNDED = {
    "a pattern that other engines are slow at": "SELECT regexp_matches(repeat('a', 100000) || 'b', '(a+)+$')",
    "a pattern of patterns": "SELECT try_cast('x' AS INTEGER), regexp_matches('x', '(a{0,30}){0,30}')",
    "a LIKE of many": "SELECT repeat('a', 20000) LIKE repeat('%a', 2000) || 'b'",
    "deep JSON": "SELECT json('" + "[" * 40_000 + "]" * 40_000 + "')",
    "ten CTEs, each of two of the one before": doubled(10),
}

caller_frame = {"secret": [1]}


@pytest.fixture(scope="module")
def small(filled: LakeStore, at: Snapshot) -> Iterator[Session]:
    """A session that may use little."""
    settings = SqlSettings(memory_limit=100_000_000, time_limit_s=1, max_bytes=50_000_000)
    with Session(filled, at, threads=1, settings=settings) as session:
        yield session


@pytest.fixture(scope="module", autouse=True)
def unchanged(filled: LakeStore) -> Iterator[None]:
    before, here = hashed(filled.root), set(Path.cwd().iterdir())
    yield
    assert hashed(filled.root) == before
    assert set(Path.cwd().iterdir()) - here <= {Path.cwd() / ".pytest_cache", Path.cwd() / ".hypothesis"}


def hashed(folder: Path) -> dict[str, str]:
    # Those beside the catalog come and go with readers.
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("catalog.db-"))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def answers(session: Session) -> None:
    rows = session.sql(
        "SELECT (SELECT count(*) FROM documents) AS n, list(value ORDER BY name) AS locked FROM duckdb_settings() "
        "WHERE name IN ('lock_configuration', 'enable_external_access')"
    )
    assert rows.to_dicts() == [{"n": 60, "locked": ["false", "true"]}]


def refused(session: Session, query: str) -> str:
    with pytest.raises(SqlError) as caught:
        session.sql(query)
    message = str(caught.value)
    assert message.strip()
    assert len(message.splitlines()) == 1
    assert len(message) < 1000
    answers(session)
    return message


@pytest.mark.parametrize("name", REFUSED)
def test_an_attempt_is_refused_in_one_line(small: Session, filled: LakeStore, tmp_path: Path, name: str) -> None:
    (tmp_path / "file.csv").write_text("secret,value\n1,2\n")
    places = {"file": tmp_path / "file.csv", "folder": tmp_path, "out": tmp_path / "out", "lake": filled.root}
    query = REFUSED[name].format(**places) if "{" in REFUSED[name] else REFUSED[name]
    began = time.monotonic()
    refused(small, query)
    assert time.monotonic() - began < 60, "nothing of it may take long to be refused"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.csv"]


SLOW = {
    "a map", "a sort", "repeat('x', 2^30)", "distinct values", "a format's width", "a text in pieces", "a window",
    "all matches of a pattern", "a replacement", "a replacement by a pattern", "a histogram", "an aggregated list",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.full) if name in SLOW else name for name in TOO_MUCH]
)
def test_what_needs_too_much_memory_is_refused_before_it_has_it(small: Session, name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    message = refused(small, TOO_MUCH[name])
    assert "Out of Memory" in message or "took longer" in message or "max_bytes" in message
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < 100_000_000 + 50_000_000 + (3 << 29), "the limits, the slack, and what is left between"
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits


@pytest.mark.parametrize(
    "name", [name if name == "a recursive CTE" else pytest.param(name, marks=pytest.mark.full) for name in ENDLESS]
)
def test_what_has_no_end_is_stopped(small: Session, name: str) -> None:
    message = refused(small, ENDLESS[name])
    assert "took longer than 1 s and was stopped" in message or "Out of Memory" in message


@pytest.mark.parametrize("name", BOUNDED)
def test_what_looks_dangerous_and_is_not_has_an_answer(small: Session, name: str) -> None:
    assert len(small.sql(BOUNDED[name])) == 1
    answers(small)


def test_there_are_many_attempts() -> None:
    queries = {*REFUSED.values(), *TOO_MUCH.values(), *ENDLESS.values()}
    assert len(queries) == len(REFUSED) + len(TOO_MUCH) + len(ENDLESS) > 110


@pytest.mark.parametrize("n_rows", [0, 1, 65_536, 200_000])
def test_a_result_within_its_limits_is_whole(small: Session, n_rows: int) -> None:
    found = small.sql(f"SELECT range AS n FROM range({n_rows})", settings=SqlSettings(max_rows=max(n_rows, 1)))
    assert found.columns == ["n"]
    assert found.to_arrow()["n"].to_pylist() == list(range(n_rows))


def test_a_result_that_is_too_large_is_refused_with_the_remedy(small: Session) -> None:
    with pytest.raises(SqlError, match=r"more than 10 rows \(max_rows\); ask for less, or raise the limit"):
        small.sql("FROM documents", settings=SqlSettings(max_rows=10))
    with pytest.raises(SqlError, match=r"more than 1,000,000 bytes \(max_bytes\); .* `proponent sql -o FILE`"):
        small.sql("SELECT repeat('x', 1000) FROM range(100000)", settings=SqlSettings(max_bytes=1_000_000))
    answers(small)


def test_a_result_without_end_is_not_fetched(small: Session) -> None:
    with pytest.raises(SqlError, match="max_rows"):
        small.sql("SELECT range FROM range(1000000000000)", settings=SqlSettings(max_rows=5))
    answers(small)


def test_a_row_that_fails_late_is_an_error_in_one_line(small: Session) -> None:
    assert "boom" in refused(small, "SELECT CASE WHEN range > 500000 THEN error('boom') END FROM range(1000000)")


def test_queries_of_several_sessions_at_once_leave_the_process_as_it_was(filled: LakeStore, at: Snapshot) -> None:
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            with Session(filled, at, threads=1) as session:
                for _ in range(5):
                    answers(session)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits
    assert not [thread for thread in threading.enumerate() if thread.name == "memory"]


def test_statements_of_the_usual_size_are_read(small: Session) -> None:
    ids = ", ".join(f"'{n:026}'" for n in range(3000))
    assert len(ids) < MAX_LENGTH
    by_id, patient = f"SELECT count(*) AS n FROM passages WHERE passage_id IN ({ids})", SqlSettings(time_limit_s=60)
    assert small.sql(by_id, settings=patient).to_dicts() == [{"n": 0}]
    many = {"ids": ["x" * 26] * 100_000}
    assert small.sql("SELECT len($ids) AS n", many, settings=patient).to_dicts() == [{"n": 100_000}]


@pytest.mark.parametrize(
    "settings",
    [{"memory_limit": 1}, {"memory_limit": 1 << 60}, {"time_limit_s": 0}, {"time_limit_s": float("nan")},
     {"max_rows": 0}, {"max_bytes": 0}],
)  # fmt: skip
def test_limits_that_make_no_sense_are_named(settings: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(settings))):
        SqlSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.full
def test_a_command_ends_when_its_query_cannot_be_stopped(filled: LakeStore) -> None:
    program = f"""
from pathlib import Path
from proponent.query import session as module
from proponent.query.session import Session
from proponent.schema.settings import SqlSettings
from proponent.store.lake import open_store
from proponent.store.snapshots import latest_snapshot
module._GRACE_S = 1
lake = open_store(Path({str(filled.root)!r}))
with Session(lake, latest_snapshot(lake.catalog), settings=SqlSettings(time_limit_s=1, end_process=True)) as session:
    session.sql("SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: the query could not be stopped when its time was up; the process ends\n"
