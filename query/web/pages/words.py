"""Words: what a statement may say. The functions with what they do, and what may complete a word of a statement."""

from typing import Annotated, Final

import msgspec

from proponent.query.web.explorer import Explorer
from proponent.query.web.page import Page
from proponent.query.words import WORDS, Words, completions, word_before, words_of

MOST_COMPLETIONS: Final = 40
PER_PAGE: Final = 100


class Typed(msgspec.Struct, frozen=True, kw_only=True):
    """A statement on both sides of the cursor, or functions that are looked for."""

    before: Annotated[str, msgspec.Meta(max_length=20_000, description="The statement up to the cursor.")] = ""
    after: Annotated[str, msgspec.Meta(max_length=20_000, description="What comes after the cursor.")] = ""
    find: Annotated[str, msgspec.Meta(max_length=100, description="Only functions with this in their name.")] = ""
    page: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1


class WordChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What may stand in the place of the word before the cursor."""

    text: str
    what: str


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function, and what it does."""

    name: str
    does: str


class WordsView(msgspec.Struct, frozen=True, kw_only=True):
    """Completions of a word, and a page of the functions."""

    word: str
    completions: list[WordChoice]
    find: str
    page: int
    functions: list[Function]
    more: bool


def _load(explorer: Explorer, params: Typed) -> WordsView:
    words = explorer.kept("words", lambda: _words(explorer))
    word = word_before(params.before)
    before = params.before[: len(params.before) - len(word)]
    found = list(completions(words, before, word, params.after)) if params.before else []
    functions = {} if params.before else words.functions
    known = [Function(name=name, does=does) for name, does in functions.items() if params.find.lower() in name.lower()]
    skipped = (params.page - 1) * PER_PAGE
    return WordsView(
        word=word,
        completions=[WordChoice(text=text, what=what) for text, what in dict(found[:MOST_COMPLETIONS]).items()],
        find=params.find,
        page=params.page,
        functions=known[skipped : skipped + PER_PAGE],
        more=len(known) > skipped + PER_PAGE,
    )


def _words(explorer: Explorer) -> Words:
    with explorer.session() as session:
        return words_of(session.sql(WORDS))


PAGE = Page(
    name="words",
    path="/sql/words",
    title="Functions of SQL",
    summary="What may complete a word of a statement, and the functions with what they do",
    params=Typed,
    data=WordsView,
    load=_load,
    keeps=lambda explorer, _params: explorer.state().settled,
)
