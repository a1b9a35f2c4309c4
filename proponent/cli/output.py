"""Printing rows in every form that the commands offer."""

import io
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proponent.schema.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from proponent.query.export.forms import Rows

_CELL_CHARACTERS = 400
_LEAST_WIDTH = 8


def emit(rows: "Rows", *, form: str | None, output: Path | None) -> None:
    """Print rows to stdout or into a file, which appears whole or not at all.

    Raises InputError for a file whose suffix says nothing, and for a form of bytes on a terminal.
    """
    from proponent.query.export.forms import BINARY, form_of, write_file, write_rows

    form = form or ("table" if output is None else form_of(output))
    if form in BINARY and output is None and sys.stdout.isatty():
        raise InputError(f"{form} is not for a terminal; name a file with -o")
    if form == "table":
        _emit_table(_all(rows), output)
    elif output is None:
        write_rows(rows, _Terminal() if sys.stdout.isatty() else sys.stdout.buffer, form)
        sys.stdout.flush()
    else:
        write_file(rows, output, form)


class _Terminal:
    """Takes text for a terminal, without characters that could steer it."""

    def write(self, data: bytes) -> int:
        sys.stdout.write(printable(data.decode()))
        return len(data)

    def flush(self) -> None:
        sys.stdout.flush()


def _all(rows: "Rows") -> "pa.Table":
    import pyarrow as pa

    return rows if isinstance(rows, pa.Table) else pa.Table.from_batches(rows.batches(), rows.schema)


def _emit_table(table: "pa.Table", output: Path | None) -> None:
    from proponent.query.export.files import whole

    if output is None:
        print_table(table)
        return
    with whole(output) as partial:
        partial.write_text(plain_table(table), "utf-8")


def print_table(table: "pa.Table") -> None:
    """Print rows as a table, as wide as the terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 160
    Console(width=width, soft_wrap=False).print(_rich_table(table))


def fits(table: "pa.Table") -> bool:
    """Return whether every column of a table would have a few characters of the terminal."""
    return shutil.get_terminal_size().columns >= _LEAST_WIDTH * len(table.column_names)


def print_lines(table: "pa.Table") -> None:
    """Print every value on a line of its own behind its column's name."""
    from proponent.query.export.forms import told

    width = max((len(name) for name in table.column_names), default=0)
    for number, row in enumerate(table.to_pylist(), start=1):
        lines = [f"{name:>{width}} = {told(value)}" for name, value in row.items()]
        click.echo(printable("\n".join([*([""] if number > 1 else []), *lines])))


def plain_table(table: "pa.Table") -> str:
    """Return rows as a table of text."""
    from rich.console import Console

    sink = io.StringIO()
    Console(file=sink, width=160).print(_rich_table(table))
    return sink.getvalue()


def _rich_table(table: "pa.Table") -> Any:
    from pyarrow import types
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from proponent.query.export.forms import told

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for field in table.schema:
        number = types.is_integer(field.type) or types.is_floating(field.type)
        shown.add_column(Text(field.name), justify="right" if number else "left", overflow="fold")
    for row in table.to_pylist():
        shown.add_row(*(Text(_shortened(told(value))) for value in row.values()))
    return shown


def printable(text: str) -> str:
    """Return a text without control characters, which could steer the terminal."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text)


def _shortened(text: str) -> str:
    clean = printable(text)
    return clean if len(clean) <= _CELL_CHARACTERS else clean[: _CELL_CHARACTERS - 1] + "…"


def told_fidelity(fidelity: Mapping[str, Any] | None) -> str:
    """Return in words how well stored codes keep the order of scores."""
    if fidelity is None:
        return "fidelity not measured"
    return (
        f"{fidelity['codes']} codes keep {fidelity['top10_overlap']:.1%} of the ten best, rank correlation "
        f"{fidelity['rank_correlation']:.4f} (sample of {fidelity['sample']}, against {fidelity['against']})"
    )


def told_index(index: Mapping[str, Any]) -> str:
    """Return in words what was measured of an index."""
    recalls = ", ".join(
        f"{one['method']} ({one['curvature']}) {min(one['proponents'], one['opponents']):.1%} of {one['k']}"
        for one in index["measured"]
    )
    return (
        f"{index['kind']}, {index['rows']:,} texts, {index['bytes']:,} bytes; the worse side's recall: {recalls} "
        f"({index['queries']} {index['measured_with']})"
    )


def remark(text: str, *, quiet: bool) -> None:
    """Say something to the person at the terminal, on stderr."""
    if not quiet:
        click.echo(text, err=True)
