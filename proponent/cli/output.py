"""Printing rows in every form that the commands offer."""

import csv
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from proponent.schema.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_SUFFIXES: Final = {".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet", ".md": "md"}
_CELL_CHARACTERS = 400


def emit(table: "pa.Table", *, form: str | None, output: Path | None) -> None:
    """Print rows to stdout or into a file, which appears whole or not at all.

    Raises InputError for a file whose suffix says nothing, and for Parquet on a terminal.
    """
    form = form or _form_of(output)
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise InputError("Parquet is not for a terminal; name a file with -o")
    if form == "table" and output is None:
        _print_table(table)
        return
    data = render(table, form)
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    else:
        write_whole(output, data)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name and move it into place."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _form_of(output: Path | None) -> str:
    if output is None:
        return "table"
    if output.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{output} has no suffix that names a form; use one of {', '.join(_SUFFIXES)}, or --format")
    return _SUFFIXES[output.suffix.lower()]


def render(table: "pa.Table", form: str) -> bytes:
    """Return rows as json, jsonl, csv, md or parquet data, or as a plain text table."""
    if form == "parquet":
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(table, sink)
        return sink.getvalue()
    rows = [{name: _decoded(value) for name, value in row.items()} for row in table.to_pylist()]
    if form == "json":
        text = json.dumps(rows, default=str, ensure_ascii=False, indent=2) + "\n"
    elif form == "jsonl":
        text = "".join(json.dumps(row, default=str, ensure_ascii=False) + "\n" for row in rows)
    elif form == "csv":
        text = _csv(table.column_names, rows)
    elif form == "md":
        text = _markdown(table.column_names, rows)
    else:
        text = _plain_table(table)
    return text.encode("utf-8", "replace")


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _csv(columns: list[str], rows: Sequence[Mapping[str, Any]]) -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_csv_cell(value) for value in row.values()] for row in rows)
    return sink.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"  # spreadsheets would run it as a formula
    return value


def _markdown(columns: list[str], rows: Sequence[Mapping[str, Any]]) -> str:
    def cell(value: Any) -> str:
        text = " ".join(_text(value).split())
        return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")

    lines = [f"| {' | '.join(map(cell, columns))} |", f"|{' --- |' * len(columns)}"]
    lines += [f"| {' | '.join(cell(value) for value in row.values())} |" for row in rows]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        return str(_decoded(value))
    if isinstance(value, list):
        return ", ".join(_text(part) for part in value)
    return str(value)


def _print_table(table: "pa.Table") -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else 160
    Console(width=width, soft_wrap=False).print(_rich_table(table))


def _plain_table(table: "pa.Table") -> str:
    from rich.console import Console

    sink = io.StringIO()
    Console(file=sink, width=160).print(_rich_table(table))
    return sink.getvalue()


def _rich_table(table: "pa.Table") -> Any:
    from pyarrow import types
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for field in table.schema:
        number = types.is_integer(field.type) or types.is_floating(field.type)
        shown.add_column(Text(field.name), justify="right" if number else "left", overflow="fold")
    for row in table.to_pylist():
        shown.add_row(*(Text(_shortened(_text(value))) for value in row.values()))
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
