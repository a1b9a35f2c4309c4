"""SQL: a console over the lake, with its relations, and rows as a table, a chart and a file.

Notable: an address runs a statement only if it says so, and never because another site's page leads to it. Statements
have sessions and threads of their own, so that a slow one keeps no page waiting, and end when nobody waits for them.
"""

import math
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import IO, Annotated, Any, Final, Literal

import msgspec
import pyarrow as pa

from proponent.query.examples import examples
from proponent.query.export.forms import BINARY, write_rows
from proponent.query.mistakes import place_of
from proponent.query.results import Stream
from proponent.query.web.explorer import PAGE_SQL, Explorer
from proponent.query.web.page import Action, Download, File, Page
from proponent.query.web.parameters import FieldError
from proponent.query.web.plots import Chart, chosen, is_number
from proponent.schema.errors import InputError, LakeBusyError, NotFoundError, SettingsError, SqlError

MOST_ROWS: Final = 1000
"""Rows that are shown of a result."""
MOST_COUNTED: Final = 10_000_000
"""Rows that are counted."""
_COUNTING_S: Final = 2.0
"""Seconds that counting the rows that are not shown may take."""
MOST_BYTES: Final = 512 << 20
"""Bytes of a file."""
EXPORT: Final = replace(PAGE_SQL, time_limit_s=120.0, max_rows=None)
"""What a statement may take whose rows become a file."""

