"""From a corpus's rows to documents, or to the reasons why they are none.

Notable: rows are taken many at a time, column by column. What is said of a row is the same in any company.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from proponent.schema.ids import content_ids, document_ids
from proponent.schema.selectors import steps
from proponent.schema.settings import FieldMapping, IngestSettings

from .dates import Published, parse_date

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "null": None, "": None}
_METADATA = json.JSONEncoder(
    default=str,
    ensure_ascii=False,
    sort_keys=True,
    allow_nan=False,
    check_circular=False,  # rows that were read hold no circles; nesting that is too deep is found all the same
)
_json = json.encoder.encode_basestring_ascii
_encode = msgspec.json.Encoder().encode
_TEXTS: Final = ("source", "title", "url", "author", "language", "license")
_NAMED: Final = ", ".join(f'"{name}": %s' for name in sorted(_TEXTS))
_MARKS: Final = {None: "", True: ", true", False: ", false"}
_NO_DATE: Final = parse_date(None)


class RejectedRowError(ValueError):
    """Why a row cannot become a document. Never leaves the ingest run, which writes it to `rejects`."""


@dataclass(frozen=True)
class Documents:
    """Documents before they are cut into passages, column by column."""

    columns: dict[str, list[Any]]
    """Columns of table `documents`, but for those that say how it came in and how it was cut."""
    texts: list[str]
    entities: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, places: Sequence[int]) -> "Documents":
        """Return some of the documents."""
        columns = {name: [column[place] for place in places] for name, column in self.columns.items()}
        return Documents(columns, [self.texts[place] for place in places], [self.entities[place] for place in places])


class Mapped(NamedTuple):
    """What rows are."""

    documents: Documents
    rows: list[int]
    """Which row each document is, from 0."""
    reasons: dict[int, str]
    """Why the other rows are none."""


def documents_of(rows: Sequence[Mapping[str, Any]], settings: IngestSettings, rule: str) -> Mapped:
    """Make documents of rows; `rule` says how they will be cut, which is part of their content hash."""
    return _Rows(rows, settings).mapped(rule)


class _Rows:
    """Rows that are becoming documents."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], settings: IngestSettings) -> None:
        self._rows = rows
        self._settings = settings
        self._mapping = settings.fields
        self._reasons: dict[int, str] = {}

    def mapped(self, rule: str) -> Mapped:
        mapping = self._mapping
        said: dict[str, list[Any]] = {
            "doc_key": self._each(self._picked("id"), partial(_key, mapping.id)),
            "text": self._each(self._picked("text"), partial(_required_text, mapping.text)),
            **{name: self._optional(name, partial(_optional_text, name, getattr(mapping, name))) for name in _TEXTS},
            "date": self._optional("date", parse_date, nothing=_NO_DATE),
            "entities": self._optional("entities", partial(_entities, self._settings.split_entities), nothing=()),
            "trained_on": self._optional("trained_on", partial(_trained_on, mapping.trained_on)),
            "metadata": self._each(self._rows, partial(_metadata, mapping)),
        }
        self._each(said["date"], _encodable_date)
        rows = [row for row in range(len(self._rows)) if row not in self._reasons]
        if self._reasons:
            said = {name: [column[row] for row in rows] for name, column in said.items()}
        dates, texts, entities = (said.pop(name) for name in ("date", "text", "entities"))
        said |= {
            "doc_id": document_ids(self._settings.corpus, said["doc_key"]),
            "published": [date.day for date in dates],
            "published_precision": [date.precision for date in dates],
            "published_text": [date.text for date in dates],
        }
        documents = Documents(said, texts, entities)
        said["content_hash"] = content_ids("content", _contents(documents), after=[rule])
        return Mapped(documents, rows, self._reasons)

    def _picked(self, name: str) -> Sequence[Any]:
        """Return the values of the field that becomes a column."""
        selector = self._mapping.selectors.get(name)
        return selector.values(self._rows) if selector else [None] * len(self._rows)

    def _optional(self, name: str, convert: Callable[[Any], Any], *, nothing: Any = None) -> list[Any]:
        """Convert the values of a field that need not be there."""
        values = self._picked(name)
        if values.count(None) == len(values):  # as in most columns
            return [nothing] * len(values)
        return self._each(values, convert)

    def _each(self, values: Sequence[Any], convert: Callable[[Any], Any]) -> list[Any]:
        """Convert a value of every row that is none of those that were rejected before."""
        if not self._reasons:
            with suppress(RejectedRowError):
                return [convert(value) for value in values]
        kept: list[Any] = []
        for row, value in enumerate(values):
            try:
                kept.append(None if row in self._reasons else convert(value))
            except RejectedRowError as error:
                self._reasons[row] = str(error)
                kept.append(None)
        return kept


