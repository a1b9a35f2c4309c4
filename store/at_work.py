"""Runs that are not over: how far they are, who works on them, how fast, and for how long yet.

Notable: read from the units of a run, so that any process that can open the lake can tell, wherever the work is done. A
worker's last sign of life follows from when its lease ends, which every sign of life puts off by the same time.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import func, select

from proponent.schema.catalog import Lock, Run, Unit, now

from .catalog import Catalog
from .leases import TTL, is_alive, this_machine

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
        here = list(session.scalars(select(Unit).where(Unit.status == "leased", Unit.host == this_machine())))
        elsewhere = [_Held(*row) for row in session.execute(_held_elsewhere())]
        sums = {run.run_id: _summed(session.execute(_sums(run.run_id)).all()) for run in runs}
    held = elsewhere + [_held_here(unit) for unit in here if is_alive(unit)]
    return [_told(run, sums[run.run_id], [one for one in held if one.run_id == run.run_id]) for run in runs]


class _Held(NamedTuple):
    """Units of a run that live workers on one machine hold, and how far they are with them."""

    run_id: str
    host: str
    n: int
    expires_at: datetime
    texts: int | None
    read: int | None
    tokens: int | None


def _held_elsewhere() -> Any:
    """Add up in the database, where ten thousand workers may hold a unit each."""
    so_far = Unit.result["so_far"]
    sums = [func.sum(so_far[name].as_integer()) for name in ("texts", "read", "tokens")]
    return (
        select(Unit.run_id, Unit.host, func.count(), func.max(Unit.expires_at), *sums)
        .where(Unit.status == "leased", Unit.host != this_machine(), Unit.expires_at > now())
        .group_by(Unit.run_id, Unit.host)
    )


def _held_here(unit: Unit) -> _Held:
    so_far = (unit.result or {}).get("so_far", {})
    assert unit.expires_at is not None
    numbers = (so_far.get(name) for name in ("texts", "read", "tokens"))
    return _Held(unit.run_id, str(unit.host), 1, unit.expires_at, *numbers)


@dataclass(frozen=True, kw_only=True)
class WorkerAtWork:
    """What one worker has done and does for a run that is not over."""

    run_id: str
    machine: str
    pid: int
    done: int
    """Units that it has handed in."""
    failed: int
    leased: int
    """Units that it holds: one, or none."""
    n: int
    """Documents or texts in all of that."""
    silent_s: float | None
    """Seconds since its last sign of life; None for one that holds no unit."""
    is_alive: bool


def workers_at_work(catalog: Catalog, run_id: str) -> list[WorkerAtWork]:
    """Return who works on a run, or has worked on it, by machine and process."""
    counts = [func.sum(Unit.result["counts"][name].as_integer()) for name in ("read", *_TEXTS)]
    grouped = (
        select(Unit.host, Unit.pid, Unit.status, func.count(), *counts)
        .where(Unit.run_id == run_id, Unit.host.is_not(None), Unit.status != "waiting")
        .group_by(Unit.host, Unit.pid, Unit.status)
    )
    with catalog.read() as session:
        rows = session.execute(grouped).all()
        held = list(session.scalars(select(Unit).where(Unit.run_id == run_id, Unit.status == "leased")))
    found: dict[tuple[str, int], Counter[str]] = {}
    for host, pid, status, number, *numbers in rows:
        one = found.setdefault((str(host), int(pid)), Counter())
        one["done" if status in _OVER else status] += int(number)
        one["n"] += sum(int(value or 0) for value in numbers)
    holding = {(str(unit.host), int(unit.pid or 0)): unit for unit in held}
    for key, unit in holding.items():
        so_far = (unit.result or {}).get("so_far", {})
        found[key]["n"] += int(so_far.get("texts") or so_far.get("read") or 0)
    return [_worker(run_id, host, pid, one, holding.get((host, pid))) for (host, pid), one in sorted(found.items())]


def _worker(run_id: str, host: str, pid: int, counted: Counter[str], unit: Unit | None) -> WorkerAtWork:
    silent = (now() - (unit.expires_at - TTL)).total_seconds() if unit is not None and unit.expires_at else None
    return WorkerAtWork(
        run_id=run_id,
        machine=_machine(host),
        pid=pid,
        done=counted["done"],
        failed=counted["failed"],
        leased=counted["leased"],
        n=counted["n"],
        silent_s=None if silent is None else max(0.0, silent),
        is_alive=unit is not None and is_alive(unit),
    )


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


def _told(run: Run, sums: _Sums, held: list[_Held]) -> RunAtWork:
    counts = dict(sums.counts)
    for one in held:
        counts["encoded"] += one.texts or 0
        counts["read"] += one.read or 0
        counts["tokens"] += one.tokens or 0
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
        left_s=max(0.0, seconds * (1 - share) / share) if share and held else None,
        workers={machine: _workers(held, machine) for machine in sorted({_machine(one.host) for one in held})},
    )


def _workers(held: list[_Held], machine: str) -> Workers:
    there = [one for one in held if _machine(one.host) == machine]
    beat = max(one.expires_at for one in there) - TTL
    return Workers(n=sum(one.n for one in there), heartbeat=beat, silent_s=max(0.0, (now() - beat).total_seconds()))


def _machine(host: str) -> str:
    return host.partition("/")[0]
