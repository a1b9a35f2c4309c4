"""Where in a statement something is wrong: what DuckDB points at, or a name that its message has."""

import re
import unicodedata
from typing import Final, NamedTuple

import duckdb

from proponent.schema.errors import SqlError

_POINTED: Final = re.compile(r"^LINE \d+: (?P<line>.*)\n(?P<pad> *)(?P<marks>\^+)\s*\Z", re.MULTILINE)
_NAMED: Final = re.compile(r"""(?:column |column named )"([^"]+)"|with name "?([^\s"!]+)"?|["'](\w+)\(""")
_CUT: Final = "..."


class Place(NamedTuple):
    """Characters of a statement, from the first to behind the last."""

    start: int
    end: int


def place_of(error: SqlError, statement: str) -> Place | None:
    """Return what of a statement an error is about, None where nobody can tell."""
    told = str(error.__cause__) if isinstance(error.__cause__, duckdb.Error) else str(error)
    return _pointed_at(told, statement) or _named(told, statement)


def _pointed_at(told: str, statement: str) -> Place | None:
    found = _POINTED.search(told)
    if found is None:
        return None
    # A long line is shown in part, and its number may count lines that DuckDB's package put before the statement.
    ahead = found.start("line") - found.start()
    line, at = found["line"], len(found["pad"]) - ahead
    if line.startswith(_CUT):
        line, at = line.removeprefix(_CUT), at - len(_CUT)
    begin = statement.find(line.removesuffix(_CUT).rstrip())
    if begin < 0 or at < 0:
        return None
    start = _characters(line, at)
    return _within(statement, begin + start, _characters(line, at + len(found["marks"])) - start)


def _characters(line: str, columns: int) -> int:
    """Return how many characters of a line stand in its first columns; some take two."""
    for index, character in enumerate(line):
        if columns <= 0:
            return index
        columns -= 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return len(line)


def _named(told: str, statement: str) -> Place | None:
    found = _NAMED.search(told)
    if found is None:
        return None
    name = found[1] or found[2] or found[3]
    data = statement.encode("utf-8", "replace")
    for byte, kind in duckdb.tokenize(data.decode()):
        start = len(data[:byte].decode("utf-8", "replace"))
        quoted = statement[start : start + 1] == '"'
        token = statement[start + quoted : start + quoted + len(name)]
        if kind == duckdb.token_type.identifier and token.lower() == name.lower():
            return _within(statement, start + quoted, len(name))
    return None


def _within(statement: str, start: int, length: int) -> Place | None:
    """Return a place if the statement has it; what is missing at its end is shown by its last character."""
    start = min(start, len(statement) - 1)
    return Place(start, min(start + length, len(statement))) if start >= 0 else None
