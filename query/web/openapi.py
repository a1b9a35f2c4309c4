"""The API in OpenAPI's words, made of the same types that check what comes in and make what goes out."""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from proponent.store.runs import library_versions

from .failures import Problem
from .page import API, Action, Page

_REF: Final = "#/components/schemas/{name}"


def describe(pages: Sequence[Page], actions: Sequence[Action], *, with_token: bool) -> dict[str, Any]:
    """Return the description of all pages and actions under `/api`."""
    types: list[type[Any]] = [Problem]
    for page in pages:
        types += [page.params, page.data]
    for action in actions:
        types += [action.fields, action.answer]
    _, components = msgspec.json.schema_components(list(dict.fromkeys(types)), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for page in pages:
        paths.setdefault(API + page.path, {})["get"] = _reading(page, components)
    for action in actions:
        paths.setdefault(API + action.path, {})["post"] = _doing(action, components)
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


def _reading(page: Page, components: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": page.name,
        "summary": page.summary,
        "parameters": _parameters(page.path, page.params, components, only_path=False),
        "responses": _responses(200, page.data),
    }


def _doing(action: Action, components: dict[str, Any]) -> dict[str, Any]:
    schema = components[action.fields.__name__]
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
        "parameters": _parameters(action.path, action.fields, components, only_path=True),
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": _responses(action.status, action.answer),
    }


def _parameters(path: str, kind: type[Any], components: dict[str, Any], *, only_path: bool) -> list[dict[str, Any]]:
    schema = components[kind.__name__]
    in_path = set(_names(path))
    return [
        {
            "name": name,
            "in": "path" if name in in_path else "query",
            "required": name in in_path or name in schema.get("required", ()),
            "description": one.get("description", ""),
            "schema": one,
        }
        for name, one in schema["properties"].items()
        if name in in_path or not only_path
    ]


def _responses(status: int, kind: type[Any]) -> dict[str, Any]:
    problem = {"application/json": {"schema": {"$ref": _REF.format(name="Problem")}}}
    told = {"application/json": {"schema": msgspec.json.schema_components([kind], ref_template=_REF)[0][0]}}
    return {
        str(status): {"description": "What was asked for", "content": told},
        "default": {"description": "What went wrong", "content": problem},
    }


def _names(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)
