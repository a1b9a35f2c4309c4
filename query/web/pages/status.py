"""How the lake is: what is in it, how well its encoders and indexes do, what ran, and what waits here."""

from datetime import datetime
from typing import Any

import msgspec

from proponent.query.web.explorer import Explorer
from proponent.query.web.jobs import JobView
from proponent.query.web.page import Page

_RUNS = """
SELECT kind AS command, status, started_at, finished_at,
    greatest(0, epoch(coalesce(finished_at, now()) - started_at)) AS seconds,
    counts
FROM runs ORDER BY started_at DESC, run_id LIMIT 20
"""
_REJECTS = "SELECT reason, count(*) AS n FROM rejects GROUP BY reason ORDER BY n DESC, reason LIMIT 10"


class EncoderView(msgspec.Struct, frozen=True, kw_only=True):
    """An encoder, and what was measured of it."""

    encoder: str
    dim: int
    codes: str
    moments: str
    encodings: int
    coverage: float
    """Share of the model's parameters that encodings see."""
    fidelity: Any
    """Rank correlation of scores by codes with those in float32, as it was measured; null where it was not."""
    index: Any
    """The index with its measured recall; null where there is none."""


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A command that changed the lake, or is changing it."""

    command: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    seconds: float
    counts: str | None


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """Why rows of corpora could not be taken, and how many."""

    reason: str
    n: int


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """The lake at its newest snapshot."""

    lake: str
    format: int
    snapshot: int
    published: datetime
    corpora: list[str]
    models: list[str]
    bytes: int
    traces: int
    rows: dict[str, int]
    encoders: list[EncoderView]
    runs: list[RunView]
    rejects: list[Reject]
    jobs: list[JobView]


def _load(explorer: Explorer, _params: Any) -> StatusView:
    told = explorer.kept("status", lambda: _stored(explorer))
    return msgspec.structs.replace(told, jobs=explorer.jobs.active())


def _stored(explorer: Explorer) -> StatusView:
    with explorer.session() as session:
        read = {"runs": session.sql(_RUNS).to_dicts(), "rejects": session.sql(_REJECTS).to_dicts()}
    return msgspec.convert(explorer.status() | {"lake": explorer.name, "jobs": []} | read, StatusView, strict=False)


PAGE = Page(
    name="status",
    path="/status",
    title="Status",
    summary="What is in the lake, what ran, and what waits",
    nav="Status",
    data=StatusView,
    load=_load,
    keeps=lambda explorer, _params: (explorer.state(), *explorer.jobs.active()),
)
