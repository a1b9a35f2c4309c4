"""Lines of text files, of which none takes more memory than a row may."""

from collections.abc import Iterator
from typing import NamedTuple

from proponent.schema.errors import CorpusError

from .row import Opened

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SKIPPED_AT_ONCE = 1 << 16


class Line(NamedTuple):
    """A line with its end, as bytes."""

    number: int
    """From 1."""
    data: bytes
    """The line; of one that is too long, the beginning, which is longer than the limit."""


def lines(opened: Opened) -> Iterator[Line]:
    """Yield the lines of a file, without a byte order mark. Raises CorpusError for UTF-16."""
    number, longest = 0, opened.max_row_bytes + 2  # the line's end, \r\n, is no part of a row
    while data := opened.file.readline(longest):
        number += 1
        if len(data) == longest and not data.endswith(b"\n"):
            _skip_line(opened)
        if number == 1:
            if data.startswith(_UTF16_MARKS):
                raise CorpusError("it is UTF-16; convert it to UTF-8")
            data = data.removeprefix(_BYTE_ORDER_MARK)
        yield Line(number, data)


def _skip_line(opened: Opened) -> None:
    while rest := opened.file.readline(_SKIPPED_AT_ONCE):
        if rest.endswith(b"\n"):
            return
