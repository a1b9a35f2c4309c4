"""A report's content into one HTML file or one Markdown file.

- Safe by default: whatever a template prints is escaped, placeholders included, unless it is `Markup` or `Markdown`
  already. Forgetting a filter shows too much escaping, never too little. In HTML attributes use `|attr`.
- Pure: no clock, no files but the templates, no locale. The same report gives the same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from . import charts, marks, methods, text, wording
from .content import Hit, Report, Share, TracedQuery, shares_by_source, shares_by_year
from .text import Markdown

CONTEXT_SHOWN = 260  # characters of the document on either side of a passage; more of it is folded away
CONTEXT_LINES = 3  # ... and lines of it, because tables and lists come in short ones
LONG_PASSAGE = 1800  # characters; longer passages scroll on a screen, and are whole on paper
ENTITIES_SHOWN = 12


class Context(NamedTuple):
    """The document beside a passage, and whether that is all of the context there is."""

    before: str
    after: str
    whole: bool


@dataclass(frozen=True)
class QueryView:
    """A query and what its templates need beside it. `ident` is unique on the page and safe in an attribute."""

    number: int
    query: TracedQuery
    words: marks.QueryWords
    by_source: tuple[Share, ...]
    by_year: tuple[Share, ...]

    @property
    def ident(self) -> str:
        """The query's id on the page."""
        return f"query-{self.number}"

    @property
    def strongest(self) -> float:
        """The largest absolute score listed, and never zero: what the bars of the cards are drawn against."""
        hits = (*self.query.proponents, *self.query.opponents)
        return max((abs(hit.score) for hit in hits), default=0.0) or 1.0

    @property
    def source_chart(self) -> Markup:
        """Bars by source; empty where nothing is known."""
        title = f"Listed {methods.listed(self.query)}s by source"
        return charts.bar_chart(self.by_source, ident=f"{self.ident}-sources", title=title)

    @property
    def year_chart(self) -> Markup:
        """Columns by year; empty where nothing is dated."""
        title = f"Listed {methods.listed(self.query)}s by year of publication"
        return charts.column_chart(self.by_year, ident=f"{self.ident}-years", title=title)


def render_html(report: Report) -> str:
    """Render a report as one HTML page that needs no network, no script and no other file."""
    return _render(_html_environment(), "report.html.j2", report)


def render_markdown(report: Report) -> str:
    """Render a report as Markdown (CommonMark with tables)."""
    return _render(_markdown_environment(), "report.md.j2", report)


def _render(environment: Environment, template: str, report: Report) -> str:
    views = [_view(number, query) for number, query in enumerate(report.queries, start=1)]
    return environment.get_template(template).render(report=report, views=views)


def _view(number: int, query: TracedQuery) -> QueryView:
    return QueryView(
        number=number,
        query=query,
        words=marks.query_words(wording.prompts(query), "\n".join((*query.targets, *query.instead))),
        by_source=shares_by_source(query.proponents),
        by_year=shares_by_year(query.proponents),
    )


@lru_cache(maxsize=1)
def _html_environment() -> Environment:
    environment = _environment(_finish_html, autoescape=True)
    environment.filters["attr"] = text.plain  # autoescaping does the rest
    environment.globals["marked"] = _marked_html
    return environment


@lru_cache(maxsize=1)
def _markdown_environment() -> Environment:
    environment = _environment(_finish_markdown, autoescape=False)
    environment.filters["score"] = lambda value: Markdown(wording.score(value))  # in a table, its + starts no list
    environment.filters["code"] = text.markdown_code
    environment.filters["link"] = _markdown_link
    environment.globals["marked"] = _marked_markdown
    return environment


def _environment(finish: Callable[[object], str], *, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        # Markdown has its own escaping, in `finish`; HTML's would be wrong there.
        autoescape=autoescape,  # noqa: S701
        undefined=StrictUndefined,
        finalize=finish,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "keep_start": text.keep_start,
        "keep_end": text.keep_end,
        "safe_url": text.safe_url,
        "host": text.host_of,
        "score": wording.score,
        "percent": wording.percent,
        "instant": wording.instant,
        "count": wording.count,
    }
    environment.globals |= {
        "words": wording,
        "says": methods,
        "title_of": _title_of,
        "context_of": _context,
        "CONTEXT_SHOWN": CONTEXT_SHOWN,
        "LONG_PASSAGE": LONG_PASSAGE,
        "ENTITIES_SHOWN": ENTITIES_SHOWN,
    }
    return environment


def _finish_html(value: object) -> str:
    return value if isinstance(value, Markup) else text.html(_as_text(value))


def _finish_markdown(value: object) -> str:
    return value if isinstance(value, Markdown) else text.markdown(_as_text(value))


def _as_text(value: object) -> str:
    if value is None:  # would read "None" in somebody's report
        raise TypeError("a template prints a value that is missing")
    return str(value)


def _title_of(hit: Hit) -> str:
    return hit.title if hit.title and hit.title.strip() else f"Untitled ({hit.doc_key})"


def _context(hit: Hit) -> Context:
    before = text.keep_end(hit.before, CONTEXT_SHOWN, lines=CONTEXT_LINES)
    after = text.keep_start(hit.after, CONTEXT_SHOWN, lines=CONTEXT_LINES)
    return Context(before, after, whole=before == hit.before and after == hit.after)


def _marked_html(passage: str, words: marks.QueryWords) -> Markup:
    out = Markup()
    for run in marks.runs(passage, words):
        shown = text.html(run.text)
        out += shown if run.kind == "plain" else Markup('<mark class="{}">{}</mark>').format(run.kind, shown)
    return out


def _marked_markdown(passage: str, words: marks.QueryWords) -> Markdown:
    """Quote a passage, the target's words in bold and the prompt's in italics."""
    delimiters = {"plain": "", "prompt": "*", "target": "**"}
    lines = (
        text.markdown_runs((run.text, delimiters[run.kind]) for run in marks.runs(line, words))
        for line in passage.split("\n")
    )
    return Markdown("\n".join(f"> {line}".rstrip() for line in lines))


def _markdown_link(label: str, url: str) -> Markdown:
    """Link an address that `safe_url` passed; entities would be decoded in it."""
    return Markdown(f"[{text.markdown(label)}](<{url.replace('&', '&amp;')}>)")
