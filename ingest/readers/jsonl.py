"""JSON Lines: one JSON object a line, in UTF-8."""

import json
from collections.abc import Iterator
from typing import BinaryIO

from .lines import line_parts, lines
from .row import Opened, Part, RawRow, Reader, too_large


class JsonLines(Reader):
    """Reads `.jsonl` and `.ndjson` files; blank lines are no rows."""

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson")

    def rows(self, opened: Opened) -> Iterator[RawRow]:
        """Yield a row for every line that is not blank."""
        for number, data in lines(opened):
            raw = data.rstrip(b"\r\n")
            if len(raw) > opened.max_row_bytes:
                yield RawRow(number, raw, None, too_large(opened.max_row_bytes))
            elif raw.strip():
                yield _parse(number, raw)

    def parts(self, file: BinaryIO, n_bytes: int) -> Iterator[Part]:
        """Yield parts that end where lines end."""
        return line_parts(file, n_bytes)


def _parse(number: int, raw: bytes) -> RawRow:
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RawRow(number, raw, None, f"not UTF-8 at byte {error.start} of the line")
    except (ValueError, RecursionError) as error:  # ValueError also for integers of thousands of digits
        return RawRow(number, raw, None, f"not JSON: {error}")
    if not isinstance(value, dict):
        return RawRow(number, raw, None, f"a JSON {type(value).__name__}, not an object with named fields")
    return RawRow(number, raw, value)
