"""From a corpus's row to a document, or to the reason why it is none."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from proponent.schema.ids import content_id, document_id
from proponent.schema.settings import FieldMapping

from .dates import parse_date

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
    content_hash: str


def make_document(fields: Mapping[str, Any], mapping: FieldMapping, *, corpus: str, rule: str) -> Document:
    """Make a document of a row; `rule` says how it will be cut, which is part of its content hash.

    Raises RejectedRowError.
    """
    doc_key = _key(fields, mapping.id)
    text = _required_text(fields, mapping.text)
    columns = {name: _optional_text(fields, getattr(mapping, name), name) for name in _TEXTS}
    published = parse_date(fields.get(mapping.date) if mapping.date else None)
    entities = _entities(fields.get(mapping.entities) if mapping.entities else None)
    # A null is left out: Parquet has one where JSON Lines has no field at all, and both are the same row.
    rest = {name: value for name, value in fields.items() if name not in mapping.mapped() and value is not None}
    metadata = _encodable(_json_text(rest), "metadata")
    published_text = published.text and _encodable(published.text, "date")
    described = json.dumps([doc_key, text, columns, published.text, entities, metadata], sort_keys=True)
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
        content_hash=content_id("content", described, rule),
    )


def _key(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RejectedRowError(f"no usable id in field {name!r} (name the right one with --id)")
    return _encodable(str(value), name)


def _required_text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise RejectedRowError(f"no text in field {name!r} (name the right one with --text)")
    if not value.strip():
        raise RejectedRowError(f"the text in field {name!r} is empty")
    return _encodable(value, name)


def _optional_text(fields: Mapping[str, Any], field: str | None, name: str) -> str | None:
    value = fields.get(field) if field else None
    if value is None or value == "":
        return None
    if isinstance(value, list):
        value = ", ".join(str(part) for part in value)
    if isinstance(value, dict):
        raise RejectedRowError(f"field {field!r} is an object, {name} must be a text")
    return _encodable(str(value), name)


def _entities(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(entity, str) for entity in values):
        raise RejectedRowError("entities must be a text or a list of texts")
    named = (_encodable(entity.strip(), "entities") for entity in values)
    return tuple(dict.fromkeys(entity for entity in named if entity))


def _json_text(value: dict[str, Any]) -> str:
    """Return the value as JSON text; NaN and infinities, which JSON lacks, become texts."""
    try:
        return json.dumps(value, default=str, ensure_ascii=False, sort_keys=True, allow_nan=False)
    except ValueError:
        return _json_text(json.loads(json.dumps(value, default=str), parse_constant=str))


def _encodable(value: str, name: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RejectedRowError(f"{name} has a lone surrogate at character {error.start}") from error
    return value
