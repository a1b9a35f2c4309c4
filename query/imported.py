"""Results of other tools as stored traces, which can be queried and reported beside the lake's own.

Notable: such a trace has no encoder and no curvature, and its method says whose it is, as `imported:official`. Nothing
was searched here, so it counts as not exact, without candidates, percentiles and recall.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import inspect, select

from proponent.schema import catalog as models
from proponent.schema.errors import InputError, NotFoundError
from proponent.schema.ids import content_id
from proponent.schema.settings import ExchangeSettings
from proponent.store.lake import LakeStore
from proponent.store.runs import library_versions

from .imported_files import Listed, ListedHit, read_run, read_viewer
from .questions import Question
from .report.numbers import count
from .search import Found, ScoredPassage
from .session import Session
from .trace import not_stored, query_row, store_traces

FORMS: Final = ("viewer", "trec")
_SUFFIXES: Final = {".trec": "trec", ".run": "trec", ".jsonl": "viewer"}
_NAMED: Final = 3
_RUN_ID: Final = "id"
"""Field of given queries that is their id in a run, unless another is named."""


def import_traces(
    lake: LakeStore,
    session: Session,
    path: Path,
    *,
    form: str | None,
    method: str,
    exchange: ExchangeSettings,
    asked: Sequence[Question],
    query_set: str | None,
    skip_unknown: bool,
) -> dict[str, Any]:
    """Store what a file lists; return the traces' ids in its order, the hits, and how many were left out as unknown.

    `asked` are what the queries of a run stand for, besides those that the lake has. Importing the same again changes
    nothing. Raises InputError for a file that cannot be read, for unknown passages unless they are to be skipped, and
    for a passage that is listed twice; NotFoundError for unknown queries.
    """
    form = form or _form_of(path)
    listed = list(read_viewer(path) if form == "viewer" else read_run(path, exchange.side))
    queries = _queries(lake, listed, path, exchange=exchange, asked=asked, query_set=query_set)
    found, unknown = _passages(session, listed)
    n_hits, n_unknown = sum(len(one.hits) for one in listed), len(unknown)
    if n_unknown and (n_unknown == n_hits or not skip_unknown):
        others = "" if n_unknown == n_hits else "; --skip-unknown leaves them out"
        raise InputError(
            f"{path}: {n_unknown:,} of {n_hits:,} hits are of passages that the lake does not have "
            f"({_some(unknown)}){others}"
        )
    ids = [_trace_id(method, query, one) for query, one in zip(queries, found, strict=True)]
    taken = dict(zip(ids, zip(queries, found, strict=True), strict=True))
    taken = not_stored(lake, taken)
    rows: list[models.Trace | models.Query] = [query for query, _ in taken.values() if inspect(query).transient]
    for trace_id, (query, both) in taken.items():
        rows.append(_trace(trace_id, query, both, method, session.at.snapshot_id, path=path, form=form))
    if taken:
        store_traces(lake, rows, {trace_id: both for trace_id, (_, both) in taken.items()}, command="import-traces")
    return {"traces": ids, "hits": n_hits - n_unknown, "unknown": n_unknown}


def _form_of(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(f"{path} has no suffix that names a form; say with --format which of {', '.join(FORMS)} it is")
    return _SUFFIXES[suffix]


def _queries(
    lake: LakeStore,
    listed: Sequence[Listed],
    path: Path,
    *,
    exchange: ExchangeSettings,
    asked: Sequence[Question],
    query_set: str | None,
) -> list[models.Query]:
    """Return what each list is for: a query that the lake or the caller knows by its id, or that the file spells out.

    A viewer's prompt and target must be those of the query with its id, which otherwise is another one's.
    """
    known = _known(lake, exchange.query_id) | _given(asked, exchange.query_id or _RUN_ID)
    queries, unknown = [], []
    for one in listed:
        query = known.get(one.query)
        if one.prompt is not None and one.target is not None:
            if query is None or (query.prompt, query.target) != (one.prompt, one.target):
                query = query_row(
                    Question(one.prompt, one.target, query_set=query_set or one.query_set, metadata=one.metadata)
                )
        elif one.query in known and query is None:
            raise InputError(f"{path}: several queries of the lake have the id {one.query!r}; take another field")
        if query is None:
            unknown.append(one.query)
        else:
            queries.append(query)
    if unknown:
        raise NotFoundError(
            f"{path} names {count(len(unknown), 'id')} that no query of the lake has ({_some(unknown)}); give the "
            "queries with --queries FILE, or name the field of their metadata that has the ids with --query-id"
        )
    return queries


def _known(lake: LakeStore, field: str | None) -> dict[str, models.Query | None]:
    """Return the lake's queries by their id in the file; None where several have the same."""
    known: dict[str, models.Query | None] = {}
    with lake.catalog.read() as reading:
        for query in reading.scalars(select(models.Query)):
            value = query.query_id if field is None else (query.facts or {}).get(field)
            if value is not None:
                known[str(value)] = None if str(value) in known else query
    return known


