"""Query strings, paths, forms and JSON bodies, checked and turned into what pages and actions take.

Notable: an empty field is one that was left out, as in forms. The API refuses fields that it does not know, so that a
typing error is not taken for a wish that was fulfilled; pages pass them over, since addresses are handed on and grow.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from proponent.schema.errors import InputError

MOST_FIELDS: Final = 200
"""Fields of a query string or a form."""
_PLACE: Final = re.compile(r"(.*) - at `\$\.?([A-Za-z_]*)[^`]*`$", re.DOTALL)


class FieldError(InputError):
    """A field that cannot be used; `field` names it, empty for what is wrong with all of them together.

    `place` are the characters of it that are to blame, from the first to behind the last, where somebody can tell.
    """

    def __init__(self, field: str, message: str, *, place: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.field, self.place = field, place


def pairs_of(text: str) -> list[tuple[str, str]]:
    """Return the fields of a query string or of a form's body. Raises FieldError for more than MOST_FIELDS."""
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except UnicodeDecodeError as error:
        raise FieldError("", "the address or form is not UTF-8 text") from error
    except ValueError as error:
        raise FieldError("", f"there are more than {MOST_FIELDS} fields") from error


def from_pairs(kind: type[Any], pairs: Iterable[tuple[str, str]], path: Mapping[str, str], *, strict: bool) -> Any:
    """Return parameters of a type from texts, with those of the path. Raises FieldError."""
    fields = _fields(kind)  # type: ignore[arg-type]  # types can be hashed
    values: dict[str, Any] = {}
    for name, text in [*pairs, *path.items()]:
        if name not in fields:
            if strict:
                raise FieldError(name, f"there is no parameter {name!r}; there are: {', '.join(fields) or 'none'}")
            continue
        _require_text(name, text)
        value = text.replace("\r\n", "\n")  # forms send line breaks so
        if fields[name]:
            values.setdefault(name, []).extend([value] if value else [])
        elif value:
            if name in values and strict:
                raise FieldError(name, f"{name} is given twice")
            values[name] = value
    return _converted(kind, values, strict=False)


def from_json(kind: type[Any], body: bytes, path: Mapping[str, str]) -> Any:
    """Return fields of a type from a JSON object, with those of the path. Raises FieldError."""
    try:
        values = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FieldError("", f"the body is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise FieldError("", "the body must be a JSON object")
    fields = _fields(kind)  # type: ignore[arg-type]  # types can be hashed
    for name in values:
        if name not in fields or name in path:
            known = ", ".join(field for field in fields if field not in path)
            raise FieldError(name, f"there is no field {name!r}; there are: {known or 'none'}")
    return _converted(kind, values | dict(path), strict=True)


def as_texts(value: Any) -> dict[str, Any]:
    """Return parameters as a form or a query string has them."""
    return {
        name: ("true" if one else "") if isinstance(one, bool) else one
        for name, one in msgspec.to_builtins(value).items()
        if one is not None
    }


def _converted(kind: type[Any], values: Mapping[str, Any], *, strict: bool) -> Any:
    try:
        return msgspec.convert(values, kind, strict=strict)
    except msgspec.ValidationError as error:
        told, name = str(error), ""
        if match := _PLACE.match(told):
            told, name = match[1], match[2]
        raise FieldError(name, f"{name}: {told}" if name else told) from error


def _require_text(name: str, text: str) -> None:
    if "\0" in text:
        raise FieldError(name, f"{name} has a character NUL, which no text of a lake has")


@cache
def _fields(kind: type[Any]) -> dict[str, bool]:
    """Return the fields of a type, and whether each may be given several times."""
    lists = (msgspec.inspect.ListType, msgspec.inspect.VarTupleType, msgspec.inspect.SetType)
    described = msgspec.inspect.type_info(kind)
    found = {}
    for one in described.fields:  # type: ignore[attr-defined]
        held = one.type.type if isinstance(one.type, msgspec.inspect.Metadata) else one.type
        found[one.name] = isinstance(held, lists)
    return found
