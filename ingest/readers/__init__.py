"""Corpus readers: one small class per file format, chosen by what a file is called and by what it begins with.

A reader turns an open file into `RawRow`s and judges nothing but whether a row can be read at all. Other packages add
readers by the entry point group `proponent.readers`.
"""

import lzma
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

import pyarrow as pa

from proponent.schema.errors import CorpusError, SettingsError
from proponent.schema.settings import ReadSettings

from .arrow import Arrow
from .delimited import Csv, Tsv
from .files import STDIN, CorpusFile, local_file, without_secrets
from .json_array import JsonArray
from .jsonl import JsonLines
from .parquet import Parquet
from .plain import PlainText
from .row import Opened, Part, RawRow, Reader, too_large
from .streams import bare_name, decompressed, peek
from .warc import Warc

__all__ = [
    "READERS",
    "Opened",
    "Part",
    "RawRow",
    "Reader",
    "all_readers",
    "find_reader",
    "is_known",
    "parts_of",
    "read_file",
]

READERS: Final[tuple[Reader, ...]] = (
    JsonLines(),
    JsonArray(),
    Csv(),
    Tsv(),
    Parquet(),
    Arrow(),
    PlainText(),
    Warc(),
)
GROUP: Final = "proponent.readers"
_DEFAULTS: Final = ReadSettings()
_KEPT_OF_LARGE: Final = 1 << 16
_FAILURES: Final = (OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError, pa.ArrowException)


@cache  # looking through all installed packages takes as long as reading a small file
def all_readers() -> tuple[Reader, ...]:
    """Return the readers of other packages, which may take over a suffix, and then those of proponent.

    Raises SettingsError for a reader that cannot be loaded, or whose name is taken.
    """
    readers = [*map(_load, sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))), *READERS]
    names = [reader.name for reader in readers]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"two readers are called {twice[0]!r}; uninstall the package that added one of them")
    return tuple(readers)


def _load(entry: object) -> Reader:
    try:
        reader = entry.load()()  # type: ignore[attr-defined]
    except Exception as error:  # whatever a package of somebody else raises
        raise SettingsError(f"the reader {entry!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(reader, Reader):
        raise SettingsError(f"the reader {entry!r} is no subclass of proponent.ingest.readers.Reader")
    return reader


def find_reader(name: str) -> Reader:
    """Return the reader that is called so. Raises SettingsError for an unknown name."""
    known = {reader.name: reader for reader in all_readers()}
    if name not in known:
        raise SettingsError(f"there is no reader {name!r}; the readers are {', '.join(known)}")
    return known[name]


def is_known(name: str) -> bool:
    """Return whether a file's name ends in a suffix that some reader reads."""
    return _by_suffix(name) is not None


def _by_suffix(name: str) -> Reader | None:
    bare = bare_name(name).lower()
    return next((reader for reader in all_readers() if bare.endswith(reader.suffixes)), None)


def read_file(
    file: CorpusFile | Path, settings: ReadSettings = _DEFAULTS, *, part: Part | None = None
) -> Iterator[RawRow]:
    """Yield the rows of a corpus file, or of one part of it.

    Raises CorpusError, which names file and place, when it cannot be read.
    """
    file = local_file(file) if isinstance(file, Path) else file
    row, limit = None, settings.max_row_bytes
    try:
        with _opened(file, settings) as source:
            for row in source.reader.rows(source.opened._replace(part=part)):
                yield row if row.size <= limit else _beginning(row, limit)
    except Exception as error:
        if not _is_damage(file, error):
            raise
        place = f" after row {row.row}" if row else ""
        raise CorpusError(f"{file.name} cannot be read{place}: {_reason(error)}") from error


def parts_of(file: CorpusFile, settings: ReadSettings, *, n_bytes: int) -> list[Part]:
    """Return the parts of about `n_bytes` in which a file can be read, or none for one that is read as a whole.

    Raises CorpusError when it cannot be read.
    """
    try:
        with _opened(file, settings) as source:
            # To find lines, all of a file is read, which for one that is far away takes too long.
            if not source.as_it_is or (file.is_remote and not source.reader.seeks):
                return []
            return list(source.reader.parts(source.opened.file, n_bytes))
    except Exception as error:
        if not _is_damage(file, error):
            raise
        raise CorpusError(f"{file.name} cannot be read: {_reason(error)}") from error


def _is_damage(file: CorpusFile, error: Exception) -> bool:
    """Whether an error tells of the file, and not of the code; every store has errors of its own."""
    return file.is_remote or isinstance(error, _FAILURES)


def _beginning(row: RawRow, limit: int) -> RawRow:
    return RawRow(row.row, row.kept[:_KEPT_OF_LARGE], None, row.error or too_large(limit))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and not error.strerror:
        return "it is not there"  # stores say no more than its name
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return without_secrets(str(told).splitlines()[0])


class _Source(NamedTuple):
    reader: Reader
    opened: Opened
    as_it_is: bool
    """Whether what is read is the file itself, in which one can move about."""


@contextmanager
def _opened(file: CorpusFile, settings: ReadSettings) -> Iterator[_Source]:
    with ExitStack() as stack:
        raw = stack.enter_context(file.open())
        data, was_compressed = decompressed(raw, file.name)
        longest = max(len(magic) for reader in all_readers() for magic in (b"", *reader.magic))
        head, data = peek(data, longest)
        reader = _choose(file, head, settings)
        as_it_is = not was_compressed and raw.seekable()
        if as_it_is:
            raw.seek(0)
            data = raw
        elif reader.seeks:
            copy = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(data, copy)
            copy.seek(0)
            data = cast("BinaryIO", copy)
        yield _Source(reader, Opened(data, bare_name(file.key), settings.max_row_bytes, settings.separator), as_it_is)


def _choose(file: CorpusFile, head: bytes, settings: ReadSettings) -> Reader:
    """Return the reader that was named, or that fits the file's name and beginning. Raises CorpusError for neither."""
    readers = all_readers()
    named = find_reader(settings.reader) if settings.reader else None
    chosen = named or _by_suffix(file.name)
    by_content = next((reader for reader in readers if reader.magic and head.startswith(reader.magic)), None)
    if chosen is None:
        if by_content is None:
            known = ", ".join(suffix for reader in readers for suffix in reader.suffixes)
            told = (
                "stdin has no name that tells its format"
                if file.name == STDIN
                else f"its name has no known suffix ({known})"
            )
            raise CorpusError(f"{told}; name its format with --reader")
        return by_content
    if chosen.magic and not head.startswith(chosen.magic):
        is_really = (
            f"begins like {by_content.name}" if by_content else "does not begin like one" if head else "is empty"
        )
        raise CorpusError(f"it is no {chosen.name} file: it {is_really}")
    if named is None and by_content is not None and not chosen.magic:
        raise CorpusError(f"its name says {chosen.name}, but it is {by_content.name}; rename it, or give --reader")
    return chosen
