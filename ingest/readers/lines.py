"""Lines of text files, of which none takes more memory than a row may."""

from collections.abc import Iterator
from typing import BinaryIO

from proponent.schema.errors import CorpusError

from .row import Opened, Part

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_READ_AT_ONCE = 1 << 18
_SKIPPED_AT_ONCE = 1 << 16


def lines(opened: Opened) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file, or of a part, with their numbers from 1, without a byte order mark.

    A line has its end; of one that is too long it is the beginning, which is longer than the limit. Raises CorpusError
    for UTF-16.
    """
    number, left, longest = 0, None, opened.max_row_bytes + 2  # the line's end, \r\n, is no part of a row
    if opened.part:
        opened.file.seek(opened.part.start)
        number, left = opened.part.first_row - 1, opened.part.n_bytes
    while (left is None or left > 0) and (data := opened.file.readline(longest)):
        number += 1
        n_bytes = len(data)
        if n_bytes == longest and not data.endswith(b"\n"):
            n_bytes += _skip_line(opened.file)
        if number == 1:
            if data.startswith(_UTF16_MARKS):
                raise CorpusError("it is UTF-16; convert it to UTF-8")
            data = data.removeprefix(_BYTE_ORDER_MARK)
        left = None if left is None else left - n_bytes
        yield number, data


def line_parts(file: BinaryIO, n_bytes: int) -> Iterator[Part]:
    """Yield parts of a file that end where lines end."""
    start, row = 0, 1
    while True:
        size, n_lines = _read_lines(file, n_bytes)
        if not size:
            return
        yield Part(start, start + size, row, size)
        start, row = start + size, row + n_lines


def _read_lines(file: BinaryIO, n_bytes: int) -> tuple[int, int]:
    """Read on for so many bytes, and to the end of the line; return how many bytes and lines that is."""
    size = n_lines = 0
    data = b""
    # Little at a time: memory that is new to the process costs more than the reading.
    while size < n_bytes and (data := file.read(min(_READ_AT_ONCE, n_bytes - size))):
        size, n_lines = size + len(data), n_lines + data.count(b"\n")
    if size and not data.endswith(b"\n"):
        size, n_lines = size + _skip_line(file), n_lines + 1
    return size, n_lines


def _skip_line(file: BinaryIO) -> int:
    """Read on to the end of the line; return how many bytes that is."""
    skipped = 0
    while rest := file.readline(_SKIPPED_AT_ONCE):
        skipped += len(rest)
        if rest.endswith(b"\n"):
            break
    return skipped
