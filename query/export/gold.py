"""Which passages state what a query asks, as far as its metadata says.

Fields are those of a file of facts: `passage_ids`, and `doc_keys`, of whose documents every passage does. A passage
stands for its text, so every passage of the same text is one, too.
"""

from collections.abc import Iterable
from typing import Any

from proponent.query.session import Session
from proponent.schema import catalog as models


def gold_passages(session: Session, queries: Iterable[models.Query]) -> dict[str, set[str]]:
    """Return the ids of the passages by query_id, of those queries that name any which the session has."""
    passages: list[tuple[str, str]] = []
    documents: list[tuple[str, str]] = []
    for query in queries:
        facts = query.facts or {}
        passages += [(query.query_id, one) for one in _texts(facts.get("passage_ids"))]
        documents += [(query.query_id, one) for one in _texts(facts.get("doc_keys"))]
    if not passages and not documents:
        return {}
    parameters = {
        "queries": [query_id for query_id, _ in passages],
        "passages": [passage_id for _, passage_id in passages],
        "doc_queries": [query_id for query_id, _ in documents],
        "doc_keys": [doc_key for _, doc_key in documents],
    }
    found: dict[str, set[str]] = {}
    for row in session.trusted("gold", parameters).to_pylist():
        found.setdefault(row["query_id"], set()).add(row["passage_id"])
    return found


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
