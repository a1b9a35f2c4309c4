"""Words of SQL as a lake's session knows them: what an editor may complete, and what functions do."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

WORDS: Final = """
SELECT 'relation' AS kind, table_name AS name, list(column_name ORDER BY column_index) AS columns, NULL AS told
FROM duckdb_columns() WHERE schema_name = 'main' AND NOT internal GROUP BY table_name
UNION ALL
SELECT 'function', function_name, [], max(coalesce(comment, description))
FROM duckdb_functions() WHERE regexp_full_match(function_name, '[a-z]\\w*') GROUP BY function_name
UNION ALL
SELECT 'keyword', upper(keyword_name), [], NULL FROM duckdb_keywords()
ORDER BY name
"""
"""Yields the rows that `words_of` takes."""

_WORD: Final = re.compile(r"[\w.]*\Z")
_RELATION_BEFORE: Final = re.compile(r"\b(from|join)\s+\Z", re.IGNORECASE)
_ALIAS: Final = re.compile(r"\b(?:from|join|,)\s+(\w+)\s+(?:as\s+)?(\w+)", re.IGNORECASE)


class Words(NamedTuple):
    """Relations with their columns, functions with what they do, keywords."""

    relations: Mapping[str, list[str]]
    functions: Mapping[str, str]
    keywords: list[str]


def words_of(rows: Iterable[Any]) -> Words:
    """Sort the rows of WORDS, which have their columns as attributes."""
    known = list(rows)
    return Words(
        {row.name: row.columns for row in known if row.kind == "relation"},
        {row.name: row.told or "" for row in known if row.kind == "function"},
        [row.name for row in known if row.kind == "keyword"],
    )


def word_before(text: str) -> str:
    """Return the word, with points in it, that ends where a text does."""
    found = _WORD.search(text)
    return found.group() if found else ""


def completions(words: Words, before: str, word: str, after: str = "") -> Iterator[tuple[str, str]]:
    """Yield what a word may be meant for, and what that is; `before` and `after` are the statement around it."""
    if _RELATION_BEFORE.search(before):
        yield from beginning(word, words.relations, "relation")
    elif "." in word:
        name, _, column = word.rpartition(".")
        aliases = {alias.lower(): relation.lower() for relation, alias in _ALIAS.findall(f"{before} {after}")}
        columns = words.relations.get(name.lower()) or words.relations.get(aliases.get(name.lower(), ""), [])
        yield from ((f"{name}.{one}", what) for one, what in beginning(column, columns, "column"))
    elif word:
        columns = sorted({column for columns in words.relations.values() for column in columns})
        yield from beginning(word, columns, "column")
        yield from beginning(word, words.relations, "relation")
        yield from ((f"{name}(", what) for name, what in beginning(word, words.functions, "function"))
        keywords = words.keywords if word[:1].isupper() else map(str.lower, words.keywords)
        yield from beginning(word, keywords, "keyword")


def beginning(word: str, names: Iterable[str], what: str) -> Iterator[tuple[str, str]]:
    """Yield the names that begin with a word, in any case of letters."""
    return ((name, what) for name in names if name.lower().startswith(word.lower()))
