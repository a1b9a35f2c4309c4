"""How a column's value is picked from a row of a corpus: a field, a constant or a template.

    headline            the field of that name
    meta.url            field `url` in the object in field `meta`, unless a field is called `meta.url` as a whole
    authors.0           the first of the list in field `authors`
    =wikipedia          the same text for every row
    {title} ({year})    a text with the values of fields in it; `{{` and `}}` are braces

A template has no value where one of its fields has none.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from .errors import SettingsError


class _Part(NamedTuple):
    """A piece of a template: a text, and the field whose value follows it."""

    text: str
    name: str | None


@dataclass(frozen=True)
class Selector:
    """How one column's value is picked from a row."""

    parts: tuple[_Part, ...]
    is_field: bool = False
    """Whether the value is a field's as it is, and no text with values in it."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The fields that it takes."""
        return tuple(part.name for part in self.parts if part.name is not None)

    def values(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the value of every row, or None."""
        name = self.names[0] if self.is_field else ""
        if self.is_field and "." not in name:  # as nearly always
            return [row.get(name) for row in rows]
        return [self.value(row) for row in rows]

    def value(self, row: Mapping[str, Any]) -> Any:
        """Return the value of a row, or None."""
        if self.is_field:
            return find(row, self.names[0])
        texts = []
        for text, name in self.parts:
            found = "" if name is None else find(row, name)
            if found is None or (found == "" and name is not None):
                return None
            texts += [text, str(found)]
        return "".join(texts)


def parse_selector(spec: str, *, option: str) -> Selector:
    """Read a selector. Raises SettingsError, which names the option, for a template with more than names in it."""
    if spec.startswith("="):
        return Selector((_Part(spec[1:], None),))
    if "{" not in spec and "}" not in spec:
        return Selector((_Part("", spec),), is_field=True)
    try:
        parts = list(string.Formatter().parse(spec))
    except ValueError as error:
        raise SettingsError(f"--{option} {spec}: {error}; write a field as {{name}}, and a brace twice") from error
    for _, name, form, conversion in parts:
        if name is not None and (not name or form or conversion or set(name) & set("{}[]")):
            raise SettingsError(f"--{option} {spec}: a template takes names of fields alone, as in {{name}}")
    return Selector(tuple(_Part(text, name) for text, name, _, _ in parts))


def find(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field, nested names included, or None."""
    if name in row or "." not in name:  # as nearly always
        return row.get(name)
    value: Any = row
    for step in name.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def steps(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the steps to a field: one where the row has a field of that whole name, else one for each dot."""
    return (name,) if name in row or "." not in name else tuple(name.split("."))
