"""Stored traces as other tools' files tell them: who asked what, and the hits of both sides."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import select

from proponent.query.hits import hits_of
from proponent.query.session import Session
from proponent.schema import catalog as models
from proponent.schema.errors import InputError
from proponent.schema.settings import ExchangeSettings
from proponent.store.lake import LakeStore
from proponent.store.snapshots import latest_snapshot

_AT_ONCE: Final = 100
"""Traces whose hits are in memory at one time, with the texts of their passages."""


class Traced(NamedTuple):
    """A trace, its query, and its hits with the columns of relation `influence`, best first."""

    trace: models.Trace
    query: models.Query
    proponents: list[dict[str, Any]]
    opponents: list[dict[str, Any]]


def traced(lake: LakeStore, session: Session, trace_ids: Sequence[str]) -> Iterator[Traced]:
    """Yield traces in their order, with passages as the session has them."""
    at = latest_snapshot(lake.catalog)
    for start in range(0, len(trace_ids), _AT_ONCE):
        ids = trace_ids[start : start + _AT_ONCE]
        with lake.catalog.read() as reading:
            asked = select(models.Trace, models.Query).join(models.Query).where(models.Trace.trace_id.in_(ids))
            rows = {trace.trace_id: (trace, query) for trace, query in reading.execute(asked)}
        sides: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for hit in hits_of(lake, at, ids, documents=session.at).to_dicts():
            sides.setdefault((hit["trace_id"], hit["side"]), []).append(hit)
        for one in ids:
            yield Traced(*rows[one], sides.get((one, "proponent"), []), sides.get((one, "opponent"), []))


def told_id(query: models.Query, exchange: ExchangeSettings) -> str:
    """Return a query's id in the file. Raises InputError for a query whose metadata has none."""
    if exchange.query_id is None:
        return query.query_id
    value = (query.facts or {}).get(exchange.query_id)
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise InputError(
            f"query {query.query_id} has no {exchange.query_id!r} in its metadata that could be its id; "
            "leave out --query-id to take the lake's own ids"
        )
    return str(value)