_SCHEMA = """
SELECT table_name AS relation, column_name AS "column", data_type AS type, columns.comment, views.comment AS told
FROM duckdb_columns() AS columns
LEFT JOIN duckdb_views() AS views ON view_name = table_name AND views.schema_name = 'main' AND NOT views.internal
WHERE columns.schema_name = 'main' AND NOT columns.internal
ORDER BY relation, column_index
"""
_TEXT: Final = "; charset=utf-8"
_MEDIA_TYPES: Final = {
    "csv": f"text/csv{_TEXT}",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "md": f"text/markdown{_TEXT}",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.file",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
Form = Literal["csv", "json", "jsonl", "md", "parquet", "arrow", "xlsx"]

_Text = Annotated[str, msgspec.Meta(max_length=100_000, description="One SELECT.")]
_Column = Annotated[str, msgspec.Meta(max_length=500)]


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A statement, and how its rows are drawn."""

    query: _Text = ""
    chart: Annotated[
        Literal["bar", "line", "scatter", "none"] | None, msgspec.Meta(description="By default what suits the columns.")
    ] = None
    x: Annotated[_Column | None, msgspec.Meta(description="Column along the chart.")] = None
    y: Annotated[_Column | None, msgspec.Meta(description="Column of numbers.")] = None


class Editor(Statement, frozen=True, kw_only=True):
    """What is in the editor, and whether to run it."""

    run: Annotated[bool, msgspec.Meta(description="Whether to run the statement, too.")] = False


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """A statement whose rows become a file."""

    query: _Text
    form: Form = "csv"


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column of a relation or of a result."""

    name: str
    type: str
    comment: str = ""


class Relation(msgspec.Struct, frozen=True, kw_only=True):
    """A relation with its columns."""

    name: str
    columns: list[Column]
    comment: str = ""


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """The first rows of a result."""

    columns: list[Column]
    rows: list[list[Any]]
    more: bool
    """Whether there are more rows than these."""
    n_rows: int
    """Rows that were counted."""
    counted: bool
    """Whether these are all there are."""
    seconds: float
    """Until the rows were there that are shown."""
    chart: Chart | None = None

    @property
    def numbers(self) -> list[str]:
        """Columns of numbers."""
        return [column.name for column in self.columns if is_number(column.type)]


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """A statement to start from."""

    asks: str
    query: str


class SqlView(msgspec.Struct, frozen=True, kw_only=True):
    """The editor, the relations, and the rows of a statement that was run."""

    query: str
    relations: list[Relation]
    examples: list[Suggestion]
    result: Rows | None = None


def _load(explorer: Explorer, params: Editor) -> SqlView:
    return _view(explorer, params, run=params.run)


def _act(explorer: Explorer, fields: Statement) -> SqlView:
    return _view(explorer, fields, run=True)


def _view(explorer: Explorer, asked: Statement, *, run: bool) -> SqlView:
    result = _result(explorer, asked) if run else None
    return SqlView(
        query=asked.query,
        relations=relations(explorer),
        examples=[Suggestion(asks=one.asks, query=one.statement) for one in examples()],
        result=result,
    )


def relations(explorer: Explorer) -> list[Relation]:
    """Return what can be asked, with its columns."""
    return explorer.kept_settled("relations", lambda: _relations(explorer))


def _relations(explorer: Explorer) -> list[Relation]:
    found: dict[str, Relation] = {}
    for row in explorer.rows(_SCHEMA):
        column = Column(name=row["column"], type=row["type"], comment=row["comment"] or "")
        relation = Relation(name=row["relation"], columns=[], comment=row["told"] or "")
        found.setdefault(row["relation"], relation).columns.append(column)
    return list(found.values())


def _result(explorer: Explorer, asked: Statement) -> Rows:
    with _beside_its_field(asked.query):
        rows = run(explorer, asked.query)
    columns = [(column.name, column.type) for column in rows.columns]
    return msgspec.structs.replace(rows, chart=chosen(columns, asked.chart, asked.x, asked.y))


@contextmanager
def _beside_its_field(query: str) -> Iterator[None]:
    """Raise FieldError for what is wrong with a statement, or with what it asks of a function."""
    if not query.strip():
        raise FieldError("query", "write a SELECT; the relations on this page are what there is to ask")
    try:
        yield
    except SqlError as error:
        raise FieldError("query", str(error), place=place_of(error, query)) from error
    except LakeBusyError:
        raise
    except (InputError, NotFoundError, SettingsError) as error:
        raise FieldError("query", str(error)) from error


def run(explorer: Explorer, query: str) -> Rows:
    """Run a statement and return its first rows. Raises SqlError, and what functions in it raise."""
    began = time.monotonic()
    rows: list[list[Any]] = []
    settings = replace(PAGE_SQL, max_rows=None)
    with explorer.statement_session(query) as session, session.stream(query, settings=settings) as stream:
        columns = [Column(name=field.name, type=str(field.type)) for field in stream.schema]
        batches = stream.batches()
        n_rows = 0
        for batch in batches:
            rows += _plain_rows(batch.slice(0, MOST_ROWS - len(rows)))
            n_rows += batch.num_rows
            if n_rows > MOST_ROWS:
                break
        seconds = time.monotonic() - began
        n_rows, counted = _count(batches, n_rows) if n_rows > MOST_ROWS else (n_rows, True)
    return Rows(
        columns=columns, rows=rows, more=n_rows > len(rows), n_rows=n_rows, counted=counted, seconds=round(seconds, 4)
    )


def _count(batches: Iterator[pa.RecordBatch], n_rows: int) -> tuple[int, bool]:
    """Count the rows that are left, for a while; return how many there are with those before, and whether it is all."""
    until = time.monotonic() + _COUNTING_S
    for batch in batches:
        n_rows += batch.num_rows
        if n_rows >= MOST_COUNTED or time.monotonic() > until:
            return n_rows, False
    return n_rows, True


def _plain_rows(batch: pa.RecordBatch) -> list[list[Any]]:
    columns = [column.to_pylist() for column in batch.columns]
    return [[_plain(value) for value in row] for row in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    """Return a value that JSON has, or its text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):  # sums of integers are
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value)


def _export(explorer: Explorer, asked: Export) -> File:
    # A file of its own first: what fails is told as an error, and not by a file that ends too early; and the
    # statement does not wait for a slow connection.
    content = tempfile.TemporaryFile()  # noqa: SIM115 - whoever sends it closes it
    try:
        with _beside_its_field(asked.query), explorer.statement_session(asked.query) as session:
            stream: Stream = session.stream(asked.query, settings=EXPORT)
            with stream:
                write_rows(stream, _Bounded(content), asked.form)
        size = content.tell() if asked.form not in BINARY else content.seek(0, 2)
        content.seek(0)
    except BaseException:
        content.close()
        raise
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", explorer.name).strip("-") or "lake"
    return File(f"{name}-rows.{asked.form}", _MEDIA_TYPES[asked.form], size, content)


class _Bounded:
    """A file that is refused where it gets too large."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content, self._size = content, 0

    def write(self, data: bytes) -> int:
        self._size += len(data)
        if self._size > MOST_BYTES:
            raise SqlError(
                f"the file would have more than {MOST_BYTES:,} bytes; ask for less, or write it with "
                "`proponent sql LAKE QUERY -o FILE`"
            )
        return self._content.write(data)

    def flush(self) -> None:
        self._content.flush()


PAGE = Page(
    name="sql",
    path="/sql",
    title="SQL",
    summary="The relations of the lake, and a statement with its rows, if it is to be run",
    nav="SQL",
    params=Editor,
    data=SqlView,
    load=_load,
    slow=lambda params: params.run,
    keeps=lambda explorer, params: None if params.run else explorer.state().settled,
    still=lambda params: msgspec.structs.replace(params, run=False),
    scripts=("sql.js",),
)

ACTIONS = (
    Action(
        name="run_sql",
        path="/sql",
        summary="Run one SELECT and return its first rows",
        fields=Statement,
        answer=SqlView,
        act=_act,
        page=PAGE,
        slow=lambda _fields: True,
        writes=False,
    ),
)

DOWNLOADS = (
    Download(
        name="export_sql",
        path="/sql/export",
        summary="All rows of one SELECT as a file",
        params=Export,
        make=_export,
        media_types=tuple(one.removesuffix(_TEXT) for one in _MEDIA_TYPES.values()),
        time_s=150.0,
    ),
)
