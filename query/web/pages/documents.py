"""Corpus: documents by their text, by conditions and by facets, with counts.

Notable: full text looks at the passages that match best, `MOST_MATCHED` of them, and all other conditions are then
looked for among their documents.
"""

from functools import partial
from typing import Annotated, Any, Final

import msgspec
from markupsafe import Markup

from proponent.query.report import charts, marks, text
from proponent.query.statement import literal
from proponent.query.web import corpus
from proponent.query.web.corpus import ChosenDocuments, Listed, Order
from proponent.query.web.explorer import Explorer
from proponent.query.web.keyset import Cursor, read_page
from proponent.query.web.page import Page
from proponent.query.web.parameters import FieldError
from proponent.query.web.render import url
from proponent.schema.errors import SqlError
from proponent.store.full_text import has_full_text, match_passages, open_full_text
from proponent.store.snapshots import get_snapshot

PATH: Final = "/documents"
MOST_MATCHED: Final = 10_000
"""Passages that a search of full text looks at."""
_SNIPPET: Final = 320
_LISTED: Final = "SELECT doc_id, count(DISTINCT trace_id) AS n FROM influence WHERE doc_id IS NOT NULL GROUP BY doc_id"
_TEXTS: Final = "SELECT passage_id, text FROM passages WHERE passage_id IN (SELECT unnest($passages))"


class WantedDocuments(ChosenDocuments, frozen=True, kw_only=True):
    """Which documents are listed, in which order, from which page on."""

    sort: Annotated[Order | None, msgspec.Meta(description="By default the best for a text, else by title.")] = None
    after: Cursor | None = None
    before: Cursor | None = None


class DocumentRow(Listed, frozen=True, kw_only=True):
    """A document in the list."""

    traces: int
    """Traces that list one of its passages."""
    passage_id: str | None = None
    """The passage that matches the text best."""
    passage: str | None = None
    """Its text."""


class FacetValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value of a facet, and how many documents have it."""

    value: str | None
    n: int


class DocumentsView(msgspec.Struct, frozen=True, kw_only=True):
    """The list, and what it can be narrowed by."""

    asked: WantedDocuments
    order: Order
    total: int
    documents: list[DocumentRow]
    before: str | None
    """What to give as `before` for the documents before these; null where there are none."""
    after: str | None
    """... as `after` for those after them."""
    facets: dict[str, list[FacetValue]]
    full_text: bool
    """Whether the lake has a full-text index."""
    cut: bool
    """Whether more passages match than were looked at."""
    sql: str

    @property
    def chosen(self) -> dict[str, Any]:
        """The conditions and the order as the query string has them, but for the page."""
        asked = msgspec.to_builtins(self.asked)
        return {name: value for name, value in asked.items() if name not in {"after", "before"} and value}

    @property
    def narrowed(self) -> list[tuple[str, str, str]]:
        """The facets that the list is narrowed by: (facet, value, the address without it)."""
        found = []
        for name in (*corpus.FACETS, "entity"):
            value = getattr(self.asked, name)
            if value is not None:
                found.append((name, str(value), url(PATH, {**self.chosen, name: None})))
        for name in self.asked.without:
            others = [one for one in self.asked.without if one != name]
            found.append((name, "not known", url(PATH, {**self.chosen, "without": others})))
        return found

    def narrower(self, facet: str, value: str | None) -> str:
        """Return the address of the documents that have a value besides."""
        if value is None:
            return url(PATH, {**self.chosen, "without": [*self.asked.without, facet]})
        return url(PATH, {**self.chosen, facet: value})

    @property
    def histogram(self) -> Markup:
        """Documents by year, as a picture; empty for fewer than two years."""
        years = [one for one in self.facets.get("year", []) if one.value is not None]
        bars = [charts.Bar(one.value or "", one.n, f"{one.n:,}", place=int(one.value or 0)) for one in years]
        return (
            charts.column_chart(bars, ident="years", title="Documents by year", span="year") if bars[1:] else Markup()
        )

    def snippet(self, row: DocumentRow) -> Markup:
        """Return the place of a passage where the words that were searched for stand, with them marked."""
        return snippet(row.passage or "", self.asked.text or "")


def snippet(passage: str, searched: str) -> Markup:
    """Return some characters of a passage around the first of some words, with all of them marked."""
    words = marks.query_words("", searched)
    before = 0
    for run in marks.runs(passage, words):
        if run.kind == "target":
            break
        before += len(run.text)
    start = max(0, before - _SNIPPET // 3) if before < len(passage) else 0
    part = passage[start : start + _SNIPPET]
    out = Markup("… ") if start else Markup()
    for run in marks.runs(part, words):
        shown = text.html(run.text)
        out += Markup('<mark class="target">{}</mark>').format(shown) if run.kind == "target" else shown
    return out + Markup(" …") if start + _SNIPPET < len(passage) else out


class _Matched(msgspec.Struct, frozen=True):
    """Documents that match a text, best first, each with the passage of it that does."""

    passages: dict[str, str]
    cut: bool


def _load(explorer: Explorer, params: WantedDocuments) -> DocumentsView:
    met, matched = corpus.conditions(params), _matched(explorer, params)
    found = {"matched": list(matched.passages)} if matched is not None else {}
    order: Order = params.sort or ("best" if matched is not None else "title")
    if order == "best" and matched is None:
        raise FieldError("sort", "the best are those for a text; search for one, or sort otherwise")
    among = [*met, corpus.MATCHED] if matched is not None else met
    try:
        listed = partial(corpus.listing, met if order == "best" else among, order)
        page = read_page(
            explorer,
            listed,
            corpus.ORDERS[order],
            after=params.after,
            before=params.before,
            most=corpus.PER_PAGE,
            parameters=found,
        )
        facets = _facets(explorer, among, found)
    except SqlError as error:
        if params.filter is None:
            raise
        hint = "; TRY_CAST makes NULL of what cannot be converted" if "Could not convert" in str(error) else ""
        raise FieldError("filter", f"the filter cannot be applied: {error}{hint}") from error
    return DocumentsView(
        asked=params,
        order=order,
        total=next((one.n for one in facets["all"]), 0),
        documents=_rows(explorer, page.rows, matched),
        before=page.before,
        after=page.after,
        facets={name: values for name, values in facets.items() if name != "all"},
        full_text=_has_full_text(explorer),
        cut=matched is not None and matched.cut,
        sql=page.shown(listed) if matched is None else _of_ids(page.rows),
    )


def _has_full_text(explorer: Explorer) -> bool:
    at = get_snapshot(explorer.lake.catalog, explorer.readers.state()[0])
    return explorer.kept("full text", lambda: has_full_text(explorer.lake, at))


def _matched(explorer: Explorer, params: WantedDocuments) -> _Matched | None:
    """Return what matches the text that is searched for. Raises FieldError where there is no index for that."""
    if params.text is None:
        return None
    if not _has_full_text(explorer):
        raise FieldError(
            "text", "there is no full-text index yet; `proponent index LAKE` builds it. Titles can be searched without."
        )
    at = get_snapshot(explorer.lake.catalog, explorer.readers.state()[0])
    found = match_passages(open_full_text(explorer.lake, at), params.text, most=MOST_MATCHED)
    passages: dict[str, str] = {}
    for doc_id, passage_id in zip(found["doc_id"].to_pylist(), found["passage_id"].to_pylist(), strict=True):
        passages.setdefault(doc_id, passage_id)
    return _Matched(passages, found.num_rows >= MOST_MATCHED)


def _facets(explorer: Explorer, met: list[str], found: dict[str, Any]) -> dict[str, list[FacetValue]]:
    """Return the counts, which are kept: they are the same on every page of a list."""

    def counted() -> dict[str, list[FacetValue]]:
        facets: dict[str, list[FacetValue]] = {"all": [], **{name: [] for name in (*corpus.FACETS, "entity")}}
        for row in explorer.rows(corpus.counting(met), found):
            facets[row["facet"]].append(FacetValue(value=row["value"], n=row["n"]))
        return facets

    return explorer.kept(("facets", tuple(met), tuple(found.get("matched", ()))), counted)


def _rows(explorer: Explorer, rows: list[dict[str, Any]], matched: _Matched | None) -> list[DocumentRow]:
    listed: dict[str, int] = explorer.kept("listed documents", lambda: _listed(explorer))
    best = {row["doc_id"]: matched.passages[row["doc_id"]] for row in rows} if matched is not None else {}
    texts: dict[str, str] = {}
    if best:
        found = explorer.rows(_TEXTS, {"passages": list(best.values())})
        texts = {row["passage_id"]: row["text"] for row in found}
    more = [
        {
            "traces": listed.get(row["doc_id"], 0),
            "passage_id": best.get(row["doc_id"]),
            "passage": texts.get(best.get(row["doc_id"], "")),
        }
        for row in rows
    ]
    return [msgspec.convert(row | one, DocumentRow) for row, one in zip(rows, more, strict=True)]


def _listed(explorer: Explorer) -> dict[str, int]:
    return {row["doc_id"]: row["n"] for row in explorer.rows(_LISTED)}


def _of_ids(rows: list[dict[str, Any]]) -> str:
    """Return a statement of what a search of full text found, which SQL has no function for."""
    ids = ", ".join(literal(row["doc_id"]) for row in rows)
    condition = f"documents.doc_id IN ({ids})" if rows else "false"
    return corpus.listing([], "title", condition, "title NULLS LAST, documents.doc_id")


PAGE = Page(
    name="documents",
    path=PATH,
    title="Corpus",
    summary="Documents by their text, by conditions and by facets, with counts",
    nav="Corpus",
    params=WantedDocuments,
    data=DocumentsView,
    load=_load,
)
