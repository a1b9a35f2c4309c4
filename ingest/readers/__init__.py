"""Corpus readers: one small class per file format, chosen by the file's suffix.

A reader turns a file into `RawRow`s and judges nothing but whether a row can be read at all. To add one, write a class
with `suffixes` and `rows`, and put an instance into `READERS`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from proponent.schema.errors import CorpusError

from .jsonl import JsonLines
from .parquet import Parquet
from .row import RawRow

__all__ = ["READERS", "RawRow", "Reader", "read_file"]


class Reader(Protocol):
    """Reads one file format."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the names of files that it reads, in lower case."""

    def rows(self, path: Path) -> Iterator[RawRow]:
        """Yield the rows of a file in order. Raises CorpusError when the file as a whole cannot be read."""


READERS: Final[tuple[Reader, ...]] = (JsonLines(), Parquet())


def read_file(path: Path) -> Iterator[RawRow]:
    """Yield the rows of a corpus file. Raises CorpusError for a missing file or an unknown format."""
    if not path.is_file():
        raise CorpusError(f"{path} {'is a folder; name the files in it' if path.is_dir() else 'does not exist'}")
    for reader in READERS:
        if path.name.lower().endswith(reader.suffixes):
            return reader.rows(path)
    known = ", ".join(suffix for reader in READERS for suffix in reader.suffixes)
    raise CorpusError(f"{path} has no known suffix; rename it to one of {known}")
