"""Rows as an Excel workbook of one sheet, written row by row."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final

from proponent.schema.errors import InputError

MOST_ROWS: Final = 1_048_575
"""Rows of a sheet below its head."""
MOST_COLUMNS: Final = 16_384
MOST_CHARACTERS: Final = 32_767
"""UTF-16 units of a cell."""
_EXACT: Final = 1 << 53
"""Numbers are floats in Excel; larger integers are written as text."""


def write_excel(names: Sequence[str], records: Iterable[Sequence[Any]], sink: Any) -> None:
    """Write a sheet. Text is text whatever it begins with; what is longer than a cell ends in an ellipsis.

    Raises InputError for more rows or columns than a sheet has, and without XlsxWriter.
    """
    try:
        import xlsxwriter
    except ModuleNotFoundError as missing:
        raise InputError("Excel files need XlsxWriter; install it with: pip install 'proponent[excel]'") from missing
    if len(names) > MOST_COLUMNS:
        raise InputError(f"a sheet of Excel has {MOST_COLUMNS:,} columns, and these are {len(names):,}")
    # Rows go to a temporary file as they come; the workbook is put together at the end.
    with xlsxwriter.Workbook(sink, {"constant_memory": True}) as book:
        sheet = book.add_worksheet("rows")
        sheet.freeze_panes(1, 0)
        formats: dict[type[Any], Any] = {kind: book.add_format({"num_format": shown}) for kind, shown in _SHOWN.items()}
        for column, name in enumerate(names):
            sheet.write_string(0, column, _cut(name))
        for number, record in enumerate(records, start=1):
            if number > MOST_ROWS:
                raise InputError(f"a sheet of Excel has {MOST_ROWS:,} rows; write Parquet or CSV, or ask for fewer")
            for column, value in enumerate(record):
                _write_cell(sheet, number, column, value, formats)


_SHOWN: Final = {date: "yyyy-mm-dd", datetime: "yyyy-mm-dd hh:mm:ss"}
_FIRST_DAY: Final = date(1900, 3, 1)
"""Before it Excel counts a day that there was not."""


def _write_cell(sheet: Any, row: int, column: int, value: Any, formats: Mapping[type[Any], Any]) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    elif isinstance(value, float) or (isinstance(value, int | Decimal) and -_EXACT <= value <= _EXACT):
        sheet.write_number(row, column, value)
    elif isinstance(value, date) and _day(value) >= _FIRST_DAY:
        naive = value.replace(tzinfo=None) if isinstance(value, datetime) else value
        sheet.write_datetime(row, column, naive, formats[type(value)])
    else:
        sheet.write_string(row, column, _cut(_text(value)))


def _day(value: date | datetime) -> date:
    return value.date() if isinstance(value, datetime) else value


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(part) for part in value)
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)


def _cut(text: str) -> str:
    units = text.encode("utf-16-le", "replace")
    if len(units) <= 2 * MOST_CHARACTERS:
        return text
    return units[: 2 * (MOST_CHARACTERS - 1)].decode("utf-16-le", "ignore") + "…"
