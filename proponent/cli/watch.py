"""`proponent status --watch`: who works on a lake, again and again.

Notable: only the catalog is read, so that watching costs the same whatever is in the tables.
"""

import sys
import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from proponent.lake import Lake

_COLUMNS = ("machine", "worker", "done", "leased", "failed", "a second", "last heartbeat")


class _Rates:
    """Tells how fast workers are, since they were first seen."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str, int], tuple[float, int]] = {}

    def of(self, worker: dict[str, Any]) -> float | None:
        """Return documents or texts a second, None for one that was just seen first."""
        key = (worker["run_id"], worker["machine"], worker["pid"])
        at, n = self._first.setdefault(key, (time.monotonic(), worker["n"]))
        seconds = time.monotonic() - at
        return (worker["n"] - n) / seconds if seconds > 0.1 else None


def watch_lake(lake: "Lake", *, every_s: float) -> None:
    """Show runs and workers until somebody presses Ctrl-C."""
    rates = _Rates()
    with suppress(KeyboardInterrupt):
        if not sys.stdout.isatty():
            while True:
                for line in _lines(lake, rates):
                    click.echo(line)
                sys.stdout.flush()
                time.sleep(every_s)
        from rich.live import Live

        with Live(_drawn(lake, rates), auto_refresh=False, screen=False) as live:
            while True:
                time.sleep(every_s)
                live.update(_drawn(lake, rates), refresh=True)


def _read(lake: "Lake", rates: _Rates) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return a line for every run at work, and a row for each of its workers."""
    from proponent.store.at_work import runs_at_work, workers_at_work

    catalog, found = lake.store.catalog, []
    for run in runs_at_work(catalog):
        rows = [_row(worker, rates) for worker in map(vars, workers_at_work(catalog, run.run_id))]
        found.append((_told(run), rows))
    return found


def _told(run: Any) -> str:
    done = run.throughput
    told = [f"{run.kind} of {run.subject}: {run.units_done:,} of {run.units_total:,} units"]
    if done is not None:
        speed = f" at {done.per_second:,.1f} a second" if done.per_second else ""
        told.append(f"{done.n:,} {done.what}{speed}")
    told.append("nobody works on it" if not run.workers else f"for {timedelta(seconds=round(run.seconds))}")
    if run.left_s is not None:
        told.append(f"about {timedelta(seconds=round(run.left_s))} left")
    return ", ".join(told)


def _row(worker: dict[str, Any], rates: _Rates) -> tuple[str, ...]:
    rate, silent = rates.of(worker), worker["silent_s"]
    heard = "none" if silent is None else f"{silent:.0f} s ago" + ("" if worker["is_alive"] else ", dead")
    numbers = (f"{worker[name]:,}" for name in ("done", "leased", "failed"))
    return (worker["machine"], str(worker["pid"]), *numbers, "" if rate is None else f"{rate:,.1f}", heard)


def _lines(lake: "Lake", rates: _Rates) -> list[str]:
    now, runs = datetime.now().astimezone().isoformat(timespec="seconds"), _read(lake, rates)
    if not runs:
        return [f"{now} nothing is at work; snapshot {lake.snapshot.snapshot_id}"]
    lines = []
    for told, rows in runs:
        lines.append(f"{now} {told}")
        lines += [
            f"{now}   {machine} {worker}: {done} done, {leased} leased, {failed} failed, "
            f"{rate or '0'} a second, heartbeat {heard}"
            for machine, worker, done, leased, failed, rate, heard in rows
        ]
    return lines


def _drawn(lake: "Lake", rates: _Rates) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    runs = _read(lake, rates)
    if not runs:
        return Text(f"nothing is at work; snapshot {lake.snapshot.snapshot_id} (Ctrl-C ends)")
    parts: list[Any] = []
    for told, rows in runs:
        table = Table(*_COLUMNS, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*map(Text, row))
        parts += [Text(told, style="bold"), table, Text("")]
    return Group(*parts, Text("Ctrl-C ends"))
