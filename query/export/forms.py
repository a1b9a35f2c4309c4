"""Rows as JSON, JSON Lines, CSV, Markdown, Parquet, Arrow and Excel files.

Notable: every writer takes batch after batch. A cell that a spreadsheet would run as a formula stays text.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import pyarrow as pa

from proponent.query.results import Stream
from proponent.schema.errors import InputError

from .excel import write_excel
from .files import whole

_AT_ONCE: Final = 4096
"""Rows that are Python's objects at one time."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - spreadsheets read the wide ones, too

Rows: TypeAlias = pa.Table | Stream
"""What can be written: all rows, or a stream of them."""


class Sink(Protocol):
    """Where bytes go: a file, a pipe, a terminal."""

    def write(self, data: bytes, /) -> int:
        """Take bytes."""

    def flush(self) -> None:
        """Hand them on."""


class _Writer(Protocol):
    def __call__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], sink: Sink) -> None: ...


def form_of(path: Path) -> str:
    """Return the form that a file's suffix names. Raises InputError when it names none."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} has no suffix that names a form; use one of {', '.join(SUFFIXES)}, or --format")
    return SUFFIXES[suffix]


def write_file(rows: Rows, path: Path, form: str) -> int:
    """Write rows into a file, which appears whole or not at all; return how many they are."""
    with whole(path) as partial, partial.open("wb") as sink:
        return write_rows(rows, sink, form)


def write_rows(rows: Rows, sink: Sink, form: str) -> int:
    """Write rows in one of FORMS; return how many they are.

    Raises InputError for what a form cannot hold, SqlError where a stream fails.
    """
    counted = _Counted(rows.to_batches() if isinstance(rows, pa.Table) else rows.batches())
    _WRITERS[form](rows.schema, counted, sink)
    return counted.n_rows


class _Counted:
    """Batches, and how many rows they had."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = iter(batches)
        self.n_rows = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        batch = next(self._batches)
        self.n_rows += batch.num_rows
        return batch


def _records(batches: Iterable[pa.RecordBatch]) -> Iterator[list[Any]]:
    """Yield the rows as lists of what JSON and text can say."""
    for batch in batches:
        for start in range(0, batch.num_rows, _AT_ONCE):
            columns = [_values(column) for column in batch.slice(start, _AT_ONCE).columns]
            yield from map(list, zip(*columns, strict=True))


def _values(column: pa.Array) -> list[Any]:
    values: list[Any] = column.to_pylist()
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return values
    return [plain(value) for value in values]


def plain(value: Any) -> Any:
    """Return a value with text for bytes and None for numbers that are none, which JSON does not have."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value


def _other(value: Any) -> Any:
    """Return what JSON says for a value that it has no type for: sums of integers are decimals, too."""
    if not isinstance(value, Decimal):
        return str(value)
    return int(value) if value == value.to_integral_value() else float(value)


_json_text: Final = json.JSONEncoder(default=_other, ensure_ascii=False).encode
_json_lines: Final = json.JSONEncoder(default=_other, ensure_ascii=False, indent=2).encode


def _write_json(schema: pa.Schema, batches: Iterator[pa.RecordBatch], sink: Sink) -> None:
    names = [_json_text(name) for name in schema.names]
    begin = "[\n  {"
    for record in _records(batches):
        # Python indents ten times as slowly as it writes on one line.
        values = (
            _json_lines(value).replace("\n", "\n    ") if isinstance(value, list | dict) else _json_text(value)
            for value in record
        )
        pairs = (f"\n    {name}: {value}" for name, value in zip(names, values, strict=True))
        sink.write(f"{begin}{','.join(pairs)}\n  }}".encode())
        begin = ",\n  {"
    sink.write(b"[]\n" if begin.startswith("[") else b"\n]\n")


def _write_jsonl(schema: pa.Schema, batches: Iterator[pa.RecordBatch], sink: Sink) -> None:
    for record in _records(batches):
        sink.write(f"{_json_text(dict(zip(schema.names, record, strict=True)))}\n".encode())


def _write_csv(schema: pa.Schema, batches: Iterator[pa.RecordBatch], sink: Sink) -> None:
    writer = csv.writer(_Lines(sink), lineterminator="\r\n")
    writer.writerow(map(_csv_cell, schema.names))
    writer.writerows(map(_csv_cell, record) for record in _records(batches))


class _Lines:
    """A file for the csv module, which puts a cell with a line break into quotes only if rows end in the same."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, row: str) -> int:
        return self._sink.write(f"{row[:-2]}\n".encode())


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = _json_text(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"  # spreadsheets would run it
    return value


def _write_markdown(schema: pa.Schema, batches: Iterator[pa.RecordBatch], sink: Sink) -> None:
    head = [f"| {' | '.join(map(_markdown_cell, schema.names))} |\n", f"|{' --- |' * len(schema.names)}\n"]
    rows = (f"| {' | '.join(map(_markdown_cell, record))} |\n" for record in _records(batches))
    for line in chain(head, rows):
        sink.write(line.encode())


def _markdown_cell(value: Any) -> str:
    text = " ".join(told(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def told(value: Any) -> str:
    """Return a value as people read it in a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        return str(plain(value))
    if isinstance(value, list):
        return ", ".join(told(part) for part in value)
    return str(value)


def _write_parquet(schema: pa.Schema, batches: Iterator[pa.RecordBatch], sink: Sink) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(_Counting(sink), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_arrow(schema: pa.Schema, batches: Iterator[pa.RecordBatch], sink: Sink) -> None:
    with pa.PythonFile(_Counting(sink), mode="w") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


class _Counting:
    """A sink that knows where it is, since pipes do not."""

    closed = False

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._place = 0

    def write(self, data: bytes) -> int:
        self._sink.write(data)
        self._place += len(data)
        return len(data)

    def tell(self) -> int:
        return self._place

    def flush(self) -> None:
        self._sink.flush()

    def close(self) -> None:
        self.flush()


def _write_excel(schema: pa.Schema, batches: Iterator[pa.RecordBatch], sink: Sink) -> None:
    write_excel(schema.names, _records(batches), sink)


_WRITERS: Final[dict[str, _Writer]] = {
    "json": _write_json,
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "md": _write_markdown,
    "parquet": _write_parquet,
    "arrow": _write_arrow,
    "xlsx": _write_excel,
}
FORMS: Final = tuple(_WRITERS)
BINARY: Final = ("parquet", "arrow", "xlsx")
"""Forms that are not for a terminal."""
SUFFIXES: Final = {f".{form}": form for form in FORMS}
