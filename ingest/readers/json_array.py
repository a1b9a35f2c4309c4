"""JSON files that hold one array of objects, read object by object, so that memory does not grow with the file."""

import json
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain
from typing import Any

import ijson

from proponent.schema.errors import CorpusError

from .row import Opened, RawRow, Reader, too_large
from .streams import peek

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STARTS, _ENDS = ("start_map", "start_array"), ("end_map", "end_array")

Event = tuple[str, Any]


class JsonArray(Reader):
    """Reads `.json` files: an array of objects, or an object in which one member is such an array."""

    name = "json"
    suffixes = (".json",)

    def rows(self, opened: Opened) -> Iterator[RawRow]:
        """Yield a row for every element of the array, numbered from 1."""
        head, file = peek(opened.file, len(_BYTE_ORDER_MARK))
        if not head:
            return
        if head == _BYTE_ORDER_MARK:
            file.read(len(head))
        found = None
        try:
            for found in _rows(iter(ijson.basic_parse(file)), opened.max_row_bytes):
                yield found
        except ijson.JSONError as error:
            hint = (
                ""
                if found and not head.startswith(b"{")
                else "; one object a line is JSON Lines: name the file .jsonl, or give --reader jsonl"
            )
            raise CorpusError(f"not JSON: {_first_line(error)}{hint}") from error


def _first_line(error: Exception) -> str:
    told = error.args[0] if error.args else ""
    text = told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
    return (text.splitlines() or ["cut short"])[0]


def _rows(events: Iterator[Event], limit: int) -> Iterator[RawRow]:
    kind, value = next(events)
    if kind == "start_array":
        yield from _elements(events, limit)
    elif kind == "start_map":
        yield from _only_array(events, limit)
    else:
        raise CorpusError(f"a JSON {type(value).__name__}, not an array of objects")
    deque(events, maxlen=0)  # what follows the value is an error, which the parser raises only when asked for it


def _only_array(events: Iterator[Event], limit: int) -> Iterator[RawRow]:
    """Yield the elements of the one array of objects among the members of an object."""
    found: list[str] = []
    for kind, name in events:
        if kind == "end_map":
            break
        first = next(events)
        if first[0] != "start_array":
            _skip(first, events)
            continue
        element = next(events)
        if element[0] in ("start_map", "end_array"):
            found.append(str(name))
            if len(found) > 1:
                raise CorpusError(
                    f"an object with several arrays, {' and '.join(map(repr, found))}: which are the rows?"
                )
            yield from _elements(chain([element], events), limit)
        else:
            _skip(element, chain([element], events), depth=1)
    if not found:
        deque(events, maxlen=0)  # another object after this one is told as such
        raise CorpusError("an object that holds no array of objects")


def _skip(first: Event, events: Iterator[Event], *, depth: int = 0) -> None:
    """Pass over a value of which the first event was taken, or over the rest of an array."""
    if depth == 0 and first[0] not in _STARTS:
        return
    depth = depth or 1
    for kind, _ in events:
        depth += (kind in _STARTS) - (kind in _ENDS)
        if depth == 0:
            return


def _elements(events: Iterator[Event], limit: int) -> Iterator[RawRow]:
    for number, first in enumerate(events, start=1):
        if first[0] == "end_array":
            return
        value, size = _value(first, events, limit)
        if size > limit:
            yield RawRow(number, b"", None, too_large(limit))
        else:
            yield _row(number, value)


def _value(first: Event, events: Iterator[Event], limit: int) -> tuple[Any, int]:
    """Return a value and about how many bytes it has; what is larger than the limit is not kept."""
    builder, depth, size = ijson.ObjectBuilder(), 0, 0
    for kind, value in chain([first], events):
        size += len(value) if isinstance(value, str) else 8
        if size <= limit:
            builder.event(kind, float(value) if isinstance(value, Decimal) else value)
        depth += (kind in _STARTS) - (kind in _ENDS)
        if depth == 0:
            break
    return (builder.value if size <= limit else None), size


def _row(number: int, value: Any) -> RawRow:
    try:
        raw = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
    except (RecursionError, ValueError) as error:  # ValueError for integers of thousands of digits
        return RawRow(number, b"", None, f"not usable as JSON: {error}")
    if not isinstance(value, dict):
        return RawRow(number, raw, None, f"a JSON {type(value).__name__}, not an object with named fields")
    return RawRow(number, raw, value)
