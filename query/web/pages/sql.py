"""SQL: one SELECT over the lake, and its rows as a table.

Notable: opening an address puts its statement into the editor and does not run it.
"""

import math
import time
from dataclasses import replace
from typing import Annotated, Any, Final

import msgspec

from proponent.query.web.explorer import PAGE_SQL, Explorer
from proponent.query.web.page import Action, Page
from proponent.query.web.parameters import FieldError
from proponent.schema.errors import SqlError

MOST_ROWS: Final = 1000
"""Rows that are shown of a result."""

_SCHEMA = """
SELECT table_name AS relation, column_name AS "column", data_type AS type, comment
FROM duckdb_columns() WHERE schema_name = 'main' AND NOT internal
ORDER BY relation, column_index
"""


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A statement for the editor."""

    query: Annotated[str, msgspec.Meta(max_length=100_000, description="One SELECT.")] = ""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column of a relation or of a result."""

    name: str
    type: str
    comment: str = ""


class Relation(msgspec.Struct, frozen=True, kw_only=True):
    """A relation with its columns."""

    name: str
    columns: list[Column]


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """The first rows of a result."""

    columns: list[Column]
    rows: list[list[Any]]
    more: bool
    """Whether there are more rows than these."""
    seconds: float


class SqlView(msgspec.Struct, frozen=True, kw_only=True):
    """The editor, the relations, and the rows of a statement that was run."""

    query: str
    relations: list[Relation]
    result: Rows | None = None


def _load(explorer: Explorer, params: Statement) -> SqlView:
    return SqlView(query=params.query, relations=relations(explorer))


def relations(explorer: Explorer) -> list[Relation]:
    """Return what can be asked, with its columns."""
    return explorer.kept("relations", lambda: _relations(explorer))


def _relations(explorer: Explorer) -> list[Relation]:
    found: dict[str, list[Column]] = {}
    for row in explorer.rows(_SCHEMA):
        column = Column(name=row["column"], type=row["type"], comment=row["comment"] or "")
        found.setdefault(row["relation"], []).append(column)
    return [Relation(name=name, columns=columns) for name, columns in found.items()]


def _run(explorer: Explorer, fields: Statement) -> SqlView:
    if not fields.query.strip():
        raise FieldError("query", "write a SELECT; the relations on this page are what there is to ask")
    try:
        result = run(explorer, fields.query)
    except SqlError as error:
        raise FieldError("query", str(error)) from error
    return SqlView(query=fields.query, relations=relations(explorer), result=result)


def run(explorer: Explorer, query: str, parameters: dict[str, Any] | None = None) -> Rows:
    """Run a statement and return its first rows. Raises SqlError."""
    began = time.monotonic()
    rows: list[list[Any]] = []
    settings = replace(PAGE_SQL, max_rows=None)
    with explorer.session() as session, session.stream(query, parameters, settings=settings) as stream:
        columns = [Column(name=field.name, type=str(field.type)) for field in stream.schema]
        for batch in stream.batches():
            values = [column.to_pylist() for column in batch.slice(0, MOST_ROWS + 1 - len(rows)).columns]
            rows += [[_plain(value) for value in row] for row in zip(*values, strict=True)]
            if len(rows) > MOST_ROWS:
                break
    return Rows(columns=columns, rows=rows[:MOST_ROWS], more=len(rows) > MOST_ROWS, seconds=time.monotonic() - began)


def _plain(value: Any) -> Any:
    """Return a value that JSON has, or its text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value)


PAGE = Page(
    name="sql",
    path="/sql",
    title="SQL",
    summary="The relations of the lake, and a statement for the editor, which is not run",
    nav="SQL",
    params=Statement,
    data=SqlView,
    load=_load,
)

ACTIONS = (
    Action(
        name="run_sql",
        path="/sql",
        summary="Run one SELECT and return its first rows",
        fields=Statement,
        answer=SqlView,
        act=_run,
        page=PAGE,
        writes=False,
    ),
)
