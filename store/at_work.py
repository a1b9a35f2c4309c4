"""Runs that are not over: how far they are, who works on them, how fast, and for how long yet.

Notable: read from the units of a run, so that any process that can open the lake can tell, wherever the work is done. A
worker's last sign of life follows from when its lease ends, which every sign of life puts off by the same time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import func, select

from proponent.schema.catalog import Lock, Run, Unit, now

from .catalog import Catalog
from .leases import TTL, is_alive

_TEXTS: Final = ("encoded", "too_long", "without_loss", "not_finite")
"""Counts of an encoding run that are, together, the texts that it is done with."""
_COUNTS: Final = ("read", "tokens", *_TEXTS)
_OVER: Final = ("written", "done")


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What a run got done in a time."""

    what: str
    """documents or texts"""
    n: int
    tokens: int | None
    """None where nobody counted them."""
    per_second: float | None
    """Documents or texts; None for a run that took no time."""
    tokens_per_second: float | None


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Workers on one machine."""

    n: int
    heartbeat: datetime
    """The last sign of life of any of them, which they give every 15 seconds."""
    silent_s: float
    """Seconds since then."""


@dataclass(frozen=True, kw_only=True)
class RunAtWork:
    """A run that has units and is not over."""

    run_id: str
    kind: str
    subject: str | None
    """Corpus or encoder."""
    started_at: datetime
    seconds: float
    """Since then."""
    units_done: int
    units_total: int
    total: int | None
    """Texts that there are; None where nobody knows, as of documents."""
    throughput: Throughput | None
    left_s: float | None
    """Seconds that are left if it goes on like this; None before anything is done, and while nobody works on it."""
    workers: dict[str, Workers]
    """By machine; without those that are dead."""


def throughput(kind: str, counts: Mapping[str, Any], seconds: float) -> Throughput | None:
    """Return what a run got done, by its counts; None for kinds of runs that go through neither documents nor texts.

    The rows that an ingest read are documents, also those that it left out or had already.
    """
    if kind == "ingest":
        what, n = "documents", counts.get("read") or 0
    elif kind == "encode":
        what, n = "texts", sum(counts.get(name) or 0 for name in _TEXTS)
    else:
        return None
    tokens = counts.get("tokens") or None
    return Throughput(
        what=what,
        n=n,
        tokens=tokens,
        per_second=n / seconds if seconds > 0 else None,
        tokens_per_second=tokens / seconds if tokens and seconds > 0 else None,
    )


def runs_at_work(catalog: Catalog) -> list[RunAtWork]:
    """Return the runs that are not over and have units, first begun first."""
    running = select(Run).where(Run.status == "running", Run.run_id.in_(select(Unit.run_id))).order_by(Run.started_at)
    with catalog.read() as session:
        runs = list(session.scalars(running))
        leased = list(session.scalars(select(Unit).where(Unit.status == "leased")))
        sums = {run.run_id: _summed(session.execute(_sums(run.run_id)).all()) for run in runs}
    return [_told(run, sums[run.run_id], [unit for unit in leased if unit.run_id == run.run_id]) for run in runs]


def is_anybody_at_work(catalog: Catalog) -> bool:
    """Return whether a live process holds a lock or a unit."""
    with catalog.read() as session:
        held = [*session.scalars(select(Lock)), *session.scalars(select(Unit).where(Unit.status == "leased"))]
    return any(map(is_alive, held))


class _Sums(NamedTuple):
    """Units of a run: done, all, texts or pieces in them, and the counts of those that are done."""

    done: int
    units: int
    total: int
    counts: dict[str, int]


def _sums(run_id: str) -> Any:
    """Add up in the database, where a run has a hundred thousand units, each with a list of files."""
    counts = [func.sum(Unit.result["counts"][name].as_integer()) for name in _COUNTS]
    size = func.sum(Unit.work["stop"].as_integer() - Unit.work["start"].as_integer())
    return select(Unit.status, func.count(), size, *counts).where(Unit.run_id == run_id).group_by(Unit.status)


def _summed(rows: Iterable[Any]) -> _Sums:
    done = units = total = 0
    counts = dict.fromkeys(_COUNTS, 0)
    for status, number, size, *values in rows:
        units, total = units + number, total + int(size or 0)
        if status in _OVER:
            done += number
            counts = {name: counts[name] + int(value or 0) for name, value in zip(_COUNTS, values, strict=True)}
    return _Sums(done, units, total, counts)


def _told(run: Run, sums: _Sums, leased: list[Unit]) -> RunAtWork:
    alive = [unit for unit in leased if is_alive(unit)]
    counts = dict(sums.counts)
    for so_far in (unit.result["so_far"] for unit in alive if unit.result and "so_far" in unit.result):
        counts["encoded"] += so_far.get("texts", 0)
        for name in ("read", "tokens"):
            counts[name] += so_far.get(name, 0)
    seconds = max(0.0, (now() - run.started_at).total_seconds())
    done = throughput(run.kind, counts, seconds)
    total = sums.total if run.kind == "encode" else None
    share = done.n / total if done and total else sums.done / sums.units
    return RunAtWork(
        run_id=run.run_id,
        kind=run.kind,
        subject=run.settings.get("corpus") or run.settings.get("encoder"),
        started_at=run.started_at,
        seconds=seconds,
        units_done=sums.done,
        units_total=sums.units,
        total=total,
        throughput=done,
        left_s=max(0.0, seconds * (1 - share) / share) if share and alive else None,
        workers={machine: _workers(alive, machine) for machine in sorted(set(map(_machine, alive)))},
    )


def _workers(units: list[Unit], machine: str) -> Workers:
    beats = [unit.expires_at - TTL for unit in units if unit.expires_at and _machine(unit) == machine]
    return Workers(n=len(beats), heartbeat=max(beats), silent_s=max(0.0, (now() - max(beats)).total_seconds()))


def _machine(unit: Unit) -> str:
    return str(unit.host).partition("/")[0]
