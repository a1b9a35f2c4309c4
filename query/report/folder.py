"""Many questions as a folder: an index with facets, a page for each question, and all of it as JSON.

Notable: the facets work without JavaScript. Each value is a radio button, and the style sheet hides the questions that
do not have the value which is chosen.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from . import methods
from .content import Report, TracedQuery
from .data import as_data, to_json
from .provenance import report_rows
from .render import Folder, render_html, render_index

INDEX: Final = "index.html"
DATA: Final = "report.json"
VALUES_SHOWN: Final = 12
OTHERS: Final = "others"


@dataclass(frozen=True, slots=True)
class Facet:
    """Something that questions differ in: its values, most frequent first, and the place of each question's value."""

    label: str
    values: tuple[tuple[str, int], ...]
    places: tuple[int, ...]


_FACETS: Final[Mapping[str, Callable[[TracedQuery], str | None]]] = {
    "Query set": lambda query: query.query_set,
    "Method": lambda query: query.method,
    "Encoder": lambda query: query.encoder,
    "Filter": lambda query: query.filter,
    "Source of the first passage": lambda query: query.proponents[0].source if query.proponents else None,
    "Target": lambda query: "said by the model itself" if query.completed_by_model else "given with the question",
}


def facets(report: Report) -> tuple[Facet, ...]:
    """Return what the questions of a report differ in."""
    found = []
    for label, value_of in _FACETS.items():
        values = [value_of(query) or "none" for query in report.queries]
        counted = sorted(Counter(values).items(), key=lambda one: (-one[1], one[0]))
        if len(counted) < 2:
            continue
        shown = counted if len(counted) <= VALUES_SHOWN else counted[: VALUES_SHOWN - 1]
        place_of = {value: place for place, (value, _) in enumerate(shown)}
        rest = len(values) - sum(n for _, n in shown)
        found.append(
            Facet(
                label,
                (*shown, *(((OTHERS, rest),) if rest else ())),
                tuple(place_of.get(value, len(shown)) for value in values),
            )
        )
    return tuple(found)


def folder_files(report: Report, *, templates: Path | None = None) -> dict[str, str]:
    """Return the folder's files by name, the index last: it links to what is there."""
    digits = max(3, len(str(len(report.queries))))
    names = [f"{number:0{digits}}.html" for number in range(1, len(report.queries) + 1)]
    files = {}
    for place, (name, query) in enumerate(zip(names, report.queries, strict=True)):
        around = [names[near] if 0 <= near < len(names) else None for near in (place - 1, place + 1)]
        where = Folder(report.title, INDEX, place + 1, len(names), *around)
        files[name] = render_html(_page(report, query), templates=templates, folder=where)
    files[DATA] = to_json(as_data(report)) + "\n"
    files[INDEX] = render_index(report, names, facets(report), templates=templates)
    return files


def _page(report: Report, query: TracedQuery) -> Report:
    """Return the report of one question among several."""
    settings = replace(report.settings, title=None)
    return replace(
        report,
        title=methods.title((query,)),
        created_at=query.created_at,
        queries=(query,),
        provenance=report_rows(report.lake, (query,), settings),
        settings=settings,
    )
