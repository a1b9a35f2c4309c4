"""The one parser and gate of predicates that users write.

Notable: a fragment is parsed by DuckDB itself, its syntax tree is checked against lists of what is allowed, and SQL is
made again from the checked tree. Nothing of the text that the user wrote is ever pasted into a statement; it stands on
lines of its own only for the parser, so that a comment cannot break out. `entity()`, `mention()` and `near_duplicate`
become subqueries in the tree, the only ones that a filter can have.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import duckdb

from proponent.schema.errors import FilterError
from proponent.schema.tables import DOCUMENTS, MENTIONS, PASSAGES

from .filter_types import require_types

MAX_LENGTH: Final = 10_000
MAX_DEPTH: Final = 64

_TOO_DEEP: Final = f"the filter is nested deeper than {MAX_DEPTH} levels"
_SHOWN: Final = 80
"""Characters of a name that a message shows."""

OF_MENTIONS: Final = frozenset(MENTIONS.names)
"""What the predicate of `mention()` may name besides `COLUMNS`; names of both are the mention's there."""
COLUMNS: Final = frozenset(DOCUMENTS.names) | frozenset(PASSAGES.names) | {"entities", "near_duplicate"}
"""What a filter may name: every column of documents and passages, `entities`, the passage's list of them, and
`near_duplicate`, whether the document says nearly the same as another one."""

_CLASSES = {"BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR"}
_FUNCTIONS = frozenset(
    """
    + - * / // % || ~~ !~~ ~~* !~~* like_escape ilike_escape not_like_escape not_ilike_escape regexp_matches
    regexp_full_match abs ceil floor round length lower upper trim ltrim rtrim contains starts_with ends_with prefix
    suffix substring substr left right replace concat strpos coalesce nullif greatest least year month day quarter
    decade century date_part date_trunc make_date to_years to_months to_days list_contains list_has array_contains
    array_has list_has_any list_has_all list_value len json_extract json_extract_string json_exists -> ->> entity
    mention
    """.split()  # noqa: SIM905 - read more easily than a list
)
_OF_PASSAGES = ("entity", "mention")
"""Functions that are this gate's own, not DuckDB's."""
_TYPES = {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "VARCHAR", "DATE", "TIMESTAMP"}
_OPERATORS_REFUSED = {"OPERATOR_TRY"}
_SUBQUERIES: Final = {
    "mention": "passage_id IN (SELECT passage_id FROM mentions WHERE true)",
    "near_duplicate": "doc_id IN (SELECT doc_id FROM near_duplicates)",
}
_GUESSED: Final = {
    "entity_type": "mention(type = 'ORG')",
    "mentions": "mention(entity = 'France')",
    "has_entity": "entity('France')",
    "json_value": "metadata ->> 'section' = 'x'",
    "now": "published >= DATE '2020-01-31'",
    "today": "published >= DATE '2020-01-31'",
}
_GUESSED_COLUMNS: Final = {"date": "published", "year": "year(published)", "id": "doc_key", "mentions": "mention()"}
"""What those may have meant who name what there is not."""


@dataclass(frozen=True)
class Filter:
    """A checked predicate over the candidates' columns."""

    sql: str
    """The predicate, written by DuckDB from the checked tree."""
    columns: frozenset[str]
    """Columns of `COLUMNS` that it names, those of its mentions left out."""

    @property
    def uses_documents(self) -> bool:
        """Whether the documents have to be joined."""
        return not self.columns <= {*PASSAGES.names, "near_duplicate"}

    @property
    def uses_entities(self) -> bool:
        """Whether the passages' lists of entities have to be joined."""
        return "entities" in self.columns


def parse_filter(fragment: str) -> Filter:
    """Check a predicate such as `source = 'x' AND published >= DATE '2020-01-01' AND entity('France')`.

    Raises FilterError when it is not one boolean expression over known columns and functions, and of their types.
    """
    if not fragment.strip():
        raise FilterError("the filter is empty; leave it out to search everything")
    if len(fragment) > MAX_LENGTH:
        raise FilterError(f"the filter has {len(fragment)} characters; at most {MAX_LENGTH} are read")
    with duckdb.connect(config={"threads": 1, "enable_external_access": False}) as connection:
        tree = _parse(connection, fragment)
        node = tree["statements"][0]["node"]
        if _without_places(node | {"where_clause": None}) != _plain_select(connection):
            raise FilterError("the filter must be one expression, without clauses of its own")
        columns = frozenset(_Gate(fragment).check(node["where_clause"], depth=0))
        if sum(_lengthens(part) for part in _functions(node["where_clause"])) > 1:
            raise FilterError(
                "one replace() of a filter may make texts longer, not several: they would grow without end"
            )
        templates = {name: _where(_parse(connection, sql)) for name, sql in _SUBQUERIES.items()}
        node["where_clause"] = _spelled(node["where_clause"], templates)
        sql = require_types(connection, tree)
    return Filter(sql, columns)


