"""What `export` writes: rows of a query or of traces in any form, traces as other tools have them, or a whole lake."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from proponent.query.hits import hits_of
from proponent.query.results import Stream
from proponent.query.session import Session
from proponent.query.stored import resolve_trace
from proponent.schema.errors import InputError
from proponent.schema.settings import ExchangeSettings
from proponent.store.lake import LakeStore
from proponent.store.snapshots import latest_snapshot

from .database import export_database
from .dataset import write_dataset
from .forms import SUFFIXES, write_file
from .trec import write_gold, write_judged, write_run
from .viewer import write_viewer

DUCKDB: Final = "duckdb"
"""The form of a whole lake."""
VIEWER: Final = "viewer"
RUN: Final = "trec"
QRELS: Final = "qrels"
DATASETS: Final = "datasets"
EXCHANGED: Final = (VIEWER, RUN, QRELS, DATASETS)
"""Forms of other tools."""
_SUFFIXES: Final = {f".{DUCKDB}": DUCKDB, f".{RUN}": RUN, ".run": RUN, f".{QRELS}": QRELS, **SUFFIXES}


def export(
    store: LakeStore,
    session: Session,
    path: Path,
    *,
    sql: str | None,
    parameters: Sequence[Any] | Mapping[str, Any] | None,
    traces: Sequence[str],
    texts: bool,
    form: str | None,
    exchange: ExchangeSettings,
    version: str,
) -> dict[str, int]:
    """Write a file or a folder; return how many rows of which table it has, `rows` where it is no database.

    Raises InputError for a form that does not fit what is to be written.
    """
    form = form or _form_of(path)
    if sql is not None and traces:
        raise InputError("give either a query or traces")
    if form == DUCKDB:
        if sql is not None or traces:
            raise InputError("a DuckDB file is of a whole lake; write rows of a query or of traces in another form")
        return export_database(session, path, texts=texts, version=version)
    if not texts:
        raise InputError("only a DuckDB file is written without texts; leave the column out of the query")
    ids = [resolve_trace(store, name) for name in traces]
    if sql is None:
        return _write(store, session, path, asked=None, ids=ids, form=form, exchange=exchange)
    with session.stream(sql, parameters, settings=replace(session.settings, time_limit_s=None)) as asked:
        return _write(store, session, path, asked=asked, ids=ids, form=form, exchange=exchange)


def _write(
    store: LakeStore,
    session: Session,
    path: Path,
    *,
    asked: Stream | None,
    ids: Sequence[str],
    form: str,
    exchange: ExchangeSettings,
) -> dict[str, int]:
    """Write the rows of a query or traces in any form that is not of a whole lake."""
    if form == QRELS:
        return write_gold(store, session, ids, path, exchange) if asked is None else write_judged(asked, path)
    if form in (VIEWER, RUN):
        write = write_viewer if form == VIEWER else write_run
        return write(store, session, ids or _traces_of(store, asked, form), path, exchange)
    rows = asked or _hits(store, session, ids)
    return {"rows": write_dataset(rows, path) if form == DATASETS else write_file(rows, path, form)}


def _hits(store: LakeStore, session: Session, ids: Sequence[str]) -> pa.Table:
    if not ids:
        raise InputError("say which rows, a query or traces; a whole lake goes into a .duckdb file")
    return hits_of(store, latest_snapshot(store.catalog), ids, documents=session.at).to_arrow()


def _traces_of(store: LakeStore, asked: Stream | None, form: str) -> list[str]:
    """Return the traces that a query names in column trace_id, each once, in its order."""
    if asked is None or "trace_id" not in asked.columns:
        raise InputError(f"form {form} is of traces; name them, or give a query with a column trace_id")
    place = asked.columns.index("trace_id")
    ids = dict.fromkeys(str(row[place]) for row in asked)
    if not ids:
        raise InputError(f"form {form} is of traces, and the query names none")
    return [resolve_trace(store, name) for name in ids]


def _form_of(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(f"{path} has no suffix that names a form; use one of {', '.join(_SUFFIXES)}, or --format")
    return _SUFFIXES[suffix]
