"""What a SQL shell does with what is typed or piped into it: statements, and commands that begin with a point.

Notable: where a statement ends is decided by DuckDB's own tokenizer, so that a `;` in a string or comment is none.
"""

import difflib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import click

from proponent.query.examples import examples_text
from proponent.schema.errors import InputError, NotFoundError, ProponentError, SqlError

from .options import writable
from .output import emit, fits, print_lines, print_table, remark

if TYPE_CHECKING:
    import pyarrow as pa

    from proponent.query.results import Stream

MODES: Final = ("table", "json", "jsonl", "csv", "md", "line")
SHOWN_ROWS: Final = 1000
"""Rows that a terminal shows as a table or as lines."""
HELP: Final = {
    ".tables": "list the relations",
    ".schema [RELATION]": "list columns with their types and what they mean",
    ".examples": "show queries to start from",
    ".mode [FORM]": f"show results as {', '.join(MODES)}",
    ".output FILE": "write the next result into a file; its suffix names the form",
    ".timer on|off": "say how long statements take",
    ".help": "show this",
    ".quit": "leave; so does Ctrl-D",
}
_TABLES: Final = """
SELECT view_name AS relation, comment FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal
UNION ALL
SELECT table_name, comment FROM duckdb_tables() WHERE schema_name = 'main' AND NOT internal
ORDER BY relation
"""
_SCHEMA: Final = """
SELECT table_name AS relation, column_name AS "column", data_type AS type, comment
FROM duckdb_columns()
WHERE schema_name = 'main' AND NOT internal AND ($relation IS NULL OR table_name = $relation)
ORDER BY relation, column_index
"""


class Ask(Protocol):
    """What runs a SELECT, `Lake.stream` for one."""

    def __call__(self, query: str, parameters: Mapping[str, Any] | None = None) -> "Stream":
        """Run a SELECT."""


class Statement(NamedTuple):
    """A statement, and the line of the text that it begins in."""

    text: str
    line: int


def split(text: str) -> tuple[list[Statement], str]:
    """Return the statements that a `;` ends, and the text after the last of them."""
    import duckdb

    data = text.encode("utf-8", "replace")
    found, begin, first = [], 0, None
    for place, kind in duckdb.tokenize(data.decode()):
        if data[place : place + 1] == b";" and kind == duckdb.token_type.operator:
            if first is not None:
                line = data.count(b"\n", 0, first) + 1
                found.append(Statement(data[begin:place].decode().strip(), line))
            begin, first = place + 1, None
        elif first is None and kind != duckdb.token_type.comment:
            first = place
    return found, data[begin:].decode()


def is_blank(text: str) -> bool:
    """Return whether a text has nothing but space and comments."""
    import duckdb

    data = text.encode("utf-8", "replace").decode()
    return all(kind == duckdb.token_type.comment for _, kind in duckdb.tokenize(data))


def is_complete(text: str) -> bool:
    """Return whether a text can run: a command, or statements of which the last has its `;`."""
    return text.lstrip().startswith(".") or is_blank(split(text)[1])


class Leave(Exception):  # noqa: N818 - nothing is wrong
    """Somebody asked to leave."""


