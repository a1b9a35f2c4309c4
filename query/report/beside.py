"""What a report tells beside the hits, from a lake: whole sources, and passages that match the question's words.

Notable: all of it is of the snapshot that was searched, so that a report made again says the same. Where something
cannot be told, a sentence says why, and what to do about it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from proponent.query.lexical import match_words, search_text
from proponent.query.search import ScoredPassage
from proponent.query.session import Session
from proponent.query.stored import stored_question
from proponent.schema.errors import NotFoundError, SettingsError
from proponent.schema.settings import BM25, HYBRID, METHODS, is_imported
from proponent.store.full_text import has_full_text
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot

from .content import Sources
from .sources import sources

Fact = Mapping[str, Any]

ERASED = "The snapshot that was searched has been erased since."
_BY_WORDS = "Scores by words add up to nothing that could be told of whole sources."
_IMPORTED = "What another tool\u2019s scores add up to cannot be told here."
_NO_INDEX = (
    "The snapshot that was searched has no full-text index. With one (`proponent index`), the passages that share the "
    "most words with the question stand here."
)


Told = tuple[Sources | None, str | None]
"""Where the influence comes from, or a sentence that says why that cannot be told."""


def whole_sources(lake: LakeStore, at: Snapshot, facts: Sequence[Fact]) -> dict[str, Told]:
    """Return where the influence comes from, by trace. Raises LakeBusyError while another process works on the sums."""
    from proponent.query.groups import groups_for_traces  # loads torch

    told: dict[str, Told] = {
        fact["trace_id"]: (None, _IMPORTED if is_imported(fact["method"]) else _BY_WORDS)
        for fact in facts
        if fact["method"] not in (*METHODS, HYBRID)
    }
    of_gradients = {fact["trace_id"]: _of_gradients(fact) for fact in facts if fact["trace_id"] not in told}
    if not of_gradients:
        return told
    try:
        found = groups_for_traces(lake, at, list(dict.fromkeys(of_gradients.values())), ("source", "month"))
    except NotFoundError as error:
        return told | dict.fromkeys(of_gradients, (None, f"Nothing can be said of whole sources: {error}."))
    for trace_id, other in of_gradients.items():
        told[trace_id] = sources(found[other]["source"].to_pylist(), found[other]["month"].to_pylist()), None
    return told


def _of_gradients(fact: Fact) -> str:
    """Return the trace whose scores are of gradients: of a hybrid the one that is part of it."""
    return str(fact["settings"]["fused"]["influence"] if fact["method"] == HYBRID else fact["trace_id"])


Matches = tuple[Sequence[ScoredPassage], str | None]


def matching_words(lake: LakeStore, at: Snapshot, facts: Sequence[Fact], *, k: int) -> dict[str, Matches]:
    """Return the k passages that match a question's words best, by trace, or a sentence that says why there are none.

    They are searched among those that passed the trace's own filter.
    """
    found: dict[str, Matches] = {}
    texts: dict[str | None, dict[str, str]] = defaultdict(dict)
    indexed = has_full_text(lake, at)
    for fact in facts:
        trace_id = fact["trace_id"]
        if fact["method"] in (BM25, HYBRID) or is_imported(fact["method"]):
            found[trace_id] = (), None  # its own list is by words already, or may be
        elif not indexed:
            found[trace_id] = (), _NO_INDEX
        else:
            try:
                texts[fact["filter"]][trace_id] = search_text(stored_question(fact))
            except SettingsError:
                found[trace_id] = (), "Only one question with one target can be searched for by its words."
    if texts:
        with Session(lake, at) as session:
            for where, by_trace in texts.items():
                matched, _ = match_words(lake, session, at, list(by_trace.values()), where=where, k=k)
                found |= {name: (one.proponents, None) for name, one in zip(by_trace, matched, strict=True)}
    return found
