"""The API in OpenAPI's words, made of the same types that check what comes in and make what goes out."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from proponent.store.runs import library_versions

from .failures import Problem
from .page import API, Action, Download, Page

_REF: Final = "#/components/schemas/{name}"


def describe(
    pages: Sequence[Page], actions: Sequence[Action], downloads: Sequence[Download], *, with_token: bool
) -> dict[str, Any]:
    """Return the description of all pages, actions and downloads under `/api`."""
    types: list[type[Any]] = [Problem]
    for page in pages:
        types += [page.params, page.data]
    for action in actions:
        types += [action.fields, action.answer]
    types += [download.params for download in downloads]
    kinds = list(dict.fromkeys(types))
    refs, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    schemas = _Schemas(dict(zip(kinds, refs, strict=True)), components)
    paths: dict[str, dict[str, Any]] = {}
    for page in pages:
        paths.setdefault(API + page.path, {})["get"] = _reading(page, schemas)
    for action in actions:
        paths.setdefault(API + action.path, {})["post"] = _doing(action, schemas)
    for download in downloads:
        paths.setdefault(API + download.path, {})["get"] = _handing_out(download, schemas)
    description: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "proponent explorer",
            "version": library_versions()["proponent"],
            "description": "Every page of the explorer as JSON, and what its forms do.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }
    if with_token:
        description["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        description["security"] = [{"token": []}]
    return description


class _Schemas(NamedTuple):
    """What types are called in the description: types of one name get longer names there."""

    refs: Mapping[type[Any], Mapping[str, Any]]
    components: Mapping[str, Any]

    def of(self, kind: type[Any]) -> Any:
        """Return the schema of a struct."""
        return self.components[self.refs[kind]["$ref"].rpartition("/")[2]]

    def as_json(self, kind: type[Any]) -> dict[str, Any]:
        """Return the content of an answer."""
        return {"application/json": {"schema": self.refs[kind]}}


def _reading(page: Page, schemas: "_Schemas") -> dict[str, Any]:
    return {
        "operationId": page.name,
        "summary": page.summary,
        "parameters": _parameters(page.path, page.params, schemas, only_path=False),
        "responses": _responses(200, schemas.as_json(page.data)),
    }


def _handing_out(download: Download, schemas: "_Schemas") -> dict[str, Any]:
    told = {one: {"schema": {"type": "string", "format": "binary"}} for one in download.media_types}
    return {
        "operationId": download.name,
        "summary": download.summary,
        "parameters": _parameters(download.path, download.params, schemas, only_path=False),
        "responses": _responses(200, told),
    }


def _doing(action: Action, schemas: "_Schemas") -> dict[str, Any]:
    schema = schemas.of(action.fields)
    in_path = set(_names(action.path))
    body = {
        "type": "object",
        "properties": {name: one for name, one in schema["properties"].items() if name not in in_path},
        "required": [name for name in schema.get("required", ()) if name not in in_path],
        "additionalProperties": False,
    }
    return {
        "operationId": action.name,
        "summary": action.summary,
        "parameters": _parameters(action.path, action.fields, schemas, only_path=True),
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": _responses(action.status, schemas.as_json(action.answer)),
    }


def _parameters(path: str, kind: type[Any], schemas: "_Schemas", *, only_path: bool) -> list[dict[str, Any]]:
    schema = schemas.of(kind)
    in_path = set(_names(path))
    needed = in_path | set(schema.get("required", ()))
    return [
        {
            "name": name,
            "in": "path" if name in in_path else "query",
            "required": name in needed,
            "description": one.get("description", ""),
            # As in forms, an empty field is one that was left out.
            "schema": one if name in needed else {"anyOf": [one, {"const": ""}]},
        }
        for name, one in schema["properties"].items()
        if name in in_path or not only_path
    ]


def _responses(status: int, told: dict[str, Any]) -> dict[str, Any]:
    problem = {"application/json": {"schema": {"$ref": _REF.format(name="Problem")}}}
    return {
        str(status): {"description": "What was asked for", "content": told},
        "default": {"description": "What went wrong", "content": problem},
    }


def _names(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)