class Shell:
    """Runs statements and commands, and keeps what was chosen for the output."""

    def __init__(self, ask: Ask, *, mode: str = "table", terminal: bool = False) -> None:
        self._ask = ask
        self._terminal = terminal
        self._mode = mode
        self._timer = False
        self._output: Path | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            ".tables": lambda _: self._listed(".tables"),
            ".schema": lambda relation: self._listed(f".schema {relation}"),
            ".examples": lambda _: click.echo(examples_text()),
            ".mode": self._choose_mode,
            ".output": self._choose_output,
            ".timer": self._choose_timer,
            ".help": self._help,
            ".quit": self._leave,
            ".exit": self._leave,
        }

    def run(self, text: str) -> None:
        """Run a command, or one statement after the other up to the first that fails.

        Raises ProponentError for what fails, Leave after `.quit`.
        """
        if text.lstrip().startswith("."):
            self.command(text)
            return
        statements, rest = split(text)
        for statement in [one.text for one in statements] + ([] if is_blank(rest) else [rest]):
            self._statement(statement)

    def run_script(self, lines: Iterable[str]) -> None:
        """Run what a file or a pipe says; the first error ends it, with the number of its line."""
        pending, first = "", 1
        for number, line in enumerate(lines, start=1):
            if line.lstrip().startswith(".") and is_blank(pending):
                pending = ""
                self._numbered(number, self.command, line)
                continue
            if not pending:
                first = number
            pending += line
            if ";" in line:
                statements, rest = split(pending)
                self._run_numbered(statements, first)
                if statements:
                    pending, first = rest.lstrip(), number
        if not is_blank(pending):  # the last `;` is often left out
            self._run_numbered(split(f"{pending}\n;")[0] or [Statement(pending, 1)], first)

    def _run_numbered(self, statements: Iterable[Statement], first: int) -> None:
        for statement in statements:
            self._numbered(first + statement.line - 1, self._statement, statement.text)

    @staticmethod
    def _numbered(line: int, run: Callable[[str], None], text: str) -> None:
        try:
            run(text)
        except ProponentError as error:
            raise SqlError(f"line {line}: {error}") from error

    def command(self, text: str) -> None:
        """Run a command that begins with a point."""
        name, _, argument = text.strip().rstrip(";").partition(" ")
        if name not in self._commands:
            near = difflib.get_close_matches(name, self._commands, n=1)
            raise InputError(f"no command {name!r}; {f'{near[0]} or ' if near else ''}.help")
        self._commands[name](argument.strip())

    def _statement(self, text: str) -> None:
        began = time.perf_counter()
        with self._ask(text) as rows:
            self._show(rows)
        if self._timer:
            remark(f"{time.perf_counter() - began:.3f} s", quiet=False)

    def _show(self, rows: "Stream") -> None:
        if self._output is not None:
            output, self._output = self._output, None
            emit(rows, form=None, output=output)
            remark(f"wrote {output}", quiet=False)
        elif self._mode not in ("table", "line"):
            emit(rows, form=self._mode, output=None)
        else:
            shown, more = _first(rows, SHOWN_ROWS if self._terminal else None)
            lines = self._mode == "line" or (self._terminal and not fits(shown))
            (print_lines if lines else print_table)(shown)
            if self._terminal and not shown.num_rows:
                remark("no rows", quiet=False)
            if more:
                remark(f"the first {SHOWN_ROWS:,} rows; .output FILE writes all of the next result", quiet=False)

    def _listed(self, command: str) -> None:
        with listing(command, self._ask) as rows:
            self._show(rows)

    def _choose_mode(self, name: str) -> None:
        if not name:
            click.echo(self._mode)
        elif name in MODES:
            self._mode = name
        else:
            raise InputError(f"no mode {name!r}; there are {', '.join(MODES)}")

    def _choose_output(self, name: str) -> None:
        if not name:
            raise InputError("name the file: .output rows.csv")
        from proponent.query.export.forms import form_of

        output = writable(Path(name))
        form_of(output)
        self._output = output

    def _choose_timer(self, switch: str) -> None:
        if switch not in ("on", "off"):
            raise InputError(".timer is on or off")
        self._timer = switch == "on"

    @staticmethod
    def _help(_argument: str) -> None:
        click.echo("SQL ends with a semicolon, after as many lines as it needs. Ctrl-C stops a query. Commands:")
        for command, does in HELP.items():
            click.echo(f"  {command:<20} {does}")

    @staticmethod
    def _leave(_argument: str) -> None:
        raise Leave


def listing(command: str, ask: Ask) -> "Stream":
    """Return the rows of `.tables`, or of `.schema` with or without a relation, whose name has to be right."""
    name, _, relation = command.strip().rstrip(";").partition(" ")
    if name == ".tables":
        return ask(_TABLES)
    if name != ".schema":
        raise InputError(f"{name} is for the shell; .tables, .schema and .examples are possible here")
    relation = relation.strip().lower()
    if relation:
        with ask(_TABLES) as rows:
            names = [row.relation for row in rows]
        if relation not in names:
            near = difflib.get_close_matches(relation, names, n=1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise NotFoundError(f"no relation {relation!r}; {meant}.tables lists them")
    return ask(_SCHEMA, {"relation": relation or None})


def _first(rows: "Stream", most: int | None) -> tuple["pa.Table", bool]:
    """Return at most so many rows, and whether there are more."""
    import pyarrow as pa

    batches, n_rows = [], 0
    for batch in rows.batches():
        batches.append(batch)
        n_rows += batch.num_rows
        if most is not None and n_rows > most:
            break
    table = pa.Table.from_batches(batches, rows.schema)
    return table.slice(0, most), most is not None and n_rows > most
