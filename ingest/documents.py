"""From a corpus's row to a document, or to the reason why it is none."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from proponent.schema.ids import content_id, document_id
from proponent.schema.selectors import steps
from proponent.schema.settings import FieldMapping, IngestSettings

from .dates import parse_date

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "null": None, "": None}
_ENCODER = json.JSONEncoder(default=str, ensure_ascii=False, sort_keys=True, allow_nan=False)
_TEXTS = ("source", "title", "url", "author", "language", "license")


class RejectedRowError(ValueError):
    """Why a row cannot become a document. Never leaves the ingest run, which writes it to `rejects`."""


@dataclass(frozen=True)
class Document:
    """A document before it is cut into passages."""

    doc_id: str
    doc_key: str
    text: str
    columns: Mapping[str, str | None]
    """source, title, url, author, language and license."""
    published: date | None
    published_precision: str | None
    published_text: str | None
    entities: tuple[str, ...]
    metadata: str
    trained_on: bool | None
    """Whether the model was trained on it; None when the row does not say."""
    content_hash: str


def make_document(
    fields: Mapping[str, Any], mapping: FieldMapping, *, corpus: str, rule: str, split_entities: str | None = None
) -> Document:
    """Make a document of a row; `rule` says how it will be cut, which is part of its content hash.

    Raises RejectedRowError.
    """
    picked = {name: selector.value(fields) for name, selector in mapping.selectors.items()}
    doc_key = _key(picked["id"], mapping.id)
    text = _required_text(picked["text"], mapping.text)
    columns = {name: _optional_text(picked.get(name), getattr(mapping, name), name) for name in _TEXTS}
    published = parse_date(picked.get("date"))
    entities = _entities(picked.get("entities"), split=split_entities)
    trained_on = _trained_on(picked.get("trained_on"), mapping.trained_on)
    metadata = _encodable(_json_text(_unmapped(fields, mapping)), "metadata")
    published_text = published.text and _encodable(published.text, "date")
    said = [doc_key, text, columns, published.text, entities, metadata]
    # Only what is said is hashed: rows without a mark keep the hash that they had before there were marks.
    described = json.dumps(said if trained_on is None else [*said, trained_on], sort_keys=True)
    return Document(
        doc_id=document_id(corpus, doc_key),
        doc_key=doc_key,
        text=text,
        columns=columns,
        published=published.day,
        published_precision=published.precision,
        published_text=published_text,
        entities=entities,
        metadata=metadata,
        trained_on=trained_on,
        content_hash=content_id("content", described, rule),
    )


def _unmapped(fields: Mapping[str, Any], mapping: FieldMapping) -> dict[str, Any]:
    """Return a row without nulls, and without what became a column as a whole, or part of the text.

    What other templates take stays, since they need not tell it whole. A null is left out: Parquet has one where JSON
    Lines has no field at all, and both are the same row.
    """
    taken = mapping.taken
    rest = {name: value for name, value in fields.items() if name not in taken}
    for name in mapping.nested:
        if name not in fields:
            _remove(rest, steps(fields, name))
    return {name: value for name, value in rest.items() if value is not None}


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


def _key(value: Any, spec: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RejectedRowError(f"no usable id in field {spec!r} (name the right one with --id)")
    if "\0" in str(value):  # which not every catalog can hold
        raise RejectedRowError(f"the id in field {spec!r} has a NUL character")
    return _encodable(str(value), spec)


def _required_text(value: Any, spec: str) -> str:
    if not isinstance(value, str):
        raise RejectedRowError(f"no text in field {spec!r} (name the right one with --text)")
    if not value.strip():
        raise RejectedRowError(f"the text in field {spec!r} is empty")
    return _encodable(value, spec)


def _optional_text(value: Any, spec: str | None, name: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, list):
        value = ", ".join(str(part) for part in value)
    if isinstance(value, dict):
        raise RejectedRowError(f"field {spec!r} is an object, {name} must be a text")
    return _encodable(str(value), name)


def _entities(value: Any, *, split: str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(entity, str) for entity in values):
        raise RejectedRowError("entities must be a text or a list of texts")
    if split is not None and isinstance(value, str):
        values = value.split(split)
    named = (_encodable(entity.strip(), "entities") for entity in values)
    return tuple(dict.fromkeys(entity for entity in named if entity))


def _trained_on(value: Any, spec: str | None) -> bool | None:
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
        return _ENCODER.encode(value)
    except ValueError:
        return _json_text(json.loads(json.dumps(value, default=str), parse_constant=str))


def _encodable(value: str, name: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RejectedRowError(f"{name} has a lone surrogate at character {error.start}") from error
    return value


def key_of(fields: Mapping[str, Any], mapping: FieldMapping) -> str | None:
    """Return the id that a row gives its document, or None where it gives none that can be used."""
    try:
        return _key(mapping.selectors["id"].value(fields), mapping.id)
    except RejectedRowError:
        return None


def document_of(fields: Mapping[str, Any], settings: IngestSettings, rule: str) -> Document:
    """Return the document of a row, which will be cut by a rule. Raises RejectedRowError."""
    return make_document(
        fields, settings.fields, corpus=settings.corpus, rule=rule, split_entities=settings.split_entities
    )


def document_row(document: Document, *, corpus: str, n_passages: int, run_id: str) -> dict[str, Any]:
    """Return a document's row of table `documents`."""
    return {
        "doc_id": document.doc_id,
        "doc_key": document.doc_key,
        "corpus": corpus,
        **document.columns,
        "published": document.published,
        "published_precision": document.published_precision,
        "published_text": document.published_text,
        "trained_on": document.trained_on,
        "n_passages": n_passages,
        "metadata": document.metadata,
        "content_hash": document.content_hash,
        "run_id": run_id,
    }
