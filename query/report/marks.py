"""Which words of a passage also stand in the question.

Words are compared whole, after case folding and compatibility normalisation, so `Paris` is found in `PARIS` and never
in `Parisian`. Scripts that are written without spaces have no words to see, so there the question's runs of one script
are looked for as they stand. This says what a passage shares with the question and nothing about why it scored.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

Kind = Literal["plain", "prompt", "target"]

# Han, Katakana, and the Southeast Asian scripts that are written without spaces.
_UNSPACED = re.compile(
    "[\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]+"
    "|[\u30a1-\u30fa\u30fc]+"
    "|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+"
)

# English words that stand in almost every passage: marking them would hide the marks that say something.
_ENGLISH = """
a an and are as at be been but by can did do does for from had has have he her his how i if in into is it its may no
not of on or our over she so some such than that the their them then there these they this those to was we were what
when where which who whom whose why will with would you your
"""
_FUNCTION_WORDS = frozenset(_ENGLISH.split())


class Run(NamedTuple):
    """A stretch of a passage, and whether it is a word of the target, of the prompt, or of neither."""

    text: str
    kind: Kind


class QueryWords(NamedTuple):
    """What to look for: folded words, and strings of scripts without spaces, of the target and of the prompt."""

    target: frozenset[str]
    prompt: frozenset[str]


def query_words(prompt: str, target: str) -> QueryWords:
    """Collect the words worth marking. Function words and single letters count only if the target has nothing else."""
    every = _words_of(target)
    telling = frozenset(word for word in every if _is_telling(word)) or every
    return QueryWords(telling, frozenset(word for word in _words_of(prompt) if _is_telling(word)) - telling)


def runs(text: str, words: QueryWords) -> Iterator[Run]:
    """Cut text into runs, in order and without loss: joined, they are the text again."""
    position = 0
    for start, end, kind in _matches(text, words):
        if start > position:
            yield Run(text[position:start], "plain")
        yield Run(text[start:end], kind)
        position = end
    if position < len(text):
        yield Run(text[position:], "plain")


def _matches(text: str, words: QueryWords) -> Iterator[tuple[int, int, Kind]]:
    unspaced = _unspaced_pattern(words)
    for match in _word_pattern().finditer(text):
        word = _fold(match[0])
        if word in words.target:
            yield match.start(), match.end(), "target"
        elif word in words.prompt:
            yield match.start(), match.end(), "prompt"
        elif unspaced is not None:
            for inner in unspaced.finditer(text, match.start(), match.end()):
                yield inner.start(), inner.end(), "target" if inner[0] in words.target else "prompt"


def _unspaced_pattern(words: QueryWords) -> re.Pattern[str] | None:
    strings = [word for word in (*words.target, *words.prompt) if _UNSPACED.fullmatch(word)]
    # The longest first, so that 東京都 is not marked as 東京; then by text, so that the order never depends on hashing.
    return re.compile("|".join(sorted(strings, key=lambda word: (-len(word), word)))) if strings else None


def _words_of(text: str) -> frozenset[str]:
    found = set()
    for match in _word_pattern().finditer(text):
        found.update(_UNSPACED.findall(match[0]) or [_fold(match[0])])
    return frozenset(found)


def _is_telling(word: str) -> bool:
    long_enough = len(word) > 1 or word.isdigit() or not word.isascii()
    return long_enough and word not in _FUNCTION_WORDS


def _fold(word: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())


@lru_cache(maxsize=1)
def _word_pattern() -> re.Pattern[str]:
    # Python's \w leaves out combining marks, and would cut हिन्दी, or a decomposed São, into pieces. Marks above this
    # range are variation selectors, which end no word worth marking.
    marks = "".join(chr(code) for code in range(0x300, 0x1F000) if unicodedata.category(chr(code))[0] == "M")
    return re.compile(rf"[^\W_](?:[^\W_]|[{marks}])*")