def _parse(connection: duckdb.DuckDBPyConnection, fragment: str) -> dict[str, Any]:
    statement = f"SELECT 1 FROM t WHERE (\n{fragment}\n)"  # noqa: S608 - parsed, never run
    try:
        [(serialised,)] = connection.execute("SELECT json_serialize_sql(?)", [statement]).fetchall()
    except duckdb.Error as error:
        raise FilterError(f"the filter cannot be read: {_first_line(error)}") from error
    try:
        tree: dict[str, Any] = json.loads(serialised)
    except RecursionError as error:
        raise FilterError(_TOO_DEEP) from error
    if tree.get("error"):
        raise FilterError(
            f"the filter cannot be read: {str(tree.get('error_message', 'syntax error')).splitlines()[0]}"
        )
    if len(tree["statements"]) != 1 or tree["statements"][0]["node"].get("type") != "SELECT_NODE":
        raise FilterError("the filter must be one expression")
    return tree


def _where(tree: dict[str, Any]) -> Any:
    return tree["statements"][0]["node"]["where_clause"]


def _plain_select(connection: duckdb.DuckDBPyConnection) -> Any:
    node = _parse(connection, "true")["statements"][0]["node"]
    return _without_places(node | {"where_clause": None})


def _without_places(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_places(value) for key, value in tree.items() if not key.startswith("query_location")}
    return [_without_places(part) for part in tree] if isinstance(tree, list) else tree


@dataclass(frozen=True)
class _Gate:
    """Checks the tree of one fragment."""

    fragment: str
    in_mention: bool = False

    def check(self, node: Any, *, depth: int) -> Iterator[str]:
        """Check a tree and yield the columns of `COLUMNS` that it names."""
        if depth > MAX_DEPTH:
            raise FilterError(_TOO_DEEP)
        if isinstance(node, list):
            for part in node:
                yield from self.check(part, depth=depth)
        elif isinstance(node, dict):
            yield from self._check_kind(node, depth=depth) if "class" in node else self._check_parts(node, depth=depth)

    def _check_parts(self, node: dict[str, Any], *, depth: int) -> Iterator[str]:
        for value in node.values():
            if isinstance(value, dict | list):
                yield from self.check(value, depth=depth + 1)

    def _check_kind(self, node: dict[str, Any], *, depth: int) -> Iterator[str]:
        kind = node["class"]
        if kind not in _CLASSES or node.get("type") in _OPERATORS_REFUSED:
            raise FilterError(f"a filter may not have a {str(kind).lower().replace('_', ' ')}")
        if kind == "COLUMN_REF":
            yield from self._column(node["column_names"])
        elif kind == "CAST":
            _check_type(node["type_expr"])
            yield from self.check(node["child"], depth=depth + 1)
        elif kind == "FUNCTION":
            inside = self._check_function(node)
            yield from inside._check_parts(node, depth=depth)
        else:
            yield from self._check_parts(node, depth=depth)

    def _column(self, path: list[str]) -> Iterator[str]:
        name = path[0].lower()
        if len(path) == 1 and self.in_mention and name in OF_MENTIONS:
            return
        if len(path) != 1 or name not in COLUMNS:
            raise FilterError(self._no_column(".".join(path)))
        yield name

    def _no_column(self, name: str) -> str:
        known = sorted(COLUMNS | OF_MENTIONS if self.in_mention else COLUMNS)
        near = get_close_matches(name.rpartition(".")[2].lower(), known, n=1)
        if f'"{name}"' in self.fragment:
            remedy = f"a text stands in single quotes, '{name}'; "
        elif name.lower() in OF_MENTIONS:
            remedy = f"it is one of mentions, which are asked for as in mention({name.lower()} = 'x'); "
        elif name.lower().startswith("metadata."):
            remedy = f"a field of the metadata is metadata ->> '{name.partition('.')[2]}'; "
        elif name.lower() in _GUESSED_COLUMNS:
            remedy = f"write {_GUESSED_COLUMNS[name.lower()]}; "
        else:
            remedy = f"did you mean {near[0]!r}? " if near else ""
        shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
        return f"no column {shown!r} to filter by; {remedy}there are {', '.join(known)}"

    def _check_function(self, node: dict[str, Any]) -> "_Gate":
        """Check a function's name and form; return the gate of its arguments."""
        name = str(node["function_name"]).lower()
        if name not in _FUNCTIONS or node["schema"] or node["catalog"]:
            raise FilterError(f"a filter may not call {node['function_name']!r}{_instead_of(name)}")
        if node["filter"] or node["distinct"] or node["order_bys"]["orders"]:
            raise FilterError(f"function {name!r} takes no FILTER, DISTINCT or ORDER BY here")
        if name not in _OF_PASSAGES:
            return self
        if self.in_mention:
            raise FilterError(f"{name}() may not stand in mention(), which asks for one mention at a time")
        if len(node["arguments"]) > 1 or any(argument["name"] for argument in node["arguments"]):
            raise FilterError(
                f"{name}() takes one {'name' if name == 'entity' else 'predicate'}; "
                "ask for more of a mention as in mention(entity = 'France' AND type = 'GPE')"
            )
        if name == "entity" and not _is_name(node["arguments"]):
            raise FilterError("entity() takes one name, as in entity('France'); mention() asks for any")
        return _Gate(self.fragment, in_mention=True) if name == "mention" else self


