"""Records of runs: what was done, with which settings and versions, and how it ended."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

from sqlalchemy import select

from proponent.observe.events import around, span, tell
from proponent.schema import catalog as models
from proponent.schema.catalog import now
from proponent.schema.ids import fresh_id

from .catalog import Catalog

_RECORDED = ("proponent", "pylance", "lancedb", "duckdb", "pyarrow", "rensa", "regex", "torch", "transformers")

_log = logging.getLogger(__name__)


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of proponent and of the libraries that decide its results."""
    return {name: version(name) for name in _RECORDED}


def new_run(kind: str, settings: dict[str, Any]) -> models.Run:
    """Return the record of a run that begins now."""
    return models.Run(
        run_id=fresh_id(), kind=kind, status="running", settings=settings, versions=library_versions(), counts={}
    )


@contextmanager
def recorded_run(
    catalog: Catalog, kind: str, settings: dict[str, Any], *, resume: str | None = None
) -> Iterator[models.Run]:
    """Record a run; the body fills `run.counts`, and an exception marks the run as failed.

    With `resume` it is the run of that id, which was cut short and goes on.
    """
    with catalog.write() as session:
        if resume is None:
            run = new_run(kind, settings)
            session.add(run)
        else:
            run = session.get_one(models.Run, resume)
            run.status, run.error, run.finished_at = "running", None, None
    with around(run=run.run_id), span("run", kind=kind):
        tell(_log, "run begun", kind=kind, resumed=resume is not None)
        try:
            yield run
        except BaseException as error:
            _finish(catalog, run, "failed", f"{type(error).__name__}: {error}")
            tell(_log, "run failed", kind=kind, error=type(error).__name__)
            raise
        _finish(catalog, run, "done", None)
        tell(_log, "run done", kind=kind)


def _finish(catalog: Catalog, run: models.Run, status: str, error: str | None) -> None:
    with catalog.write() as session:
        stored = session.get_one(models.Run, run.run_id)
        stored.status, stored.error, stored.counts, stored.finished_at = status, error, dict(run.counts), now()


def close_run(catalog: Catalog, run_id: str) -> None:
    """Note that a run was cut short whose process died, unless it had come to its end."""
    with catalog.write() as session:
        run = session.get_one(models.Run, run_id)
        if run.status != "running":
            return
        run.status, run.error, run.finished_at = "failed", "cut short", now()


def has_published(catalog: Catalog, run_id: str) -> bool:
    """Return whether a run has published anything."""
    published = select(models.Publication.publication_id).where(models.Publication.run_id == run_id)
    with catalog.read() as session:
        return session.scalars(published.limit(1)).first() is not None
