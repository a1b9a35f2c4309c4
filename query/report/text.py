"""Text from a corpus, made safe to show: in HTML, in attributes, and in Markdown.

- Nothing here trusts its input. Lone surrogates, control characters and markup all come out as something to read.
- Characters that nobody can see, and those that reorder a line, become placeholders that name their code point: a
  report is evidence, and what it shows must be what is there.
- `Markdown` marks text that is already escaped, as markupsafe's `Markup` does for HTML.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from markupsafe import Markup

# Controls (but tab and newline), soft hyphen, joiners and other zero-width characters, bidi marks, overrides and
# isolates, fillers that look like nothing, line separators, variation selectors (but the two that choose emoji style),
# surrogates, annotations, tags. Written out, not asked of unicodedata, so that every Python gives the same report.
_INVISIBLE = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u2800\u3164\ud800-\udfff\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_RUNS = re.compile(rf"([{_INVISIBLE}])\1*")
_UNLINKABLE = re.compile(rf"[\s<>\"'`\\^{{|}}{_INVISIBLE}]")

_MARKDOWN_INLINE = re.compile(r"[\\`*_\[\]|~$#]")
_MARKDOWN_LINE_START = re.compile(r"^([-+=]|\d+(?=[.)]))")
_LITERAL_LINK = re.compile(r"(?<=[A-Za-z]):(?=//)|(?<=[Ww]{3})\.")


class Markdown(str):
    """Text that is Markdown already and is not escaped again."""

    __slots__ = ()


def html(text: str) -> Markup:
    """Escape text for an HTML element; placeholders are `<span class="ctl">`. Not for attributes: see `plain`."""
    out = Markup()
    for part, count in _parts(text):
        if not count:
            out += part
            continue
        code = _code(part)
        title = f"{code} {unicodedata.name(part, 'CONTROL CHARACTER')}"
        out += Markup('<span class="ctl" title="{}">{}{}</span>').format(title, code, _times(count))
    return out


def plain(text: str) -> str:
    """Replace what cannot be seen by ⟨U+XXXX⟩, for attributes and SVG. What it returns is still to be escaped."""
    return "".join(_bracketed(part, count) if count else part for part, count in _parts(text))


def markdown(text: str) -> Markdown:
    """Escape text for one line of Markdown, a table's cell included: each stretch of white space becomes one space."""
    return markdown_runs([(text, "")])


def markdown_runs(runs: Iterable[tuple[str, str]]) -> Markdown:
    """Escape (text, delimiter) runs for one line of Markdown, each between its delimiter: `**`, `*`, or nothing.

    A delimiter other than nothing needs a text that begins and ends in a letter or digit, or Markdown ignores it.
    """
    line = "".join(f"{delimiter}{_escape_inline(plain(text))}{delimiter}" for text, delimiter in runs)
    # Without its indentation too: four spaces of it would start a code block.
    return Markdown(_escape_start(" ".join(line.split())))


def markdown_code(text: str) -> Markdown:
    """Show text exactly, spaces included, as a Markdown code span on one line; a line break is shown as ↵."""
    line = plain(text).replace("\n", "↵").replace("\t", "⇥")
    if not line:
        return Markdown("(empty)")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    # A code span loses one space at each end when it has one at both, and cannot begin or end with its own fence.
    pad = " " if line[0] == "`" or line[-1] == "`" or (line[0] == line[-1] == " " and line.strip()) else ""
    return Markdown(f"{fence}{pad}{line}{pad}{fence}")


def markdown_cell(text: str) -> Markdown:
    """Show text exactly in a table's cell, which a bar would end even in a code span."""
    return Markdown(markdown_code(text).replace("|", "\\|"))


def safe_url(url: str | None) -> str | None:
    """Return the address when it may become a link, else None.

    Only http and https with a host, without user names (`https://bank.example@evil.example`), and without characters
    that browsers drop or that end a link in HTML or Markdown.
    """
    if not url or _UNLINKABLE.search(url):
        return None
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:  # an unclosed bracket, for example
        return None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        return None
    return url


def host_of(url: str) -> str:
    """Return the host of an address that `safe_url` passed, so that a reader sees where a link goes."""
    return urlsplit(url).hostname or ""


def keep_start(text: str, length: int, *, lines: int | None = None) -> str:
    """Cut text to about `length` characters (and `lines` lines) from its beginning; … stands for the rest."""
    kept = text if lines is None else "\n".join(text.split("\n")[:lines])
    if len(kept) > length:
        space = kept.rfind(" ", length * 4 // 5, length)
        kept = kept[: space if space > 0 else length]
    return text if len(kept) == len(text) else kept.rstrip() + "…"


def keep_end(text: str, length: int, *, lines: int | None = None) -> str:
    """Cut text to about `length` characters (and `lines` lines) from its end; … stands for the rest."""
    # A line break at the very end belongs to the last line.
    kept = text if lines is None else "\n".join(text.split("\n")[-lines - text.endswith("\n") :])
    if len(kept) > length:
        space = kept.find(" ", len(kept) - length, len(kept) - length * 4 // 5)
        kept = kept[space if space > 0 else len(kept) - length :]
    return text if len(kept) == len(text) else "…" + kept.lstrip()


def _parts(text: str) -> Iterator[tuple[str, int]]:
    """Yield (text, 0) for what can be seen and (character, how often) for each run of one that cannot."""
    text = text.replace("\r\n", "\n")
    position = 0
    for run in _RUNS.finditer(text):
        if run.start() > position:
            yield text[position : run.start()], 0
        yield run[1], run.end() - run.start()
        position = run.end()
    if position < len(text):
        yield text[position:], 0


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"


def _bracketed(character: str, count: int) -> str:
    return f"⟨{_code(character)}{_times(count)}⟩"


def _times(count: int) -> str:
    return f" \u00d7{count}" if count > 1 else ""


def _escape_inline(text: str) -> str:
    text = _MARKDOWN_INLINE.sub(r"\\\g<0>", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LITERAL_LINK.sub(r"\\\g<0>", text)


def _escape_start(line: str) -> str:
    # `- ` would start a list and `1.` too; after a number it is the dot that has to be escaped.
    start = _MARKDOWN_LINE_START.match(line)
    if start is None:
        return line
    return f"{start[0]}\\{line[start.end() :]}" if start[0].isdigit() else f"\\{line}"
