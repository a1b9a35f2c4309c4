"""What stored traces and queries score passages by, found by the names that people call them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from sqlalchemy import select

from proponent.encode.methods import Method, query_vectors
from proponent.schema import catalog as models
from proponent.schema.errors import NotFoundError
from proponent.schema.settings import METHODS, TraceSettings
from proponent.store.lake import LakeStore
from proponent.store.scan import in_list
from proponent.store.snapshots import latest_snapshot

from .curvatures import NamedCurvature, scored_by
from .groups import stored_query
from .stored import may_be_id, require_gradients, resolve_trace, scored_as


@dataclass(frozen=True)
class Scored:
    """A query that the lake has encoded, with how passages are scored for it."""

    query_id: str
    prompt: str
    target: str
    encoder_row: models.Encoder
    method: Method
    curvature: NamedCurvature
    vector: np.ndarray
    """What passages' vectors are multiplied with, (1, d) float32."""

    @property
    def settings(self) -> TraceSettings:
        """Method and curvature as settings."""
        return scored_as(self.method.name, self.curvature.name)


def find_scored(lake: LakeStore, name: str) -> Scored:
    """Return a stored query by the id of a trace or of a query, the beginning of one, or `last` for the newest trace.

    A trace's method, curvature and encoder are taken, and its filter is not. A query's are those of its newest trace;
    if it has none, the first method that its encoder allows, under the reference curvature. Raises NotFoundError for a
    name that nothing or more than one thing has, and SettingsError for a trace whose scores are not of gradients.
    """
    trace = _trace(lake, name)
    if trace is not None:
        require_gradients(trace.trace_id, trace.method)
        query_id, encoder, settings = trace.query_id, trace.encoder, scored_as(trace.method, trace.curvature)
    else:
        query_id = _query(lake, name)
        encoder, settings = _encoder_of(lake, query_id), None
    with lake.catalog.read() as session:
        encoder_row = session.get_one(models.Encoder, encoder)
    if settings is None:
        settings = TraceSettings(method="logra" if encoder_row.moments == "none" else "trackstar")
    method, curvature = scored_by(lake, settings, encoder_row, None)
    query, psi = stored_query(lake, query_id, encoder_row.name)
    vector = query_vectors(method, curvature.curvature, psi).numpy().mean(0, keepdims=True)
    return Scored(query_id, query.prompt, query.target, encoder_row, method, curvature, vector)


def _trace(lake: LakeStore, name: str) -> models.Trace | None:
    """Return the trace that is meant, or a query's newest one by gradients; None for a query without such a trace."""
    with lake.catalog.read() as session:
        named = select(models.Trace.trace_id).where(models.Trace.trace_id.startswith(name)).limit(1)
        if name == "last" or (may_be_id(name) and session.scalars(named).first() is not None):
            return session.get_one(models.Trace, resolve_trace(lake, name))
        of_query = (
            select(models.Trace)
            .where(models.Trace.query_id == _query(lake, name), models.Trace.method.in_(METHODS))
            .order_by(models.Trace.created_at.desc(), models.Trace.trace_id)
            .limit(1)
        )
        return session.scalars(of_query).first()


def _query(lake: LakeStore, name: str) -> str:
    found: list[str] = []
    if name and name.isascii() and name.isalnum():
        whole, begun = models.Query.query_id == name, models.Query.query_id.startswith(name)
        with lake.catalog.read() as session:
            found = list(session.scalars(select(models.Query.query_id).where(whole)))
            if not found and may_be_id(name):
                found = list(session.scalars(select(models.Query.query_id).where(begun)))
    if len(found) == 1:
        return found[0]
    problem = (
        f"{len(found)} queries begin with {name!r}; give more of the id" if found else f"no trace or query {name!r}"
    )
    raise NotFoundError(
        f"{problem}; list them with: SELECT trace_id, query_id, prompt, target "  # noqa: S608
        "FROM traces JOIN queries USING (query_id)"
    )


def _encoder_of(lake: LakeStore, query_id: str) -> str:
    """Return which encoder has encoded a query that was not traced by itself."""
    stored = lake.table("queries", at=latest_snapshot(lake.catalog))
    rows = stored.to_table(columns=["encoder"], filter=in_list("query_id", pa.array([query_id])))
    encoders = sorted(set(rows["encoder"].to_pylist()))
    if len(encoders) == 1:
        return str(encoders[0])
    problem = f"encoders {', '.join(encoders)} have encoded query" if encoders else "no encoder has encoded query"
    raise NotFoundError(f"{problem} {query_id!r}, and no trace says how it is scored; trace it first")
