"""The list of traces, newest first, and those of one query before the others."""

from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from .explorer import Explorer
from .keyset import Key, Paged, key, read_page

_TRACES: Final = """
SELECT trace_id, query_id, prompt, target, method, encoder, curvature, filter, snapshot, k, traces.created_at
FROM traces JOIN queries USING (query_id)
WHERE {where}
ORDER BY {order}
""".strip()
_FOUND: Final = "($text IS NULL OR contains(lower(prompt || target), lower($text)))"
_KEYS: Final = (key("created_at", "time", expression="traces.created_at", descending=True), key("trace_id"))


class TraceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A trace, and how it was searched."""

    trace_id: str
    query_id: str
    prompt: str
    target: str
    method: str
    encoder: str | None
    curvature: str | None
    filter: str | None
    snapshot: int
    k: int
    created_at: datetime


class TracePage(NamedTuple):
    """Some traces of the list, with what names the pages beside it."""

    traces: list[TraceFacts]
    before: str | None
    after: str | None


def list_traces(
    explorer: Explorer,
    *,
    find: str | None,
    after: str | None,
    before: str | None,
    most: int,
    beside: TraceFacts | None = None,
) -> TracePage:
    """Return a page of the traces, of those that have a text in their question. Raises FieldError.

    With `beside`, other traces of its query come first, and it is not among them.
    """
    keys: tuple[Key, ...] = _KEYS
    where, parameters = _FOUND, {"text": find}
    if beside is not None:
        of_it = Key("(query_id = $query)::INTEGER", "number", lambda row: int(row["query_id"] == beside.query_id), True)
        keys = (of_it, *_KEYS)
        where = f"trace_id <> $trace AND {_FOUND}"
        parameters |= {"trace": beside.trace_id, "query": beside.query_id}

    def statement(condition: str, order: str) -> str:
        return _TRACES.format(where=f"{where}\n  AND {condition}", order=order)

    page: Paged = read_page(explorer, statement, keys, after=after, before=before, most=most, parameters=parameters)
    return TracePage(msgspec.convert(page.rows, list[TraceFacts]), page.before, page.after)


def newest_beside(explorer: Explorer, trace: TraceFacts, method: str) -> TraceFacts | None:
    """Return the newest other trace of the same query by a method and under the same filter."""
    where = "query_id = $query AND method = $method AND filter IS NOT DISTINCT FROM $filter AND trace_id <> $trace"
    asked: dict[str, Any] = {
        "query": trace.query_id,
        "method": method,
        "filter": trace.filter,
        "trace": trace.trace_id,
    }
    statement = _TRACES.format(where=where, order="traces.created_at DESC, trace_id")
    found = explorer.rows(f"{statement}\nLIMIT 1", asked)
    return msgspec.convert(found[0], TraceFacts) if found else None
