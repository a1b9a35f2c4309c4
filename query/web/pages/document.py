"""One document: what is known of it, its passages with their mentions, and the questions that it moved most."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from markupsafe import Markup

from proponent.query.report import text
from proponent.query.statement import literal
from proponent.query.web.corpus import Listed
from proponent.query.web.explorer import Explorer
from proponent.query.web.page import Page
from proponent.query.web.render import url
from proponent.schema.errors import NotFoundError
from proponent.schema.settings import SIDES

PER_PAGE: Final = 50
"""Passages on a page."""
MOST_TRACES: Final = 10
"""Traces of a side that are shown."""

_DOCUMENT: Final = "SELECT * EXCLUDE (content_hash, run_id, n_passages) FROM documents WHERE doc_id = $doc_id"
_COUNT: Final = "SELECT count(*) AS n FROM passages WHERE doc_id = $doc_id"
_PLACE: Final = (
    "SELECT count(*) AS n FROM passages WHERE doc_id = $doc_id "
    "AND ordinal < (SELECT ordinal FROM passages WHERE passage_id = $passage AND doc_id = $doc_id)"
)
_PASSAGES: Final = (
    "SELECT passage_id, ordinal, char_start, char_end, n_tokens, text FROM passages WHERE doc_id = $doc_id "
    "ORDER BY ordinal LIMIT $most OFFSET $skipped"
)
_MENTIONS: Final = (
    "SELECT passage_id, entity, surface, type, origin, char_start, char_end FROM mentions "
    "WHERE doc_id = $doc_id AND passage_id IN (SELECT unnest($passages)) ORDER BY passage_id, char_start, char_end DESC"
)
_ALIKE: Final = "SELECT 1 FROM stored_near_duplicates WHERE doc_id = $doc_id OR of_doc_id = $doc_id LIMIT 1"
"""Most documents have none, and the relation looks at every document for what is out of date."""
_DUPLICATES: Final = """
SELECT documents.doc_id, doc_key, corpus, source, title, alike.similarity
FROM (
    SELECT of_doc_id AS doc_id, similarity FROM near_duplicates WHERE doc_id = $doc_id
    UNION ALL SELECT doc_id, similarity FROM near_duplicates WHERE of_doc_id = $doc_id
) AS alike
JOIN documents USING (doc_id)
ORDER BY similarity DESC, documents.doc_id LIMIT 100
"""
_HITS: Final = """
SELECT trace_id, query_id, prompt, target, method, side, passage_id, rank, score, z_score, percentile
FROM influence
WHERE doc_id = {doc_id}
QUALIFY row_number() OVER (PARTITION BY trace_id, side ORDER BY rank) = 1
ORDER BY side DESC, abs(z_score) DESC NULLS LAST, rank, trace_id
""".strip()
_MOST: Final = """
SELECT *, count(*) OVER (PARTITION BY side) AS total
FROM ({hits})
QUALIFY row_number() OVER (PARTITION BY side ORDER BY abs(z_score) DESC NULLS LAST, rank, trace_id) <= {most}
ORDER BY side DESC, abs(z_score) DESC NULLS LAST, rank, trace_id
"""


_Id = Annotated[str, msgspec.Meta(max_length=128)]


class OneDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Which document, and which of its passages."""

    doc_id: Annotated[str, msgspec.Meta(max_length=128, description="Id of the document.")]
    passage: Annotated[_Id | None, msgspec.Meta(description="A passage, whose page is shown.")] = None
    page: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1


class PassageMention(msgspec.Struct, frozen=True, kw_only=True):
    """An entity that a passage mentions."""

    passage_id: str
    entity: str
    surface: str | None
    type: str | None
    origin: str
    char_start: int | None
    char_end: int | None


class PassageOfDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A passage, with its place in the document's text."""

    passage_id: str
    ordinal: int
    char_start: int
    char_end: int
    n_tokens: int | None
    text: str
    mentions: list[PassageMention]

    @property
    def marked(self) -> Markup:
        """The text, with what it mentions marked; each links to the documents that mention the same."""
        out, position = Markup(), 0
        for one in self.mentions:
            if one.char_start is None or one.char_end is None or not position <= one.char_start < one.char_end:
                continue  # it is not at any place, or within another mention
            address = url("/documents", entity=one.entity)
            inner = text.html(self.text[one.char_start : one.char_end])
            out += text.html(self.text[position : one.char_start])
            out += Markup('<a class="mention" href="{}">{}</a>').format(text.plain(address), inner)
            position = one.char_end
        return out + text.html(self.text[position:])

    @property
    def entities(self) -> list[tuple[str, str | None]]:
        """Entities with their types, each once."""
        return list(dict.fromkeys((one.entity, one.type) for one in self.mentions))


class AlikeDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Another document that says nearly the same."""

    doc_id: str
    doc_key: str
    corpus: str
    source: str | None
    title: str | None
    similarity: float


class MovedTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace that lists a passage of the document: the one that stands highest on its side."""

    trace_id: str
    query_id: str
    prompt: str
    target: str
    method: str
    side: str
    passage_id: str
    rank: int
    score: float
    z_score: float | None
    percentile: float | None


class DocumentView(Listed, frozen=True, kw_only=True):
    """A document."""

    published_text: str | None
    url: str | None
    author: str | None
    license: str | None
    metadata: str
    page: int
    passages: list[PassageOfDocument]
    near_duplicates: list[AlikeDocument]
    moved: dict[str, list[MovedTrace]]
    """By side, the most moved first."""
    n_moved: dict[str, int]
    """Traces that list it, by side."""
    sql: str

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Fields of the corpus that nothing else has taken, those within others by their path."""
        try:
            return list(_flat("", json.loads(self.metadata)))
        except (ValueError, RecursionError):
            return [("metadata", self.metadata)] if self.metadata else []

    @property
    def alone(self) -> str:
        """The address that asks of this document alone."""
        return url("/", filter=f"doc_id = {literal(self.doc_id)}")


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and (value or not name):
        for inner, one in value.items():
            yield from _flat(f"{name}.{inner}" if name else str(inner), one)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _load(explorer: Explorer, params: OneDocument) -> DocumentView:
    asked: dict[str, Any] = {"doc_id": params.doc_id}
    with explorer.session() as session:

        def rows(statement: str, **more: Any) -> list[dict[str, Any]]:
            return session.sql(statement, asked | more).to_dicts()

        found = rows(_DOCUMENT)
        if not found:
            raise NotFoundError(
                f"there is no document {params.doc_id[:60]!r}; it may have been withdrawn; the corpus has the others"
            )
        n_passages, page = rows(_COUNT)[0]["n"], params.page
        if params.passage is not None:
            page = rows(_PLACE, passage=params.passage)[0]["n"] // PER_PAGE + 1
        passages = rows(_PASSAGES, most=PER_PAGE, skipped=(page - 1) * PER_PAGE)
        mentions = rows(_MENTIONS, passages=[one["passage_id"] for one in passages]) if passages else []
        hits = _HITS.format(doc_id=literal(params.doc_id))
        moved = session.sql(_MOST.format(hits=hits, most=MOST_TRACES)).to_dicts()
        told = {
            "near_duplicates": rows(_DUPLICATES) if rows(_ALIKE) else [],
            "moved": {side: [one for one in moved if one["side"] == side] for side in SIDES},
            "n_moved": {side: next((one["total"] for one in moved if one["side"] == side), 0) for side in SIDES},
            "passages": [
                one | {"mentions": [mention for mention in mentions if mention["passage_id"] == one["passage_id"]]}
                for one in passages
            ],
        }
    return msgspec.convert(
        found[0] | told | {"page": page, "n_passages": n_passages, "sql": hits}, DocumentView, strict=False
    )


PAGE = Page(
    name="document",
    path="/documents/{doc_id}",
    title="Document",
    summary="A document with its passages, and the questions that it moved most",
    params=OneDocument,
    data=DocumentView,
    load=_load,
)
