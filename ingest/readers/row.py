"""What a reader is, what it is given, and what it yields."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, BinaryIO, ClassVar, NamedTuple


class RawRow(NamedTuple):
    """A row as it was read: its fields, or why it has none."""

    row: int
    """Line or row of the file, from 1."""
    raw: bytes | None
    """The row's bytes; none where the format has no rows of bytes."""
    fields: dict[str, Any] | None
    error: str | None = None

    @property
    def size(self) -> int:
        """Its bytes, or the characters of its texts."""
        if self.raw is not None:
            return len(self.raw)
        return sum(len(value) for value in (self.fields or {}).values() if isinstance(value, str | bytes))

    @property
    def kept(self) -> bytes:
        """What is kept of the row when it is rejected: its bytes, or its fields as JSON."""
        if self.raw is not None:
            return self.raw
        return json.dumps(self.fields, default=str, ensure_ascii=False).encode("utf-8", "backslashreplace")


class Part(NamedTuple):
    """A part of a file that can be read by itself."""

    start: int
    """Where it begins, as the reader counts: a byte, a row group."""
    stop: int
    """Where the next one begins."""
    first_row: int
    """Number of its first row."""
    n_bytes: int


class Opened(NamedTuple):
    """A corpus file that is open: what a reader reads."""

    file: BinaryIO
    """Its bytes, decompressed, from the first one on."""
    name: str
    """Its name below the folder or pattern that was given: the id of a document that is a whole file."""
    max_row_bytes: int
    """Size of the largest row that is taken; a reader need not hold more of one in memory."""
    separator: str | None = None
    """Line between two documents of a text file."""
    part: Part | None = None
    """The part to read, one of those that the reader itself has named; by default all of the file."""


class Reader(ABC):
    """Reads one file format."""

    name: ClassVar[str]
    """What `--reader` calls it."""
    suffixes: ClassVar[tuple[str, ...]]
    """Ends of the names of files that it reads, in lower case, without those of compression."""
    magic: ClassVar[tuple[bytes, ...]] = ()
    """What its files begin with, one of these; none for formats of plain text."""
    seeks: ClassVar[bool] = False
    """Whether it needs a file in which it can move about, as Parquet does."""

    @abstractmethod
    def rows(self, opened: Opened) -> Iterator[RawRow]:
        """Yield the rows of a file in order.

        Raises CorpusError, ValueError or OSError, with the bare reason, when the file as a whole cannot be read.
        """

    def parts(self, file: BinaryIO, n_bytes: int) -> Iterator[Part]:
        """Yield, in order, the parts of about `n_bytes` that several processes can read.

        The file is not compressed. By default there are none, and a file is read from its beginning.
        """
        yield from ()


def too_large(limit: int) -> str:
    """Return the reason why a row of more bytes than the limit is not taken."""
    return f"the row is larger than {limit} bytes (--max-row-bytes)"