def _given(asked: Sequence[Question], field: str) -> dict[str, models.Query | None]:
    given: dict[str, models.Query | None] = {}
    for question in asked:
        value = (question.metadata or {}).get(field)
        if value is None:
            raise InputError(f"{question.origin}: needs a field {field!r}, the query's id in the run")
        if str(value) in given:
            raise InputError(f"{question.origin}: the id {value!r} is another query's already")
        given[str(value)] = query_row(question)
    return given


def _passages(session: Session, listed: Sequence[Listed]) -> tuple[list[Found], list[str]]:
    """Return the hits of each list that are of passages of the lake, as the file ranks them, and other hits' ids."""
    named = {hit.passage for one in listed for hit in one.hits if hit.passage is not None}
    rows = session.trusted("listed_passages", {"ids": sorted(named)})
    known = set(rows["passage_id"].to_pylist())
    texts = {
        hit.text_hash for one in listed for hit in one.hits if hit.passage not in known and hit.text_hash is not None
    }
    by_text: dict[str, list[str]] = {}
    if texts:
        rows = session.trusted("listed_texts", {"hashes": sorted(texts)})
        by_text = dict(zip(rows["text_hash"].to_pylist(), rows["passage_ids"].to_pylist(), strict=True))
    found, unknown = [], []
    for one in listed:
        sides: dict[str, list[ScoredPassage]] = {"proponent": [], "opponent": []}
        for side, scored in sides.items():
            of_side = [hit for hit in one.hits if hit.side == side]
            for hit, passage_id in _matched(of_side, known, by_text, one.origin):
                if passage_id is None:
                    unknown.append(hit.passage or "a text without an id")
                else:
                    scored.append(ScoredPassage(passage_id, hit.rank, hit.score, None))
        found.append(Found(sides["proponent"], sides["opponent"]))
    return found, unknown


def _matched(
    hits: Sequence[ListedHit], known: set[str], by_text: Mapping[str, Sequence[str]], origin: str
) -> list[tuple[ListedHit, str | None]]:
    """Return one side's hits with their passages: by id, else the first of the text that is not listed yet."""
    by_id = [hit.passage for hit in hits if hit.passage in known]
    taken = set(by_id)
    if len(taken) < len(by_id):
        twice = next(passage for place, passage in enumerate(by_id) if passage in by_id[:place])
        raise InputError(f"{origin}: lists passage {twice} twice on one side")
    matched: list[tuple[ListedHit, str | None]] = []
    for hit in hits:
        passage_id = hit.passage if hit.passage in known else None
        if passage_id is None:
            passage_id = next((one for one in by_text.get(hit.text_hash or "", ()) if one not in taken), None)
            taken |= {passage_id} if passage_id else set()
        matched.append((hit, passage_id))
    return matched


def _trace_id(method: str, query: models.Query, both: Found) -> str:
    sides = (("proponent", both.proponents), ("opponent", both.opponents))
    hits = (f"{side} {hit.rank} {hit.passage_id} {hit.score!r}" for side, scored in sides for hit in scored)
    return content_id("imported trace", method, query.query_id, *hits)


def _trace(
    trace_id: str, query: models.Query, both: Found, method: str, snapshot: int, *, path: Path, form: str
) -> models.Trace:
    return models.Trace(
        trace_id=trace_id,
        query_id=query.query_id,
        method=method,
        snapshot=snapshot,
        k=max((hit.rank for hit in (*both.proponents, *both.opponents)), default=0),
        exact=False,
        n_candidates=0,
        completed=False,
        settings={"versions": library_versions(), "imported": {"file": path.name, "form": form}},
    )


def _some(names: Sequence[str]) -> str:
    different = list(dict.fromkeys(names))
    return ", ".join(different[:_NAMED]) + (", ..." if len(different) > _NAMED else "")