def _contents(documents: Documents) -> Iterator[bytes]:
    """Yield what every document says, as text that differs where anything in it does.

    It is the JSON of a list, as `json.dumps` writes it with sorted keys. Only what is said is in it: rows without a
    mark keep the hash that they had before there were marks.
    """
    columns = documents.columns
    said = (
        map(_json, columns["doc_key"]),
        map(_long_json, documents.texts),
        *(_optional_json(columns[name]) for name in sorted(_TEXTS)),
        _optional_json(columns["published_text"]),
        (", ".join(map(_json, entities)) for entities in documents.entities),
        map(_json, columns["metadata"]),
        (_MARKS[mark] for mark in columns["trained_on"]),
    )
    for key, text, *named, date, entities, metadata, mark in zip(*said, strict=True):
        rest = f", {{{_NAMED % tuple(named)}}}, {date}, [{entities}], {metadata}{mark}]"
        yield b"".join((f"[{key}, ".encode("ascii"), text, rest.encode("ascii")))


def _long_json(text: str) -> bytes:
    """Return the JSON of a text, in ASCII, by msgspec where it writes the same as the standard library, and faster."""
    if text.isascii() and "\x7f" not in text:
        return _encode(text)
    return _json(text).encode("ascii")


def _optional_json(texts: Sequence[str | None]) -> list[str]:
    if texts.count(None) == len(texts):  # as in most columns
        return ["null"] * len(texts)
    return ["null" if text is None else _json(text) for text in texts]


def _metadata(mapping: FieldMapping, row: Mapping[str, Any]) -> str:
    rest = _unmapped(row, mapping)
    try:
        return _encodable(_json_text(rest), "metadata") if rest else "{}"
    except RecursionError as error:
        raise RejectedRowError("metadata is nested too deeply") from error


def _unmapped(fields: Mapping[str, Any], mapping: FieldMapping) -> dict[str, Any]:
    """Return a row without nulls, and without what became a column as a whole, or part of the text.

    What other templates take stays, since they need not tell it whole. A null is left out: Parquet has one where JSON
    Lines has no field at all, and both are the same row.
    """
    taken = mapping.taken
    rest = {name: value for name, value in fields.items() if value is not None and name not in taken}
    for name in mapping.nested:
        if name not in fields:
            _remove(rest, steps(fields, name))
    return rest


def _remove(rest: dict[str, Any], way: tuple[str, ...]) -> None:
    """Remove a field from objects, which are copied on the way; an element of a list stays."""
    first, *others = way
    if not others:
        rest.pop(first, None)
    elif isinstance(rest.get(first), Mapping):
        inner = dict(rest[first])
        _remove(inner, tuple(others))
        rest[first] = inner
        if not inner:
            del rest[first]


def _key(spec: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RejectedRowError(f"no usable id in field {spec!r} (name the right one with --id)")
    if "\0" in str(value):  # which not every catalog can hold
        raise RejectedRowError(f"the id in field {spec!r} has a NUL character")
    return _encodable(str(value), spec)


def _required_text(spec: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RejectedRowError(f"no text in field {spec!r} (name the right one with --text)")
    if not value or value.isspace():
        raise RejectedRowError(f"the text in field {spec!r} is empty")
    return _encodable(value, spec)


def _optional_text(name: str, spec: str | None, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return _encodable(value, name)
    if isinstance(value, list):
        value = ", ".join(str(part) for part in value)
    if isinstance(value, dict):
        raise RejectedRowError(f"field {spec!r} is an object, {name} must be a text")
    return _encodable(str(value), name)


def _entities(split: str | None, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(entity, str) for entity in values):
        raise RejectedRowError("entities must be a text or a list of texts")
    if split is not None and isinstance(value, str):
        values = value.split(split)
    named = (_encodable(entity.strip(), "entities") for entity in values)
    return tuple(dict.fromkeys(entity for entity in named if entity))


def _trained_on(spec: str | None, value: Any) -> bool | None:
    if value is None:
        return None
    if isinstance(value, str):
        known = _TRUTHS.get(value.strip().lower(), value)
    else:
        known = bool(value) if isinstance(value, int | float) and value in (0, 1) else value
    if known is None or isinstance(known, bool):
        return known
    raise RejectedRowError(f"field {spec!r} is {value!r:.100}, trained_on must be true, false or nothing")


def _json_text(value: dict[str, Any]) -> str:
    """Return the value as JSON text; NaN and infinities, which JSON lacks, become texts."""
    try:
        return _METADATA.encode(value)
    except ValueError:
        return _json_text(json.loads(json.dumps(value, default=str), parse_constant=str))


def _encodable(value: str, name: str) -> str:
    if value.isascii():
        return value
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RejectedRowError(f"{name} has a lone surrogate at character {error.start}") from error
    return value


def _encodable_date(date: Published) -> None:
    if date.text is not None:
        _encodable(date.text, "date")


def key_of(fields: Mapping[str, Any], mapping: FieldMapping) -> str | None:
    """Return the id that a row gives its document, or None where it gives none that can be used."""
    try:
        return _key(mapping.id, mapping.selectors["id"].value(fields))
    except RejectedRowError:
        return None
