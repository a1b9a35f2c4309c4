"""The gate of SQL statements: one SELECT, of a size that can be planned.

Notable: DuckDB plans before it runs anything, and planning cannot be interrupted: twenty CTEs that each name the one
before twice are a million relations, in a statement of five hundred characters. So the tree is looked at first.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import duckdb

from proponent.schema.errors import SqlError

MAX_LENGTH: Final = 100_000
"""Characters of a statement."""
MAX_TREE: Final = 2_000_000
"""Characters of its tree as JSON; 13,000 values in a list have as many."""
MAX_RELATIONS: Final = 2_000
"""Relations that it names, those in a CTE once for every time that the CTE is named."""
_MAX_PATH: Final = 16
"""Names in the path of a column."""
_REFUSED: Final = frozenset({"query", "query_table", "json_execute_serialized_sql"})
"""Functions that run a text, which this gate would not see."""
_BIND = "bind long lists as parameters, as in IN (SELECT unnest($ids))"
_ONLY_SELECT = "only SELECT is possible: the lake is changed by proponent's commands alone"


def require_select(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Raise SqlError for anything but one SELECT that can be planned."""
    if len(query) > MAX_LENGTH:
        raise SqlError(f"the statement has {len(query):,} characters; at most {MAX_LENGTH:,} are read; {_BIND}")
    _require_unicode(query)
    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1:
            raise SqlError(f"one statement at a time, not {len(statements)}")
        if not _is_select(statements[0]):
            raise SqlError(_ONLY_SELECT)
        [(serialised,)] = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
    except duckdb.Error as error:
        raise SqlError((str(error).strip().splitlines() or [type(error).__name__])[0]) from error
    if len(serialised) > MAX_TREE:
        raise SqlError(f"the statement is too large to be planned; {_BIND}")
    try:
        tree = json.loads(serialised)
        if tree.get("error"):  # a WITH that inserts, say, which calls itself a SELECT
            raise SqlError(_ONLY_SELECT)
        relations = _relations(tree, {})
    except RecursionError as error:
        raise SqlError("the statement is nested too deeply to be planned") from error
    if relations > MAX_RELATIONS:
        raise SqlError(
            f"the statement names {relations:,} relations, those of a CTE each time that it is named; "
            f"at most {MAX_RELATIONS:,} are planned"
        )


def _require_unicode(query: str) -> None:
    """Raise SqlError for half a character (a lone surrogate), which DuckDB's package takes for another type."""
    try:
        query.encode()
    except UnicodeEncodeError as error:
        raise SqlError(f"the statement has half a character at {error.start}, which is no Unicode text") from error


def _is_select(statement: duckdb.Statement) -> bool:
    try:
        return bool(statement.type == duckdb.StatementType.SELECT)
    except ValueError:  # kinds that DuckDB parses and its Python package has no name for, such as UPDATE EXTENSIONS
        return False


def _relations(node: Any, ctes: Mapping[str, int]) -> int:
    """Return how many relations a part of a tree names; `ctes` are those of the CTEs that it can name."""
    if isinstance(node, list):
        return sum(_relations(part, ctes) for part in node)
    if not isinstance(node, dict):
        return 0
    _check(node)
    found, largest = 0, 0
    if isinstance(node.get("cte_map"), dict):
        ctes = dict(ctes)
        for entry in node["cte_map"]["map"]:
            ctes[str(entry["key"]).lower()] = of_one = 1 + _relations(entry["value"], ctes)
            largest = max(largest, of_one)
    if node.get("type") == "BASE_TABLE":
        found = ctes.get(str(node.get("table_name")).lower(), 1)
    found += sum(_relations(part, ctes) for name, part in node.items() if name != "cte_map")
    return max(found, largest)


def _check(node: Mapping[str, Any]) -> None:
    name = str(node.get("function_name", "")).lower()
    if name in _REFUSED:
        raise SqlError(f"{name}() runs a text as SQL, which is not possible here; write the statement itself")
    if len(node.get("column_names") or ()) > _MAX_PATH:
        raise SqlError(f"the path of a column has more than {_MAX_PATH} names")


def literal(text: str | None) -> str:
    """Return a text as a literal of SQL, for what takes no parameters."""
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"
