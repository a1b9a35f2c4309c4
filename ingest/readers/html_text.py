"""The text of an HTML page: what stands between the tags, a line for each block, without scripts and styles."""

import re
from html.parser import HTMLParser
from typing import Final, NamedTuple

_HIDDEN: Final = frozenset({"script", "style", "noscript", "template", "svg", "head"})
_BLOCKS: Final = frozenset(
    [
        *("address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "div", "dl", "dt", "fieldset"),
        *("figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main"),
        *("nav", "ol", "p", "pre", "section", "table", "tbody", "td", "tfoot", "th", "thead", "title", "tr", "ul"),
    ]
)


_SPACE: Final = re.compile(r"\s+")


class Page(NamedTuple):
    """What a page says."""

    title: str | None
    text: str


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title: list[str] = []
        self.text: list[str] = []
        self._hidden = ""
        self._in_title = False
        self._in_pre = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "title":
            self._in_title = not self.title
        elif tag == "body":
            self._hidden = ""  # a head need not be closed
        elif tag in _HIDDEN and not self._hidden:
            self._hidden = tag
        self._in_pre = self._in_pre or tag == "pre"
        if tag in _BLOCKS:
            self.text.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif tag == "pre":
            self._in_pre = False
        if tag == self._hidden:
            self._hidden = ""
        if tag in _BLOCKS:
            self.text.append("\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._hidden:
            self.text.append(data if self._in_pre else _SPACE.sub(" ", data))


def read_html(html: str) -> Page:
    """Return the title and the text of a page; navigation and other furniture is text too."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.text).split("\n"))
    return Page(" ".join("".join(parser.title).split()) or None, "\n".join(line for line in lines if line))
