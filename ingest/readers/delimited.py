"""CSV and TSV: the first line names the fields; quoted fields may hold line ends.

Notable: an empty cell is a field that is not there, since these formats cannot tell it from an empty text.
"""

import csv
from collections.abc import Iterator

from proponent.schema.errors import CorpusError

from .lines import lines
from .row import Opened, RawRow, Reader, too_large

_ANY_FIELD = 2**31 - 1


class _TooLongError(Exception):
    """A row that goes on for more bytes than a row may have."""


class _Lines:
    """The lines of a file for `csv.reader`, which takes as many as a row has."""

    def __init__(self, opened: Opened) -> None:
        self._lines = lines(opened)
        self._limit = opened.max_row_bytes
        self.begin()

    def begin(self) -> None:
        """Forget the lines of the row before."""
        self._taken: list[bytes] = []
        self._size = 0
        self.number = 0

    @property
    def raw(self) -> bytes:
        """The row's bytes without its line end."""
        return b"".join(self._taken).rstrip(b"\r\n")

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        number, data = next(self._lines)
        self.number = self.number or number
        self._taken.append(data)
        self._size += len(data)
        if self._size - 2 > self._limit:  # its line end is no part of the row
            raise _TooLongError
        return data.decode("utf-8", "surrogateescape")  # a field that is not UTF-8 is found when its row is whole


class Csv(Reader):
    """Reads `.csv` files with commas, quoted as spreadsheets do."""

    name = "csv"
    suffixes = (".csv",)
    delimiter = ","

    def rows(self, opened: Opened) -> Iterator[RawRow]:
        """Yield a row for every row after the first, numbered by the line on which it begins."""
        csv.field_size_limit(_ANY_FIELD)  # of the whole process; the limit that counts is the row's
        source = _Lines(opened)
        cells = csv.reader(source, delimiter=self.delimiter, strict=True)
        try:
            names = next(cells, None)
        except (csv.Error, _TooLongError) as error:
            raise CorpusError(f"its first line names no fields: {error or 'it is too long'}") from error
        if names is None:
            return
        self._require_names(names)
        while True:
            source.begin()
            try:
                values = next(cells)
            except StopIteration:
                return
            except csv.Error as error:
                yield RawRow(source.number, source.raw, None, f"not {self.name.upper()}: {error}")
            except _TooLongError:
                reason = f"{too_large(opened.max_row_bytes)}; is a quote not closed?"
                yield RawRow(source.number, source.raw, None, reason)
            else:
                if values:
                    yield _row(source, names, values)

    def _require_names(self, names: list[str]) -> None:
        if any(_is_escaped(name) for name in names):
            raise CorpusError("its first line is not UTF-8")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise CorpusError(f"its first line names {', '.join(map(repr, twice))} more than once")
        if len(names) == 1 and any(other in names[0] for other in ",;\t|"):
            told = "tabs" if self.delimiter == "\t" else "commas"
            raise CorpusError(f"its first line has no {told} between the names: {names[0][:80]!r}")


class Tsv(Csv):
    """Reads `.tsv` files: tabs instead of commas, the same quotes."""

    name = "tsv"
    suffixes = (".tsv",)
    delimiter = "\t"


def _row(source: _Lines, names: list[str], values: list[str]) -> RawRow:
    if len(values) != len(names):
        reason = f"{len(values)} fields, but the first line names {len(names)}"
        return RawRow(source.number, source.raw, None, reason)
    if any(_is_escaped(value) for value in values):
        return RawRow(source.number, source.raw, None, "not UTF-8")
    return RawRow(source.number, source.raw, {name: value or None for name, value in zip(names, values, strict=True)})


def _is_escaped(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
