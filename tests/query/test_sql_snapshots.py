"""The SQL that a session registers and runs is what was reviewed: `tests/query/snapshots` has it as text.

After a change that is meant, `PROPONENT_SNAPSHOTS=write pytest tests/query/test_sql_snapshots.py` writes it anew.
"""

import os
from importlib.resources import files
from pathlib import Path

import duckdb
import pytest

from proponent.query.filter import parse_filter
from proponent.query.session import Session

FOLDER = Path(__file__).parent / "snapshots"
QUERIES = {path.name: path.read_text("utf-8") for path in Path(str(files("proponent.query") / "sql")).glob("*.sql")}
FILTERS = (
    "source = 'news' AND published >= DATE '2001-02-03'",
    "entity('France') AND NOT near_duplicate",
    "mention(type = 'GPE' AND entity IN ('Peru', 'Kenya')) OR list_contains(entities, 'x')",
    "metadata ->> 'stars' = '3' -- a comment",
)


def same(name: str, text: str) -> None:
    path = FOLDER / name
    if os.environ.get("PROPONENT_SNAPSHOTS") == "write":
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text, f"{path.name} differs; see the first lines of this file"


def as_parsed(query: str) -> str:
    """Return what DuckDB's parser makes of some statements, without comments and layout."""
    return "".join(f"{statement.query.strip().rstrip(';')};\n" for statement in duckdb.extract_statements(query))


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_files_of_queries_are_what_was_reviewed(name: str) -> None:
    same(name, as_parsed(QUERIES[name]))


def test_every_snapshot_belongs_to_something() -> None:
    others = {"registered_views.sql", "registered_functions.sql", "filters.sql"}
    assert {path.name for path in FOLDER.glob("*.sql")} <= {*QUERIES, *others}


def test_views_are_registered_as_reviewed(session: Session) -> None:
    rows = session.sql(
        "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal AND sql NOT LIKE '%arrow_scan%' "
        "ORDER BY view_name"
    )
    same("registered_views.sql", "".join(f"-- {row.view_name}\n{row.sql}\n" for row in rows))


def test_functions_are_registered_as_reviewed(session: Session) -> None:
    rows = session.sql(
        "SELECT function_name, function_type, parameters, return_type, macro_definition, comment "
        "FROM duckdb_functions() WHERE NOT internal ORDER BY function_name"
    )
    same(
        "registered_functions.sql",
        "".join(
            f"-- {row.function_type} {row.function_name}({', '.join(row.parameters)}): "
            f"{row.comment or row.return_type}\n{row.macro_definition or ''}\n"
            for row in rows
        ),
    )


def test_filters_become_what_was_reviewed() -> None:
    same("filters.sql", "".join(f"-- {fragment}\n{parse_filter(fragment).sql}\n" for fragment in FILTERS))
