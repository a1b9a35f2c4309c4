"""What is chosen of a corpus: conditions on documents, and the statements that list and count those that meet them.

Notable: a statement is made of literals and of what the gate of filters wrote, so that what runs is what "Show SQL"
shows. Its rows are of the views of a session, which hide withdrawn documents.
"""

from datetime import date
from typing import Annotated, Any, Final, Literal

import msgspec

from proponent.query.filter import parse_filter
from proponent.query.statement import literal
from proponent.schema.errors import FilterError
from proponent.schema.tables import DOCUMENTS

from .keyset import Key, key
from .parameters import FieldError

PER_PAGE: Final = 50
_TITLE: Final = 200
"""Characters of a title that documents are ordered by."""
LARGEST: Final = 12
"""Values of a facet that are counted one by one."""

FACETS: Final = {
    "corpus": "corpus",
    "source": "source",
    "year": "year(published)",
    "language": "language",
    "trained_on": "trained_on",
}
"""Facets of documents, and what each is a facet by; entities are another one."""

_ID: Final = key("doc_id", expression="documents.doc_id")
ORDERS: Final[dict[str, tuple[Key, ...]]] = {
    "title": (
        Key(f"left(title, {_TITLE})", "text", lambda row: row["title"] and row["title"][:_TITLE], nullable=True),
        _ID,
    ),
    "newest": (key("published", "date", descending=True, nullable=True), _ID),
    "oldest": (key("published", "date", nullable=True), _ID),
    "key": (key("corpus"), key("doc_key"), _ID),
    "longest": (key("n_passages", "number", descending=True), _ID),
    "listed": (key("n_listed", "number", expression="coalesce(listed, 0)", descending=True), _ID),
    "best": (key("place", "number"), _ID),
}
"""Keys of every order."""
MATCHED: Final = "documents.doc_id IN (SELECT unnest($matched))"
"""Condition that a document is one of those in parameter `matched`, whose order is the order `best`."""
Order = Literal["best", "title", "newest", "oldest", "key", "longest", "listed"]

_COLUMNS: Final = (
    "documents.doc_id, doc_key, corpus, source, published, published_precision, title, language, trained_on, n_passages"
)
_LISTED: Final = (
    "LEFT JOIN (\n"
    "    SELECT doc_id, count(DISTINCT trace_id) AS listed FROM influence GROUP BY doc_id\n"
    ") AS traced USING (doc_id)"
)
_JOINED: Final = {
    "listed": _LISTED,
    "best": "JOIN (\n    SELECT unnest($matched) AS doc_id, unnest(range(len($matched))) AS place\n"
    ") AS matched USING (doc_id)",
}
"""What orders need besides documents; joined with USING, since filters say doc_id alone."""
_MORE_COLUMNS: Final = {"listed": ", coalesce(listed, 0) AS n_listed", "best": ", place"}
_WITH_DOCUMENTS: Final = """
        SELECT documents.* EXCLUDE (doc_id), passages.* FROM passages JOIN documents USING (doc_id)
""".strip("\n")
_WITH_ENTITIES: Final = """
        SELECT documents.* EXCLUDE (doc_id), passages.*, coalesce(named.entities, []) AS entities
        FROM passages
        JOIN documents USING (doc_id)
        LEFT JOIN (
            SELECT passage_id, list(DISTINCT entity ORDER BY entity) AS entities FROM mentions GROUP BY passage_id
        ) AS named USING (passage_id)
""".strip("\n")
"""Passages with what filters name besides, as a search sees them."""

_Text = Annotated[str, msgspec.Meta(max_length=10_000)]