def _functions(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if node.get("class") == "FUNCTION":
            yield node
        node = list(node.values())
    for part in node if isinstance(node, list) else ():
        yield from _functions(part)


def _lengthens(function: dict[str, Any]) -> bool:
    """Return whether a function may return a text that is many times as long as what it is given."""
    if str(function["function_name"]).lower() != "replace":
        return False
    literals = [argument["expression"].get("literal", {}) for argument in function["arguments"][1:]]
    if len(literals) != 2 or any(literal.get("kind") != "STRING" for literal in literals):
        return True
    return len(literals[1]["text"]) > len(literals[0]["text"])


def _is_name(arguments: list[dict[str, Any]]) -> bool:
    """Return whether there is an argument that may be a text."""
    constants = [one["expression"] for one in arguments if one["expression"].get("class") == "CONSTANT"]
    return bool(arguments) and all(one["literal"]["kind"] in ("STRING", "NULL_LITERAL") for one in constants)


def _instead_of(name: str) -> str:
    if name in _GUESSED:
        return f"; write {_GUESSED[name]}"
    near = get_close_matches(name, [known for known in _FUNCTIONS if known[0].isalpha()], n=1, cutoff=0.75)
    return f"; did you mean {near[0]!r}?" if near else ""


def _check_type(expression: dict[str, Any]) -> None:
    name = str(expression.get("type_name", "")).upper()
    if name not in _TYPES or expression.get("schema") or expression.get("catalog") or expression.get("children"):
        raise FilterError(f"a filter may not cast to {name or 'this type'}; allowed are {', '.join(sorted(_TYPES))}")


def _spelled(node: Any, templates: dict[str, Any]) -> Any:
    """Return a checked tree in which what DuckDB does not know became subqueries."""
    if isinstance(node, list):
        return [_spelled(part, templates) for part in node]
    if not isinstance(node, dict):
        return node
    if node.get("class") == "COLUMN_REF":
        return deepcopy(templates["near_duplicate"]) if node["column_names"][0].lower() == "near_duplicate" else node
    node = {key: _spelled(value, templates) for key, value in node.items()}
    name = str(node.get("function_name", "")).lower()
    if node.get("class") != "FUNCTION" or name not in _OF_PASSAGES:
        return node
    found = deepcopy(templates["mention"])
    if node["arguments"]:
        argument = node["arguments"][0]["expression"]
        found["subquery"]["node"]["where_clause"] = argument if name == "mention" else _is_entity(argument)
    return found


def _is_entity(name: Any) -> dict[str, Any]:
    column = {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "column_names": ["mentions", "entity"]}
    return {"class": "COMPARISON", "type": "COMPARE_EQUAL", "alias": "", "left": column, "right": name}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["error"])[0]
