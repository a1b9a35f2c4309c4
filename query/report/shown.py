"""A hit's texts as the templates print them: context, marked words, shaded tokens, links.

Notable: the shade of a token says how much it adds to the score, in four steps each way, compared with the strongest of
its passage. Nobody has to tell colours apart: the strongest tokens are listed with their numbers, too.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from . import marks, text
from .content import Hit, TokenShare
from .text import Markdown

CONTEXT_SHOWN: Final = 260
"""Characters of the document on either side of a passage; more of it is folded away."""
CONTEXT_LINES: Final = 3
"""... and lines of it, because tables and lists come in short ones."""
LEVELS: Final = 4
_WEAKEST: Final = 0.05
_STRONGEST_SHOWN: Final = 5


class Context(NamedTuple):
    """The document beside a passage, and whether that is all of the context there is."""

    before: str
    after: str
    whole: bool


class Piece(NamedTuple):
    """A stretch of a passage: which words it belongs to, and how its token is shaded (-4 to 4, 0 not at all)."""

    text: str
    kind: marks.Kind
    level: int


def context_of(hit: Hit) -> Context:
    """Cut a document's text around a passage to what stands on a card."""
    before = text.keep_end(hit.before, CONTEXT_SHOWN, lines=CONTEXT_LINES)
    after = text.keep_start(hit.after, CONTEXT_SHOWN, lines=CONTEXT_LINES)
    return Context(before, after, whole=before == hit.before and after == hit.after)


def marked_html(hit: Hit, words: marks.QueryWords) -> Markup:
    """Return a passage with the question's words marked, and its tokens shaded where their shares are known."""
    out = Markup()
    for piece in pieces(hit, words):
        shown = text.html(piece.text)
        if piece.level:
            side = "towards" if piece.level > 0 else "away"
            shown = Markup('<span class="token {}-{}">{}</span>').format(side, abs(piece.level), shown)
        out += shown if piece.kind == "plain" else Markup('<mark class="{}">{}</mark>').format(piece.kind, shown)
    return out


def marked_markdown(hit: Hit, words: marks.QueryWords) -> Markdown:
    """Quote a passage, the target's words in bold and the prompt's in italics."""
    delimiters = {"plain": "", "prompt": "*", "target": "**"}
    lines = (
        text.markdown_runs((run.text, delimiters[run.kind]) for run in marks.runs(line, words))
        for line in hit.text.split("\n")
    )
    return Markdown("\n".join(f"> {line}".rstrip() for line in lines))


def markdown_link(label: str, url: str) -> Markdown:
    """Link an address that `safe_url` passed; entities would be decoded in it."""
    return Markdown(f"[{text.markdown(label)}](<{url.replace('&', '&amp;')}>)")


def strongest_tokens(hit: Hit) -> tuple[tuple[str, float], ...]:
    """Return the tokens that add most to the score or take most off it, strongest first, as (text, share)."""
    ordered = sorted(hit.tokens, key=lambda token: (-abs(token.share), token.start))
    return tuple((hit.text[token.start : token.end].strip(), token.share) for token in ordered[:_STRONGEST_SHOWN])


def pieces(hit: Hit, words: marks.QueryWords) -> Iterator[Piece]:
    """Cut a passage where marks or shades change, in order and without loss: joined, they are the text again."""
    levels = list(_levels(hit.text, hit.tokens))
    place = position = 0
    for run in marks.runs(hit.text, words):
        end = position + len(run.text)
        while position < end:
            while levels[place][1] <= position:
                place += 1
            _, behind, level = levels[place]
            cut = min(end, behind)
            yield Piece(hit.text[position:cut], run.kind, level)
            position = cut


def _levels(passage: str, tokens: Sequence[TokenShare]) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, level) over all of a passage; neighbours of one level are one stretch."""
    largest = max((abs(token.share) for token in tokens), default=0.0) or 1.0
    bounds: list[tuple[int, int, int]] = []
    end = 0
    for token in tokens:
        bounds.append((end, token.start, 0))
        bounds.append((token.start, token.end, _level(token.share / largest)))
        end = token.end
    bounds.append((end, len(passage), 0))
    merged: list[tuple[int, int, int]] = []
    for start, stop, level in bounds:
        if stop <= start:
            continue
        if merged and merged[-1][2] == level:
            merged[-1] = (merged[-1][0], stop, level)
        else:
            merged.append((start, stop, level))
    yield from merged


def _level(strength: float) -> int:
    """Return the shade of a token whose share is `strength` (-1 to 1) times the strongest."""
    if abs(strength) < _WEAKEST:
        return 0
    level = min(LEVELS, 1 + int(abs(strength) * LEVELS))
    return level if strength > 0 else -level
