"""What `export` writes: the rows of a query or of traces in any form, or a whole lake."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from proponent.query.hits import hits_of
from proponent.query.session import Session
from proponent.query.stored import resolve_trace
from proponent.schema.errors import InputError
from proponent.store.lake import LakeStore
from proponent.store.snapshots import latest_snapshot

from .database import export_database
from .forms import SUFFIXES, write_file

DUCKDB: Final = "duckdb"
"""The form of a whole lake; all others are of rows."""


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
    version: str,
) -> dict[str, int]:
    """Write a file; return how many rows of which table it has, `rows` where it is no database.

    Raises InputError for a form that does not fit what is to be written.
    """
    form = form or _form_of(path)
    if sql is not None and traces:
        raise InputError("give either a query or traces")
    if form == DUCKDB:
        if sql is not None or traces:
            raise InputError("a DuckDB file is of a whole lake; write rows of a query or of traces in another form")
        return export_database(session, path, texts=texts, version=version)
    if sql is None and not traces:
        raise InputError("say which rows, a query or traces; a whole lake goes into a .duckdb file")
    if not texts:
        raise InputError("only a DuckDB file is written without texts; leave the column out of the query")
    if sql is not None:
        with session.stream(sql, parameters, settings=replace(session.settings, time_limit_s=None)) as stream:
            return {"rows": write_file(stream, path, form)}
    ids = [resolve_trace(store, name) for name in traces]
    hits = hits_of(store, latest_snapshot(store.catalog), ids, documents=session.at)
    return {"rows": write_file(hits.to_arrow(), path, form)}


def _form_of(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == f".{DUCKDB}":
        return DUCKDB
    if suffix not in SUFFIXES:
        raise InputError(f"{path} has no suffix that names a form; use one of .{DUCKDB}, {', '.join(SUFFIXES)}")
    return SUFFIXES[suffix]
