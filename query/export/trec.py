"""Traces as runs, and gold passages as qrels, in the forms that trec_eval and what grew out of it read.

A run has lines `query_id Q0 passage_id rank score tag`, qrels have `query_id 0 passage_id relevance`.

Notable: these tools order by the score and not by the rank, read it as a float of 32 bits, and order equal scores by
id. So a score that is not below the one before it is written as the next float below that.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import select

from proponent.query.results import Stream
from proponent.query.session import Session
from proponent.schema import catalog as models
from proponent.schema.errors import InputError
from proponent.schema.settings import IMPORTED, ExchangeSettings
from proponent.store.lake import LakeStore

from .files import whole
from .gold import gold_passages
from .traced import told_id, traced

_JUDGED: Final = ("query_id", "passage_id", "relevance")


def write_run(
    lake: LakeStore, session: Session, trace_ids: Sequence[str], path: Path, exchange: ExchangeSettings
) -> dict[str, int]:
    """Write one side's hits of traces; return how many traces and hits they are.

    Raises InputError for two traces of one query: a run has one list for each.
    """
    counts = {"traces": 0, "hits": 0}
    seen: set[str] = set()
    with whole(path) as partial, partial.open("w", encoding="utf-8") as sink:
        for one in traced(lake, session, trace_ids):
            query_id = _word(told_id(one.query, exchange))
            if query_id in seen:
                raise InputError(f"a run has one list for a query, and {query_id} has two traces; write a run for each")
            seen.add(query_id)
            hits = one.proponents if exchange.side == "proponent" else one.opponents
            sign = 1 if exchange.side == "proponent" else -1
            tag = exchange.tag or one.trace.method.removeprefix(IMPORTED)
            for hit, score in zip(hits, falling(sign * hit["score"] for hit in hits), strict=True):
                sink.write(f"{query_id} Q0 {hit['passage_id']} {hit['rank']} {score!r} {tag}\n")
            counts["traces"] += 1
            counts["hits"] += len(hits)
    return counts


def falling(scores: Iterable[float]) -> Iterator[float]:
    """Yield scores, each lower than the one before even as a float of 32 bits."""
    before = np.float32(np.inf)
    for score in scores:
        with np.errstate(over="ignore", under="ignore"):
            read = np.float32(score)
            before = min(read, np.nextafter(before, np.float32(-np.inf)))
        yield score if before == read else float(before)


def write_judged(stream: Stream, path: Path) -> dict[str, int]:
    """Write rows with columns query_id, passage_id and relevance. Raises InputError for rows that lack or break one."""
    if missing := [name for name in _JUDGED if name not in stream.columns]:
        raise InputError(f"qrels need columns {', '.join(_JUDGED)}; the query has no {', '.join(missing)}")
    places = [stream.columns.index(name) for name in _JUDGED]
    return {"rows": _write_qrels(([row[place] for place in places] for row in stream), path)}


def write_gold(
    lake: LakeStore, session: Session, trace_ids: Sequence[str], path: Path, exchange: ExchangeSettings
) -> dict[str, int]:
    """Write the gold passages of the traces' queries, by default of all queries; return how many there are of how many.

    Raises InputError when no query names any that the session has.
    """
    with lake.catalog.read() as reading:
        asked = select(models.Query).order_by(models.Query.query_id)
        if trace_ids:
            asked = asked.where(models.Query.query_id.in_(_queries_of(trace_ids)))
        queries = list(reading.scalars(asked))
    gold = gold_passages(session, queries)
    if not gold:
        raise InputError(
            "no query's metadata names gold passages of the lake (`passage_ids` or `doc_keys`); "
            f"give them with --sql, with columns {', '.join(_JUDGED)}"
        )
    judged = {told_id(query, exchange): gold[query.query_id] for query in queries if query.query_id in gold}
    rows = ((query_id, passage_id, 1) for query_id, found in judged.items() for passage_id in sorted(found))
    return {"queries": len(judged), "rows": _write_qrels(rows, path)}


def _queries_of(trace_ids: Sequence[str]) -> Any:
    return select(models.Trace.query_id).where(models.Trace.trace_id.in_(trace_ids))


def _write_qrels(rows: Iterable[Sequence[Any]], path: Path) -> int:
    judged: set[tuple[str, str]] = set()
    with whole(path) as partial, partial.open("w", encoding="utf-8") as sink:
        for query_id, passage_id, relevance in rows:
            if not isinstance(relevance, int):
                raise InputError(f"the relevance of a passage is an integer or a boolean, not {relevance!r}")
            pair = _word(query_id), _word(passage_id)
            if pair in judged:
                raise InputError(f"query {pair[0]} has passage {pair[1]} twice; qrels judge it once")
            judged.add(pair)
            sink.write(f"{pair[0]} 0 {pair[1]} {int(relevance)}\n")
    return len(judged)


def _word(value: Any) -> str:
    """Return an id as a field of a line. Raises InputError for one that would be several or none."""
    text = str(value)
    if value is None or text.split() != [text]:
        raise InputError(f"{value!r} cannot be an id in a TREC file, whose fields are single words")
    return text
