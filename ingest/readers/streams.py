"""Bytes of corpus files: looked at before they are read, and decompressed by what they begin with."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from typing import BinaryIO, Final, NamedTuple, cast

import pyarrow as pa

from proponent.schema.errors import CorpusError


class _Compression(NamedTuple):
    name: str
    suffixes: tuple[str, ...]
    magic: bytes
    open: Callable[[BinaryIO], BinaryIO]


def _open_zstd(file: BinaryIO) -> BinaryIO:
    packed = pa.PythonFile(file, mode="r")
    return cast("BinaryIO", io.BufferedReader(pa.CompressedInputStream(packed, "zstd"), _BUFFER))


_COMPRESSIONS: Final = (
    _Compression("gzip", (".gz", ".gzip"), b"\x1f\x8b", lambda file: cast("BinaryIO", gzip.GzipFile(fileobj=file))),
    _Compression("zstd", (".zst", ".zstd"), b"\x28\xb5\x2f\xfd", _open_zstd),
    _Compression("bzip2", (".bz2",), b"BZh", lambda file: cast("BinaryIO", bz2.BZ2File(file))),
    _Compression("xz", (".xz",), b"\xfd7zXZ\x00", lambda file: cast("BinaryIO", lzma.LZMAFile(file))),  # noqa: SIM115
)
_LONGEST_MAGIC: Final = 6
_BUFFER: Final = 1 << 16


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        if self._ended:  # some streams of the network mind being asked again
            return 0
        try:
            data = self._head[: len(buffer)] or self._rest.read(len(buffer))
        except EOFError as error:  # which libraries that read this take for the end
            raise OSError(str(error)) from error
        self._head = self._head[len(data) :]
        self._ended = not data
        buffer[: len(data)] = data
        return len(data)


def peek(file: BinaryIO, size: int) -> tuple[bytes, BinaryIO]:
    """Return the first bytes of a stream, and a stream that still has them."""
    head = file.read(size)
    return head, cast("BinaryIO", io.BufferedReader(_Rejoined(head, file), _BUFFER))


def bare_name(name: str) -> str:
    """Return the name of a file without the suffix of a compression."""
    lowered = name.lower()
    for compression in _COMPRESSIONS:
        for suffix in compression.suffixes:
            if lowered.endswith(suffix):
                return name[: -len(suffix)]
    return name


def decompressed(file: BinaryIO, name: str) -> tuple[BinaryIO, bool]:
    """Return a file's bytes, decompressed if they are compressed, from the first one on, and whether they were.

    Raises CorpusError for a name that promises another compression.
    """
    head, whole = peek(file, _LONGEST_MAGIC)
    found = next((one for one in _COMPRESSIONS if head.startswith(one.magic)), None)
    promised = next((one for one in _COMPRESSIONS if name.lower().endswith(one.suffixes)), None)
    if promised is not None and found is not promised:
        is_really = f"compressed with {found.name}" if found else "not compressed" if head else "empty"
        raise CorpusError(f"its name says {promised.name}, but it is {is_really}; give it its right name")
    if found:
        return found.open(whole), True
    return whole, False
