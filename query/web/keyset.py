"""Pages of long lists, by the row that they come after or before, and not by their number.

Notable: a page deep in a list costs no more than the first, and what others add or take away meanwhile moves no row
from one page to the next. A row is named by the values that the list is ordered by, the last of which is unique.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from proponent.query.statement import literal

from .explorer import Explorer
from .parameters import FieldError

Row = dict[str, Any]

Cursor = Annotated[
    str,
    msgspec.Meta(max_length=4000, description="A row of the list, as a page names it: what comes next to that row."),
]
"""A parameter `after` or `before`."""


class Key(NamedTuple):
    """What a list is ordered by; nulls come last."""

    expression: str
    kind: Literal["text", "number", "time", "date"]
    of: Callable[[Row], Any]
    """Its value in a row of the list."""
    descending: bool = False
    nullable: bool = False


class Place(NamedTuple):
    """Where in a list a page is: behind a row, before one, or at the beginning."""

    values: tuple[Any, ...] | None = None
    backwards: bool = False


BEGINNING: Final = Place()


class Paged(NamedTuple):
    """Rows of a page, with what names the pages beside it."""

    rows: list[Row]
    before: str | None
    after: str | None
    shown: Callable[[Callable[[str, str], str]], str]
    """Makes a statement that lists the rows of this page, of what makes a SELECT of a condition and an order."""


def key(
    column: str,
    kind: Literal["text", "number", "time", "date"] = "text",
    *,
    expression: str | None = None,
    descending: bool = False,
    nullable: bool = False,
) -> Key:
    """Return a key that is a column of the list, under another name where the statement wants one."""
    return Key(expression or column, kind, lambda row: row[column], descending, nullable)


def read_page(
    explorer: Explorer,
    statement: Callable[[str, str], str],
    keys: Sequence[Key],
    *,
    after: str | None,
    before: str | None,
    most: int,
    parameters: Mapping[str, Any] | None = None,
) -> Paged:
    """Read a page. `statement` makes a SELECT of a condition and of what follows ORDER BY. Raises FieldError."""
    place = _place(keys, after, before)

    def asked() -> list[Row]:
        written = statement(_condition(keys, place), _order(keys, place))
        return explorer.rows(f"{written}\nLIMIT {most + 1}", parameters)

    rows = asked()
    if place.backwards and len(rows) <= most:  # the first page, and all of it
        place = BEGINNING
        rows = asked()
    more, rows = len(rows) > most, rows[:most]
    if place.backwards:
        rows.reverse()
    first, last = (_values(keys, rows[0]), _values(keys, rows[-1])) if rows else (None, None)

    def shown(statement: Callable[[str, str], str]) -> str:
        beginning = place if place.values is None or first is None else Place(first)
        condition = _condition(keys, beginning, itself=first is not None)
        return f"{statement(condition, _order(keys, BEGINNING))}\nLIMIT {most}"

    return Paged(
        rows,
        before=_named(first) if place.values is not None and (more or not place.backwards) else None,
        after=_named(last) if more or place.backwards else None,
        shown=shown,
    )


def _values(keys: Sequence[Key], row: Row) -> tuple[Any, ...]:
    return tuple(one.of(row) for one in keys)


def _named(values: tuple[Any, ...] | None) -> str | None:
    if values is None:
        return None
    plain = [one.isoformat() if isinstance(one, date) else one for one in values]
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def _place(keys: Sequence[Key], after: str | None, before: str | None) -> Place:
    if after is not None and before is not None:
        raise FieldError("before", "a page comes after a row or before one, not both")
    given, field = (after, "after") if before is None else (before, "before")
    if given is None:
        return BEGINNING
    try:
        values = json.loads(given)
        if not isinstance(values, list) or len(values) != len(keys):
            raise ValueError
        return Place(tuple(_checked(*one) for one in zip(keys, values, strict=True)), before is not None)
    except (ValueError, TypeError, RecursionError) as error:
        raise FieldError(field, f"{field} names no row of this list; take it from a page of the same order") from error


def _checked(key: Key, value: Any) -> Any:
    """Return a value as its kind is. Raises ValueError or TypeError for another."""
    if value is None and key.nullable:
        return None
    if key.kind == "number":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError
        return value
    if not isinstance(value, str):
        raise TypeError
    read: dict[str, Callable[[str], Any]] = {"time": datetime.fromisoformat, "date": date.fromisoformat}
    return read[key.kind](value) if key.kind in read else value


def _condition(keys: Sequence[Key], place: Place, *, itself: bool = False) -> str:
    """Return the condition on rows that come next to a place, with it or without; `true` at the beginning."""
    if place.values is None:
        return "true"
    alternatives, same = [], list[str]()
    for one, value in zip(keys, place.values, strict=True):
        if (beyond := _beyond(one, value, backwards=place.backwards)) is not None:
            alternatives.append(" AND ".join([*same, beyond]))
        same.append(f"{one.expression} IS NULL" if value is None else f"{one.expression} = {_literal(one, value)}")
    alternatives += [" AND ".join(same)] if itself else []
    return "(" + "\n    OR ".join(alternatives) + ")" if alternatives else "false"


def _beyond(key: Key, value: Any, *, backwards: bool) -> str | None:
    """Return the condition that a key's value lies beyond another, None where nothing does."""
    if value is None:
        return f"{key.expression} IS NOT NULL" if backwards else None
    sign = "<" if key.descending != backwards else ">"
    beyond = f"{key.expression} {sign} {_literal(key, value)}"
    return f"({beyond} OR {key.expression} IS NULL)" if key.nullable and not backwards else beyond


def _literal(key: Key, value: Any) -> str:
    if key.kind == "text":
        return literal(value)
    if key.kind == "number":  # as a text, which is read to the last bit; a number with a point is a DECIMAL
        return str(value) if isinstance(value, int) else f"'{value!r}'::DOUBLE"
    return f"{'TIMESTAMPTZ' if key.kind == 'time' else 'DATE'} '{value.isoformat()}'"


def _order(keys: Sequence[Key], place: Place) -> str:
    nulls = " NULLS FIRST" if place.backwards else " NULLS LAST"
    return ", ".join(
        one.expression + (" DESC" if one.descending != place.backwards else "") + (nulls if one.nullable else "")
        for one in keys
    )
