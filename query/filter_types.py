"""The types in a checked filter: it is bound to the lake's columns without their rows, and a mistake is named.

Notable: DuckDB says that two types do not go together, not which part of a long filter it means. So the smallest part
that cannot be bound alone is looked for, and named with the types of its columns.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import duckdb

from proponent.schema.errors import FilterError
from proponent.schema.tables import DOCUMENTS, MENTIONS, NEAR_DUPLICATES, PASSAGES

_RELATIONS: Final = {
    "documents": DOCUMENTS,
    "passages": PASSAGES,
    "mentions": MENTIONS,
    "near_duplicates": NEAR_DUPLICATES,
}
_CANDIDATES: Final = """
CREATE VIEW candidates AS
SELECT documents.* EXCLUDE (doc_id), passages.*, []::VARCHAR[] AS entities FROM passages JOIN documents USING (doc_id)
"""
_HINTS: Final = {
    "DATE": "a date is written DATE '2020-01-31', and year(published) = 2020 asks for its year",
    "VARCHAR": "a text is written in single quotes, and CAST(... AS INTEGER) makes a number of it",
}


def require_types(connection: duckdb.DuckDBPyConnection, tree: dict[str, Any]) -> str:
    """Return the predicate of a checked statement as SQL. Raises FilterError when its types do not go together."""
    for name, schema in _RELATIONS.items():
        connection.from_arrow(schema.empty_table()).create_view(name)
    connection.execute(_CANDIDATES)
    where = tree["statements"][0]["node"]["where_clause"]
    sql = _sql(connection, tree, where)
    try:
        kind = str(connection.sql(f"SELECT {sql} AS passes FROM candidates").types[0])  # noqa: S608 - it is checked
    except duckdb.Error as error:
        raise FilterError(_blame(connection, tree, where, error)) from error
    if kind not in ("BOOLEAN", '"NULL"'):
        raise FilterError(f"the filter must be true or false for a passage, and {_shown(sql)} is {kind}")
    return sql


def _sql(connection: duckdb.DuckDBPyConnection, tree: dict[str, Any], where: Any) -> str:
    [statement] = tree["statements"]
    changed = tree | {"statements": [statement | {"node": statement["node"] | {"where_clause": where}}]}
    [(sql,)] = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(changed)]).fetchall()
    return str(sql).partition(" WHERE ")[2]


def _blame(connection: duckdb.DuckDBPyConnection, tree: dict[str, Any], where: Any, error: duckdb.Error) -> str:
    """Return a message that names the smallest part that fails."""
    part, in_mention = where, False
    while smaller := next(
        ((child, inside, found) for child, inside in _parts(part, in_mention)
         if (found := _error_of(connection, _sql(connection, tree, child), in_mention=inside))),
        None,
    ):  # fmt: skip
        part, in_mention, error = smaller
    told = (str(error).strip().splitlines() or ["error"])[0].partition(": ")[2].rstrip(".") or str(error)
    types = _types(connection, part, in_mention=in_mention)
    named = "".join(f"; {name} is {kind}" for name, kind in types.items())
    hint = next((f"; {hint}" for kind, hint in _HINTS.items() if f"values of type {kind} " in told), "")
    return f"the filter cannot be applied: {_shown(_sql(connection, tree, part))}: {told}{named}{hint}"


def _parts(node: Any, in_mention: bool) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the expressions directly below one, each with whether it is about a mention."""
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, dict) and "class" in value:
            yield value, in_mention
        elif isinstance(value, dict | list):
            yield from _parts(value, in_mention or (isinstance(node, dict) and "subquery" in node))


def _error_of(connection: duckdb.DuckDBPyConnection, sql: str, *, in_mention: bool) -> duckdb.Error | None:
    value = f"({sql}) IS NULL"
    if in_mention:
        value = f"EXISTS (SELECT 1 FROM mentions WHERE {value})"  # noqa: S608 - it is part of what was checked
    try:
        connection.sql(f"SELECT 1 FROM candidates WHERE {value}")  # noqa: S608 - it is part of what was checked
    except duckdb.Error as error:
        return error
    return None


def _types(connection: duckdb.DuckDBPyConnection, node: Any, *, in_mention: bool) -> dict[str, str]:
    kinds: dict[str, str] = {}
    for relation in ("candidates", "mentions") if in_mention else ("candidates",):
        kinds |= {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {relation}").fetchall()}
    return {name: kinds[name] for name in dict.fromkeys(_columns(node)) if name in kinds}


def _columns(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            yield node["column_names"][-1].lower()
        for value in node.values():
            yield from _columns(value)
    elif isinstance(node, list):
        for value in node:
            yield from _columns(value)


def _shown(sql: str) -> str:
    return sql if len(sql) <= 80 else f"{sql[:77]}..."
