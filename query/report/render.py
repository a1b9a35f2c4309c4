"""A report's content into one HTML page or one Markdown file.

Notable: pure. No clock, no files but the templates, no locale: the same report gives the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from . import charts, marks, methods, numbers, wording
from .answers import answers
from .charts import Bar
from .compare import Comparison, compare
from .content import Group, Report, Share, TracedQuery, shares_by_source, shares_by_year
from .data import block, to_json
from .filling import fill, templates_id

if TYPE_CHECKING:
    from .folder import Facet


@dataclass(frozen=True)
class Folder:
    """Where a page stands in a folder of them: names of files, None where there is no such page."""

    title: str
    index: str
    number: int
    pages: int
    before: str | None
    after: str | None


@dataclass(frozen=True)
class QueryView:
    """A query and what its templates need beside it. `ident` is unique on the page and safe in an attribute."""

    number: int
    query: TracedQuery
    words: marks.QueryWords
    by_source: tuple[Share, ...]
    by_year: tuple[Share, ...]
    scale: float | None = None
    """The score of a full bar; by default the strongest of those listed."""

    @property
    def ident(self) -> str:
        """The query's id on the page."""
        return f"query-{self.number}"

    @property
    def strongest(self) -> float:
        """The largest absolute score listed, and never zero: what the bars of the cards are drawn against."""
        if self.scale:
            return self.scale
        hits = (*self.query.proponents, *self.query.opponents)
        return max((abs(hit.score) for hit in hits), default=0.0) or 1.0

    @property
    def places(self) -> dict[str, str]:
        """Where each listed passage stands, such as `proponent 3`, by its id."""
        hits = (*self.query.opponents, *self.query.proponents)
        return {hit.passage_id: f"{methods.listed(self.query, hit.side)} {hit.rank}" for hit in hits}

    @property
    def source_chart(self) -> Markup:
        """Bars by source, of the whole corpus or else of the hits; empty where nothing is known."""
        sources, ident = self.query.beside.sources, f"{self.ident}-sources"
        if sources:
            return charts.bar_chart(_bars(sources.by_source), ident=ident, title="Share of all influence, by source")
        title = f"Listed {methods.listed(self.query)}s by source"
        return charts.bar_chart([_counted(share) for share in self.by_source], ident=ident, title=title)

    @property
    def time_chart(self) -> Markup:
        """Columns by time, of the whole corpus or else of the hits; empty where nothing is dated."""
        sources, ident = self.query.beside.sources, f"{self.ident}-times"
        if sources:
            title = f"Share of all influence, by {sources.span} of publication"
            return charts.column_chart(_bars(sources.by_time), ident=ident, title=title, span=sources.span)
        title = f"Listed {methods.listed(self.query)}s by year of publication"
        return charts.column_chart([_counted(share) for share in self.by_year], ident=ident, title=title, span="year")


def render_html(report: Report, *, templates: Path | None = None, folder: Folder | None = None) -> str:
    """Render a report as one HTML page that needs no network, no script and no other file.

    `templates` is a folder of a user's own. Raises InputError for templates that cannot be filled.
    """
    made = _made(report, templates) | ({"page": folder.number} if folder else {})
    values = _values(report) | {"block": Markup(to_json(made, indent=None)), "folder": folder}  # noqa: S704
    return fill("report.html.j2", values, templates=templates)


def render_markdown(report: Report, *, templates: Path | None = None) -> str:
    """Render a report as Markdown (CommonMark with tables). Raises InputError as `render_html`."""
    from .text import Markdown

    values = _values(report) | {"block": Markdown(to_json(_made(report, templates), indent=None))}
    return fill("report.md.j2", values, templates=templates)


def render_index(
    report: Report, pages: Sequence[str], facets: Sequence["Facet"], *, templates: Path | None = None
) -> str:
    """Render the index of a folder, whose pages have these names. Raises InputError as `render_html`."""
    made = to_json(_made(report, templates), indent=None)
    values = _values(report) | {"block": Markup(made), "folder": None, "pages": pages, "facets": facets}  # noqa: S704
    values["hrefs"] = pages
    return fill("folder.html.j2", values, templates=templates)


def _made(report: Report, templates: Path | None) -> dict[str, Any]:
    own = templates_id(templates)
    return block(report) | ({"templates": own} if own else {})


def _values(report: Report) -> dict[str, Any]:
    comparison: Comparison | None = compare(*report.queries) if report.settings.compare else None
    return {
        "report": report,
        "views": [view(number, query) for number, query in enumerate(report.queries, start=1)],
        "comparison": comparison,
        "answers": () if comparison else answers(report.queries),
        "hrefs": [f"#query-{number}" for number in range(1, len(report.queries) + 1)],
    }


def view(number: int, query: TracedQuery, *, scale: float | None = None) -> QueryView:
    """Return what templates need of the question with a number on its page."""
    return QueryView(
        number=number,
        query=query,
        words=marks.query_words(wording.prompts(query), "\n".join((*query.targets, *query.instead))),
        by_source=shares_by_source(query.proponents),
        by_year=shares_by_year(query.proponents),
        scale=scale,
    )


def _bars(groups: Sequence[Group]) -> list[Bar]:
    return [
        Bar(group.label, group.share, numbers.share(group.share), known=group.known, place=group.place)
        for group in groups
        if group.share is not None
    ]


def _counted(share: Share) -> Bar:
    place = int(share.label) if share.known and share.label.isdecimal() else None
    return Bar(share.label, share.n_hits, str(share.n_hits), known=share.known, place=place)
