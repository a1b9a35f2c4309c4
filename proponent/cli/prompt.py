"""The prompt of the SQL shell: editing over several lines, history, completion and colours."""

import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

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

from proponent.query.words import WORDS, Words, beginning, completions, word_before, words_of
from proponent.schema.errors import ProponentError

from .output import remark
from .shell import HELP, MODES, Ask, Leave, Shell, is_complete

_STYLES: Final = {
    duckdb.token_type.keyword: "ansiblue",
    duckdb.token_type.string_const: "ansigreen",
    duckdb.token_type.numeric_const: "ansimagenta",
    duckdb.token_type.comment: "ansibrightblack",
}


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


class _Completer(Completer):
    """Completes commands, relations, columns, functions and keywords."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: Words | None = None

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """Yield what may be meant by the word before the cursor."""
        before = document.text_before_cursor
        word = word_before(before)
        before = before[: len(before) - len(word)]
        for text, what in self._candidates(before, word, document.text_after_cursor):
            yield Completion(text, start_position=-len(word), display_meta=what)

    def _candidates(self, before: str, word: str, after: str) -> Iterator[tuple[str, str]]:
        if not before and word.startswith("."):
            yield from beginning(word, (name.split()[0] for name in HELP), "command")
        elif before.strip() == ".mode":
            yield from beginning(word, MODES, "mode")
        elif before.strip() == ".schema":
            yield from beginning(word, self._words.relations, "relation")
        else:
            yield from completions(self._words, before, word, after)

    @property
    def _words(self) -> Words:
        if self._known is None:
            with self._ask(WORDS) as rows:
                self._known = words_of(rows)
        return self._known


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
