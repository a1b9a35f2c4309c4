"""The one parser and gate of predicates that users write.

Notable: a fragment is parsed by DuckDB itself, its syntax tree is checked against lists of what is allowed, and SQL is
made again from the checked tree. Nothing of the text that the user wrote is ever pasted into a statement; it stands on
lines of its own only for the parser, so that a comment cannot break out.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from proponent.schema.errors import FilterError
from proponent.schema.tables import DOCUMENTS, PASSAGES

MAX_LENGTH: Final = 10_000
MAX_DEPTH: Final = 64

COLUMNS: Final = frozenset(DOCUMENTS.names) | frozenset(PASSAGES.names) | {"entities"}
"""What a filter may name: every column of documents and passages, and `entities`, the passage's list of them."""

_CLASSES = {"BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR"}
_FUNCTIONS = frozenset(
    """
    + - * / // % || ~~ !~~ ~~* !~~* like_escape ilike_escape not_like_escape not_ilike_escape regexp_matches
    regexp_full_match abs ceil floor round length lower upper trim ltrim rtrim contains starts_with ends_with prefix
    suffix substring substr left right replace concat strpos coalesce nullif greatest least year month day quarter
    decade century date_part date_trunc make_date to_years to_months to_days list_contains list_has array_contains
    array_has list_has_any list_has_all list_value len json_extract json_extract_string json_exists -> ->> entity
    """.split()  # noqa: SIM905 - read more easily than a list
)
_TYPES = {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "VARCHAR", "DATE", "TIMESTAMP"}
_OPERATORS_REFUSED = {"OPERATOR_TRY"}


@dataclass(frozen=True)
class Filter:
    """A checked predicate over the candidates' columns."""

    sql: str
    """The predicate, written by DuckDB from the checked tree."""
    columns: frozenset[str]

    @property
    def uses_entities(self) -> bool:
        """Whether the mentions have to be joined."""
        return "entities" in self.columns


def parse_filter(fragment: str) -> Filter:
    """Check a predicate such as `source = 'x' AND published >= DATE '2020-01-01' AND entity('France')`.

    Raises FilterError when it is not one boolean expression over known columns and functions.
    """
    if not fragment.strip():
        raise FilterError("the filter is empty; leave it out to search everything")
    if len(fragment) > MAX_LENGTH:
        raise FilterError(f"the filter has {len(fragment)} characters; at most {MAX_LENGTH} are read")
    with duckdb.connect() as connection:
        tree = _parse(connection, fragment)
        node = tree["statements"][0]["node"]
        if _without_places(node | {"where_clause": None}) != _plain_select(connection):
            raise FilterError("the filter must be one expression, without clauses of its own")
        where = node["where_clause"]
        columns = frozenset(_check(where, depth=0))
        _spell_entity(where)
        sql = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchone()
    assert sql is not None
    return Filter(str(sql[0]).partition(" WHERE ")[2], columns)


def _parse(connection: duckdb.DuckDBPyConnection, fragment: str) -> dict[str, Any]:
    statement = f"SELECT 1 FROM t WHERE (\n{fragment}\n)"  # noqa: S608 - parsed, never run
    try:
        row = connection.execute("SELECT json_serialize_sql(?)", [statement]).fetchone()
    except duckdb.Error as error:
        raise FilterError(f"the filter cannot be read: {_first_line(error)}") from error
    assert row is not None
    tree: dict[str, Any] = json.loads(row[0])
    if tree.get("error"):
        raise FilterError(
            f"the filter cannot be read: {str(tree.get('error_message', 'syntax error')).splitlines()[0]}"
        )
    if len(tree["statements"]) != 1 or tree["statements"][0]["node"].get("type") != "SELECT_NODE":
        raise FilterError("the filter must be one expression")
    return tree


def _plain_select(connection: duckdb.DuckDBPyConnection) -> Any:
    node = _parse(connection, "true")["statements"][0]["node"]
    return _without_places(node | {"where_clause": None})


def _without_places(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_places(value) for key, value in tree.items() if not key.startswith("query_location")}
    return [_without_places(part) for part in tree] if isinstance(tree, list) else tree


def _check(node: Any, *, depth: int) -> Iterator[str]:  # noqa: C901 - one branch for each kind of node
    """Check a tree and yield the columns that it names."""
    if depth > MAX_DEPTH:
        raise FilterError(f"the filter is nested deeper than {MAX_DEPTH} levels")
    if isinstance(node, list):
        for part in node:
            yield from _check(part, depth=depth)
        return
    if not isinstance(node, dict):
        return
    kind = node.get("class")
    if kind is not None:
        if kind not in _CLASSES or node.get("type") in _OPERATORS_REFUSED:
            raise FilterError(f"a filter may not have a {str(kind).lower().replace('_', ' ')}")
        if kind == "COLUMN_REF":
            yield _column(node["column_names"])
            return
        if kind == "CAST":
            _check_type(node["type_expr"])
            yield from _check(node["child"], depth=depth + 1)
            return
        if kind == "FUNCTION":
            yield from _check_function(node)
    for value in node.values():
        if isinstance(value, dict | list):
            yield from _check(value, depth=depth + 1)


def _column(path: list[str]) -> str:
    name = path[0].lower()
    if len(path) != 1 or name not in COLUMNS:
        known = ", ".join(sorted(COLUMNS))
        raise FilterError(f"no column {'.'.join(path)!r} to filter by; there are {known}")
    return name


def _check_type(expression: dict[str, Any]) -> None:
    name = str(expression.get("type_name", "")).upper()
    if name not in _TYPES or expression.get("schema") or expression.get("catalog") or expression.get("children"):
        raise FilterError(f"a filter may not cast to {name or 'this type'}; allowed are {', '.join(sorted(_TYPES))}")


def _check_function(node: dict[str, Any]) -> Iterator[str]:
    name = str(node["function_name"]).lower()
    if name not in _FUNCTIONS or node["schema"] or node["catalog"]:
        raise FilterError(f"a filter may not call {node['function_name']!r}")
    if node["filter"] or node["distinct"] or node["order_bys"]["orders"]:
        raise FilterError(f"function {name!r} takes no FILTER, DISTINCT or ORDER BY here")
    if name == "entity":
        if len(node["arguments"]) != 1:
            raise FilterError("entity() takes one name, as in entity('France')")
        yield "entities"


def _spell_entity(node: Any) -> None:
    """Turn entity(x) into list_contains(entities, x), in place."""
    if isinstance(node, list):
        for part in node:
            _spell_entity(part)
    elif isinstance(node, dict):
        if node.get("class") == "FUNCTION" and str(node["function_name"]).lower() == "entity":
            node["function_name"] = "list_contains"
            if "qualified_name" in node:
                node["qualified_name"] = {"path": ["list_contains"]}
            column = {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "column_names": ["entities"]}
            node["arguments"].insert(0, {"name": "", "expression": column})
        for value in node.values():
            _spell_entity(value)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["error"])[0]
