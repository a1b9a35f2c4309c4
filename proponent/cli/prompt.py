"""The prompt of the SQL shell: editing over several lines, history, completion and colours."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import click
import duckdb
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import completion_is_selected
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import Lexer

from proponent.schema.errors import ProponentError

from .output import remark
from .shell import HELP, MODES, Ask, Leave, Shell, is_complete

_WORD: Final = re.compile(r"[\w.]*\Z")
_RELATION_BEFORE: Final = re.compile(r"\b(from|join)\s+\Z", re.IGNORECASE)
_STYLES: Final = {
    duckdb.token_type.keyword: "ansiblue",
    duckdb.token_type.string_const: "ansigreen",
    duckdb.token_type.numeric_const: "ansimagenta",
    duckdb.token_type.comment: "ansibrightblack",
}
_NAMES: Final = """
SELECT 'relation' AS kind, table_name AS name, list(column_name ORDER BY column_index) AS columns
FROM duckdb_columns() WHERE schema_name = 'main' AND NOT internal GROUP BY table_name
UNION ALL
SELECT DISTINCT 'function', function_name, []
FROM duckdb_functions() WHERE regexp_full_match(function_name, '[a-z]\\w*')
UNION ALL
SELECT 'keyword', upper(keyword_name), [] FROM duckdb_keywords()
ORDER BY name
"""


def talk(shell: Shell, ask: Ask) -> None:
    """Read statements from a terminal and run them until somebody leaves."""
    session: PromptSession[str] = PromptSession(
        history=_history(),
        multiline=True,
        prompt_continuation="...> ",
        key_bindings=_keys(),
        completer=_Completer(ask),
        complete_while_typing=False,
        lexer=_Colours(),
    )
    while True:
        try:
            typed = session.prompt("sql> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        try:
            shell.run(typed)
        except Leave:
            return
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
        except ProponentError as error:
            click.echo(f"error: {error}", err=True)
        except OSError as error:
            click.echo(f"error: {error.strerror or error}", err=True)


def history_file() -> Path:
    """Return the file that keeps what was typed: in the user's state folder, for a lake may be read-only or shared."""
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    state = named if named.is_absolute() else Path.home() / ".local" / "state"
    return state / "proponent" / "sql_history"


def _history() -> History:
    try:
        file = history_file()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        remark(f"what is typed is not kept: {error}", quiet=False)
        return InMemoryHistory()
    return FileHistory(file)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter", filter=~completion_is_selected)
    def _(event: KeyPressEvent) -> None:
        """Run what is complete, and begin another line of what is not."""
        buffer = event.current_buffer
        if is_complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.newline(copy_margin=False)

    @keys.add("enter", filter=completion_is_selected)
    def _(event: KeyPressEvent) -> None:
        """Take the completion."""
        event.current_buffer.complete_state = None

    return keys


class _Names(NamedTuple):
    relations: dict[str, list[str]]
    functions: list[str]
    keywords: list[str]


class _Completer(Completer):
    """Completes commands, relations, columns, functions and keywords."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: _Names | None = None

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """Yield what may be meant by the word before the cursor."""
        before = document.text_before_cursor
        found = _WORD.search(before)
        word = found.group() if found else ""
        for text, what in self._candidates(before[: len(before) - len(word)], word):
            yield Completion(text, start_position=-len(word), display_meta=what)

    def _candidates(self, before: str, word: str) -> Iterator[tuple[str, str]]:
        if not before and word.startswith("."):
            yield from _beginning(word, (name.split()[0] for name in HELP), "command")
        elif before.strip() == ".mode":
            yield from _beginning(word, MODES, "mode")
        elif before.strip() == ".schema" or _RELATION_BEFORE.search(before):
            yield from _beginning(word, self._names.relations, "relation")
        elif "." in word:
            relation, _, column = word.rpartition(".")
            columns = self._names.relations.get(relation.lower(), [])
            yield from ((f"{relation}.{name}", what) for name, what in _beginning(column, columns, "column"))
        elif word:
            names = self._names
            columns = sorted({column for columns in names.relations.values() for column in columns})
            yield from _beginning(word, columns, "column")
            yield from _beginning(word, names.relations, "relation")
            yield from ((f"{name}(", what) for name, what in _beginning(word, names.functions, "function"))
            keywords = names.keywords if word[:1].isupper() else map(str.lower, names.keywords)
            yield from _beginning(word, keywords, "keyword")

    @property
    def _names(self) -> _Names:
        if self._known is None:
            with self._ask(_NAMES) as rows:
                known = list(rows)
            self._known = _Names(
                {row.name: row.columns for row in known if row.kind == "relation"},
                [row.name for row in known if row.kind == "function"],
                [row.name for row in known if row.kind == "keyword"],
            )
        return self._known


def _beginning(word: str, names: Iterable[str], what: str) -> Iterator[tuple[str, str]]:
    return ((name, what) for name in names if name.lower().startswith(word.lower()))


class _Colours(Lexer):
    """Colours what DuckDB's tokenizer tells apart."""

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """Return the pieces of every line with their colours."""
        data = document.text.encode("utf-8", "replace")
        kinds = dict(duckdb.tokenize(data.decode()))
        lines: list[StyleAndTextTuples] = [[]]
        for place, end in pairwise(sorted({0, *kinds, len(data)})):
            colour = _STYLES.get(kinds[place], "") if place in kinds else ""
            first, *others = data[place:end].decode().split("\n")
            lines[-1].append((colour, first))
            lines.extend([(colour, piece)] for piece in others)
        return lambda number: lines[number] if number < len(lines) else []
