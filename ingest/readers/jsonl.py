"""JSON Lines: one JSON object a line, in UTF-8."""

import json
from collections.abc import Iterator
from pathlib import Path

from proponent.schema.errors import CorpusError

from .row import RawRow

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class JsonLines:
    """Reads `.jsonl` and `.ndjson` files; blank lines are no rows."""

    suffixes = (".jsonl", ".ndjson")

    def rows(self, path: Path) -> Iterator[RawRow]:
        """Yield a row for every line that is not blank."""
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    raw = line.rstrip(b"\r\n").removeprefix(_BYTE_ORDER_MARK if number == 1 else b"")
                    if raw.strip():
                        yield _parse(number, raw)
        except OSError as error:
            raise CorpusError(f"{path} cannot be read: {error.strerror}") from error


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
