"""A lake as one file of DuckDB's, which any DuckDB of the last years opens without proponent.

Notable: the session that reads is locked down and cannot write, so a connection of its own makes the file, table by
table, of the session's streams. Views are those of the session, from the same file.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from proponent.query.running import TimeLimit, supervised
from proponent.query.session import Session
from proponent.query.statement import literal

from .files import whole

STORAGE: Final = "v1.0.0"
"""Files of this version are read by DuckDB 0.10 and everything after it; later ones gain nothing here."""
MEMORY_LIMIT: Final = "512MB"
"""A group of 122,880 rows is compressed together; what does not fit waits beside the file."""
TABLES: Final = {
    "corpora": "*",
    "documents": "*",
    "passages": "*",
    "mentions": "*",
    "stored_encodings": "*",
    "stored_near_duplicates": "*",
    "models": "* EXCLUDE (path, moments_path)",
    "encoders": "*",
    "curvatures": "*",
    "queries": "*",
    "traces": "*",
    "hits": "*",
    "recomputations": "*",
}
"""Relations that are written as tables, with their columns. The rest of the catalog is about one installation."""
_WITHOUT_TEXTS: Final = {"passages": "* REPLACE (NULL::VARCHAR AS text)"}
_EXPORTED: Final = """
CREATE TABLE exported AS
SELECT $snapshot::BIGINT AS snapshot, $published::TIMESTAMPTZ AS published, now() AS exported_at, $texts AS texts,
    $version AS proponent;
COMMENT ON TABLE exported IS 'What this file was made of.';
COMMENT ON COLUMN exported.snapshot IS 'Snapshot of the lake.';
COMMENT ON COLUMN exported.published IS 'When the snapshot was published.';
COMMENT ON COLUMN exported.exported_at IS 'When this file was made.';
COMMENT ON COLUMN exported.texts IS 'Whether passages have their texts.';
COMMENT ON COLUMN exported.proponent IS 'Version of proponent that made it.';
"""


def export_database(session: Session, path: Path, *, texts: bool = True, version: str) -> dict[str, int]:
    """Write what a session sees into a file; return how many rows of which table. `version` is that of proponent.

    Without `texts` the column `text` of passages is null everywhere; all else is there. Raises InputError when the file
    cannot be made there.
    """
    with whole(path) as partial, _spilling(partial.with_name(f"{partial.name}.spill")) as connection:
        connection.execute(f"ATTACH {literal(str(partial))} AS made (STORAGE_VERSION '{STORAGE}')")
        connection.execute("USE made")
        try:
            told = {name: _copy(session, connection, name, texts=texts) for name in TABLES}
            connection.execute(_views())
            _comment(session, connection)
            _tell(session, connection, texts=texts, version=version)
        finally:
            connection.execute("USE memory")
            connection.execute("DETACH made")
            partial.with_name(f"{partial.name}.wal").unlink(missing_ok=True)
    return told


@contextmanager
def _spilling(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        for setting in (f"temp_directory = {literal(str(folder))}", f"memory_limit = '{MEMORY_LIMIT}'"):
            connection.execute(f"SET {setting}")
        try:
            yield connection
        finally:
            connection.close()
            shutil.rmtree(folder, ignore_errors=True)


def _views() -> str:
    """Return the session's views; those that stand between `influence` and its tables are only of use there."""
    lines = files("proponent.query").joinpath("sql", "views.sql").read_text("utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(("CREATE SCHEMA of_hits", "CREATE VIEW of_hits."))]
    return "\n".join(kept).replace("of_hits.", "")


def _copy(session: Session, connection: duckdb.DuckDBPyConnection, name: str, *, texts: bool) -> int:
    columns = TABLES[name] if texts else _WITHOUT_TEXTS.get(name, TABLES[name])
    settings = replace(session.settings, time_limit_s=None)
    with session.stream(f"SELECT {columns} FROM {name}", settings=settings) as stream:  # noqa: S608 - names of ours
        rows = connection.from_arrow(pa.RecordBatchReader.from_batches(stream.schema, stream.batches()))
        supervised(connection.interrupt, lambda: rows.create(name), TimeLimit(None))
    ((n_rows,),) = connection.sql(f"SELECT count(*) FROM {name}").fetchall()  # noqa: S608
    return int(n_rows)


def _comment(session: Session, connection: duckdb.DuckDBPyConnection) -> None:
    """Take over the comments of every relation that was written and of its columns."""
    kinds = dict(
        connection.sql(
            "SELECT table_name, if(table_type = 'VIEW', 'VIEW', 'TABLE') FROM information_schema.tables "
            "WHERE table_catalog = 'made'"
        ).fetchall()
    )
    relations = session.sql(
        "SELECT view_name AS name, comment FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal "
        "UNION ALL SELECT table_name, comment FROM duckdb_tables() WHERE schema_name = 'main' AND NOT internal"
    )
    for relation in relations:
        if relation.name in kinds:
            kind = kinds[relation.name]
            connection.execute(f'COMMENT ON {kind} "{relation.name}" IS {literal(relation.comment)}')
    written = set(
        connection.sql("SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = 'made'").fetchall()
    )
    columns = session.sql(
        "SELECT table_name AS relation, column_name AS name, comment FROM duckdb_columns() WHERE schema_name = 'main'"
    )
    for column in columns:
        if (column.relation, column.name) in written:
            connection.execute(f'COMMENT ON COLUMN "{column.relation}"."{column.name}" IS {literal(column.comment)}')


def _tell(session: Session, connection: duckdb.DuckDBPyConnection, *, texts: bool, version: str) -> None:
    facts: dict[str, Any] = {
        "snapshot": session.at.snapshot_id,
        "published": session.at.created_at,
        "texts": texts,
        "version": version,
    }
    table, *comments = _EXPORTED.strip().split(";\n")
    connection.execute(table, facts)
    for comment in comments:
        connection.execute(comment)
