"""Cutting a corpus's files into pieces, and the pieces into units of work.

Notable: the pieces depend on the files alone and never on the number of workers, so their order is that of the files'
rows, and a run that was cut short is known by its list of pieces.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa

from proponent.schema.errors import CorpusError, SettingsError
from proponent.schema.ids import content_id
from proponent.schema.settings import ReadSettings

from .readers import Part, parts_of
from .readers.files import CorpusFile, same_file

PIECE_BYTES: Final = 128 << 20
_PIECES_A_UNIT: Final = 4096
LIST: Final = pa.schema(
    [
        pa.field("location", pa.binary()),
        pa.field("name", pa.string()),
        pa.field("key", pa.string()),
        pa.field("n_bytes", pa.int64()),
        pa.field("part", pa.list_(pa.int64(), 4)),
    ]
)


class SeenFile(NamedTuple):
    """A file and what it looks like without being read."""

    file: CorpusFile
    n_bytes: int
    stamp: str | None


class Piece(NamedTuple):
    """A file, or a part of one, that one worker reads."""

    file: CorpusFile
    part: Part | None
    n_bytes: int
    """Its size, 0 where that is not known."""


def seen(files: Sequence[CorpusFile]) -> list[SeenFile]:
    """Look at every file without reading it. Raises CorpusError for one that cannot be looked at."""
    found = []
    for file in files:
        try:
            found.append(SeenFile(file, *file.facts()))
        except Exception as error:
            if not (file.is_remote or isinstance(error, OSError)):  # every store has errors of its own
                raise
            raise CorpusError(f"{file.name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return found


def pieces_of(files: Sequence[SeenFile], settings: ReadSettings) -> Iterator[Piece]:
    """Yield the pieces of a corpus in the order of its rows. Raises CorpusError for a file that cannot be read."""
    for file, n_bytes, _ in files:
        parts = parts_of(file, settings, n_bytes=PIECE_BYTES) if n_bytes > PIECE_BYTES else []
        if parts:
            yield from (Piece(file, part, part.n_bytes) for part in parts)
        else:
            yield Piece(file, None, n_bytes)


def units_of(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """Return the ranges of pieces that are one unit each: many small files, or one part of a large one."""
    works: list[dict[str, Any]] = []
    start = filled = 0
    for place, piece in enumerate(pieces):
        filled += piece.n_bytes or PIECE_BYTES
        if filled >= PIECE_BYTES or place - start + 1 >= _PIECES_A_UNIT or place == len(pieces) - 1:
            works.append({"ordinal": len(works), "start": start, "stop": place + 1})
            start, filled = place + 1, 0
    return works


def content_of(files: Sequence[SeenFile]) -> str | None:
    """Return an id that changes when one of the files does, or None where nobody can tell."""
    if any(one.file.location is None or one.stamp is None for one in files):
        return None
    return content_id("corpus files", *(part for one in files for part in (str(one.file.location), str(one.stamp))))


def to_list(pieces: Sequence[Piece]) -> pa.Table:
    """Return the pieces as the list that workers read."""
    rows = [
        {
            "location": None if piece.file.location is None else os.fsencode(piece.file.location),
            "name": piece.file.name,
            "key": piece.file.key,
            "n_bytes": piece.n_bytes,
            "part": piece.part and list(piece.part),
        }
        for piece in pieces
    ]
    return pa.Table.from_pylist(rows, LIST)


def from_list(listed: pa.Table) -> list[Piece]:
    """Return pieces of a list, to be opened in this process."""
    return [
        Piece(
            same_file(os.fsdecode(row["location"]), row["name"], row["key"]),
            row["part"] and Part(*row["part"]),
            row["n_bytes"],
        )
        for row in listed.to_pylist()
    ]


def require_sharable(files: Sequence[SeenFile]) -> None:
    """Raise SettingsError for a file that only this process may open."""
    alone = next((one.file.name for one in files if one.file.location is None), None)
    if alone is not None:
        raise SettingsError(
            f"{alone} was given with a password or a signature, which is not written down for workers; "
            "leave out --workers"
        )