class ChosenDocuments(msgspec.Struct, frozen=True, kw_only=True):
    """Which documents are looked at."""

    text: Annotated[_Text | None, msgspec.Meta(description="Words of the text, by the full-text index.")] = None
    name: Annotated[_Text | None, msgspec.Meta(description="A part of the title or of the corpus's own id.")] = None
    filter: Annotated[_Text | None, msgspec.Meta(description="A predicate, as filters of questions are.")] = None
    corpus: _Text | None = None
    source: _Text | None = None
    year: Annotated[int, msgspec.Meta(ge=1, le=9999)] | None = None
    language: _Text | None = None
    trained_on: Literal["true", "false"] | None = None
    entity: Annotated[_Text | None, msgspec.Meta(description="An entity that a passage mentions.")] = None
    without: Annotated[
        tuple[Literal["source", "year", "language", "trained_on"], ...],
        msgspec.Meta(description="Facets of which nothing is known of the document."),
    ] = ()


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A document in a list."""

    doc_id: str
    doc_key: str
    corpus: str
    source: str | None
    published: date | None
    published_precision: Literal["day", "month", "year"] | None
    title: str | None
    language: str | None
    trained_on: bool | None
    n_passages: int


def conditions(chosen: ChosenDocuments) -> list[str]:
    """Return the conditions on documents, full text left out. Raises FieldError for a filter that is refused."""
    found = [f"{FACETS[name]} IS NULL" for name in dict.fromkeys(chosen.without)]
    found += [f"{FACETS[name]} = {_value(name, chosen)}" for name in FACETS if getattr(chosen, name) is not None]
    if chosen.name:
        part = literal(chosen.name.lower())
        found.append(f"(contains(lower(title), {part}) OR contains(lower(doc_key), {part}))")
    if chosen.entity:
        of_entity = f"SELECT doc_id FROM mentions WHERE entity = {literal(chosen.entity)}"  # noqa: S608 - a literal
        found.append(f"documents.doc_id IN ({of_entity})")
    if chosen.filter:
        found.append(_filtered(chosen.filter))
    return found


def _value(name: str, chosen: ChosenDocuments) -> str:
    value: Any = getattr(chosen, name)
    return str(value) if name in {"year", "trained_on"} else literal(value)


def _filtered(fragment: str) -> str:
    """Return a filter as a condition on documents: those that have a passage which passes."""
    try:
        checked = parse_filter(fragment)
    except FilterError as error:
        raise FieldError("filter", str(error)) from error
    if checked.columns <= {*DOCUMENTS.names, "near_duplicate"} and "passage_id" not in checked.sql:
        return f"({checked.sql})"
    if checked.uses_entities:
        of_passages = f"FROM (\n{_WITH_ENTITIES}\n    )"
    elif checked.uses_documents:
        of_passages = f"FROM (\n{_WITH_DOCUMENTS}\n    )"
    else:
        of_passages = "FROM passages"
    return f"documents.doc_id IN (\n    SELECT doc_id {of_passages}\n    WHERE {checked.sql}\n)"


def where(met: list[str]) -> str:
    """Return a clause of conditions, which all have to be met; nothing for none."""
    return "WHERE " + "\n  AND ".join(met) + "\n" if met else ""


def listing(met: list[str], order: str, condition: str, by: str) -> str:
    """Return the statement that lists documents of a page, which a condition and an order make."""
    joined = f"{_JOINED[order]}\n" if order in _JOINED else ""
    columns = _COLUMNS + _MORE_COLUMNS.get(order, "")
    met = met if condition == "true" else [*met, condition]
    return f"SELECT {columns}\nFROM documents\n{joined}{where(met)}ORDER BY {by}"


def counting(met: list[str]) -> str:
    """Return the statement that counts documents: all of them as facet `all`, and by the values of every facet."""
    columns = ", ".join(f"{expression} AS {name}" for name, expression in FACETS.items())
    facets = [
        f"SELECT '{name}' AS facet, {name}::VARCHAR AS value, count(*) AS n FROM chosen GROUP BY value"  # noqa: S608
        for name in FACETS
    ]
    # Without a condition every mention is of one of them.
    semi = "SEMI JOIN chosen USING (doc_id)" if met else ""
    of_entities = (
        "SELECT 'entity' AS facet, entity AS value, count(*) AS n\n"  # noqa: S608 - nothing of anybody's
        f"FROM (SELECT DISTINCT entity, doc_id FROM mentions {semi})\nGROUP BY value"
    )
    every = ["SELECT 'all' AS facet, NULL::VARCHAR AS value, count(*) AS n FROM chosen", *facets, of_entities]
    return (
        f"WITH chosen AS MATERIALIZED (\nSELECT doc_id, {columns} FROM documents\n{where(met)})\n"
        "SELECT facet, value, n\nFROM (\n" + "\nUNION ALL\n".join(every) + "\n)\n"
        f"QUALIFY facet = 'year' OR row_number() OVER (PARTITION BY facet ORDER BY n DESC, value) <= {LARGEST}\n"
        "ORDER BY facet, CASE WHEN facet = 'year' THEN value END, n DESC, value"
    )
