"""How the lake is: what is in it, how well its encoders and indexes do, what runs and how fast, what waits here."""

from collections.abc import Hashable
from datetime import datetime
from typing import Any

import msgspec

from proponent.query.web.explorer import Explorer
from proponent.query.web.jobs import JobView
from proponent.query.web.page import Page
from proponent.schema.catalog import now
from proponent.store.at_work import RunAtWork, Throughput, is_anybody_at_work, runs_at_work, throughput

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
    throughput: Throughput | None = None
    """Over the run's whole time; None for a run that did not come to its end."""


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
    at_work: list[RunAtWork]
    """Runs under way whose work is cut into units."""
    live: bool
    """Whether something runs, so that the page would be another in a moment."""
    runs: list[RunView]
    rejects: list[Reject]
    jobs: list[JobView]


def _load(explorer: Explorer, _params: Any) -> StatusView:
    told, jobs = explorer.kept("status", lambda: _stored(explorer)), explorer.jobs.active()
    at_work = runs_at_work(explorer.lake.catalog)
    live = _is_live(explorer, told, jobs)
    runs = list(map(_until_now, told.runs))
    return msgspec.structs.replace(told, jobs=jobs, at_work=at_work, live=live, runs=runs)


def _stored(explorer: Explorer) -> StatusView:
    with explorer.session() as session:
        read = {"runs": session.sql(_RUNS).to_dicts(), "rejects": session.sql(_REJECTS).to_dicts()}
    added = {"lake": explorer.name, "jobs": [], "at_work": [], "live": False}
    view = msgspec.convert(explorer.status() | added | read, StatusView, strict=False)
    return msgspec.structs.replace(view, runs=list(map(_with_throughput, view.runs)))


def _with_throughput(run: RunView) -> RunView:
    if run.status != "done" or not run.counts:  # one that was cut short ended nobody knows when
        return run
    return msgspec.structs.replace(
        run, throughput=throughput(run.command, msgspec.json.decode(run.counts), run.seconds)
    )


def _until_now(run: RunView) -> RunView:
    if run.status != "running":
        return run
    return msgspec.structs.replace(run, seconds=max(0.0, (now() - run.started_at).total_seconds()))


def _is_live(explorer: Explorer, told: StatusView, jobs: list[JobView]) -> bool:
    begun = any(run.status == "running" for run in told.runs)
    return bool(jobs) or (begun and is_anybody_at_work(explorer.lake.catalog))


def _keeps(explorer: Explorer, _params: Any) -> Hashable | None:
    """Keep no page of a lake that somebody works on, or that waits for it in the middle of a run."""
    catalog = explorer.lake.catalog
    busy = explorer.jobs.active() or is_anybody_at_work(catalog) or runs_at_work(catalog)
    return None if busy else explorer.state()


PAGE = Page(
    name="status",
    path="/status",
    title="Status",
    summary="What is in the lake, what runs and how fast, what ran, and what waits",
    nav="Status",
    data=StatusView,
    load=_load,
    keeps=_keeps,
    scripts=("status.js",),
)
