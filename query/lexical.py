"""Traces by words: BM25 of the passages' texts for the words of prompt and target.

Notable: the search text is what the model reads, prompt and target one after the other, as in the BM25 baseline of
arXiv:2410.17413. A score says how rare and how frequent the shared words are, and nothing of what moved the model; so
there are proponents alone, and no encoder takes part.
"""

from collections.abc import Sequence

import pyarrow as pa

from proponent.schema import catalog as models
from proponent.schema.errors import SettingsError
from proponent.schema.ids import content_id
from proponent.schema.settings import BM25, TraceSettings
from proponent.store.full_text import TOKENIZER, match_texts, open_full_text
from proponent.store.lake import LakeStore
from proponent.store.runs import library_versions
from proponent.store.snapshots import Snapshot
from proponent.store.withdrawn import hidden_documents

from .questions import Question, naming
from .search import Found, PassagesOfTexts, count_passing, ranked, searched_tables
from .session import Session
from .trace import not_stored, query_row, store_traces


def trace_words(
    lake: LakeStore, session: Session, at: Snapshot, questions: Sequence[Question], settings: TraceSettings
) -> list[str]:
    """Trace questions by their words at a snapshot and store the results; return the traces' ids in order.

    Raises FilterError, NotFoundError when the snapshot has no full-text index, and SettingsError for a question that
    has no one text: a mean, or a comparison of two targets.
    """
    texts = [search_text(question) for question in questions]
    hidden = hidden_documents(lake.catalog, at)
    ids = [_trace_id(question, settings, at, hidden=hidden) for question in questions]
    new = not_stored(lake, dict(zip(ids, zip(questions, texts, strict=True), strict=True)))
    if not new:
        return ids
    found, n_candidates = match_words(
        lake, session, at, [text for _, text in new.values()], where=settings.filter, k=settings.k
    )
    traces = [
        models.Trace(
            trace_id=trace_id,
            query_id=question.query_id,
            method=BM25,
            filter=settings.filter,
            snapshot=at.snapshot_id,
            k=settings.k,
            exact=True,
            n_candidates=n_candidates,
            completed=question.completed,
            settings={"versions": library_versions(), "text": text, "tokenizer": TOKENIZER},
        )
        for trace_id, (question, text) in new.items()
    ]
    queries = [query_row(question) for question, _ in new.values()]
    store_traces(lake, [*queries, *traces], dict(zip(new, found, strict=True)))
    return ids


def match_words(
    lake: LakeStore, session: Session, at: Snapshot, texts: Sequence[str], *, where: str | None, k: int
) -> tuple[list[Found], int]:
    """Return the k passages that match the words of each text best, and how many passed the filter; store nothing.

    Raises FilterError, and NotFoundError when the snapshot has no full-text index.
    """
    passages, passing, n = open_full_text(lake, at), PassagesOfTexts(session, where), count_passing(session, where)
    matched = [match_texts(passages, text, passes=passing.have, k=k) for text in texts]
    by_text = passing.of(key for one in matched for key in one.keys)
    return [Found(ranked(one, by_text, k=k, n=n, sign=1), []) for one in matched], n


def search_text(question: Question) -> str:
    """Return the text whose words are searched for: the prompt and the targets, as people read them.

    Raises SettingsError for a mean over questions and for a comparison of targets.
    """
    with naming(question.origin):
        if question.members:
            raise SettingsError(f"method {BM25!r} searches for the words of one question; ask them one by one")
        parts = question.summed
        if any(part.weight < 0 for part in parts):
            raise SettingsError(f"no word speaks against a target; method {BM25!r} takes no --instead")
    between = "\n" if question.chat else ""
    first = f"{parts[0].prompt}{between}{parts[0].target}"
    return "\n".join([first, *(part.target for part in parts[1:])])


def _trace_id(question: Question, settings: TraceSettings, at: Snapshot, *, hidden: pa.Array) -> str:
    return content_id(
        "bm25 trace",
        question.query_id,
        settings.filter or "",
        settings.k,
        *(f"{table}@{at.versions.get(table)}" for table in searched_tables(settings.filter)),
        *sorted(hidden.to_pylist()),  # of an earlier snapshot, what was withdrawn since is not searched
    )
