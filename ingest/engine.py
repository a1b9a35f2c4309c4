"""Workers of a run, started and watched until the work is done: this process, processes of this machine, a cluster's.

Notable: what is watched here is the same for all of them, and what they do is `worker`'s. An engine for other machines,
as `ray_engine` is, only says how a worker is started there, asked to stop and killed, and how it has ended.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from proponent.observe import logs, telemetry
from proponent.schema import catalog as models
from proponent.schema import errors
from proponent.schema.errors import ProponentError, WorkerError
from proponent.store.lake import LakeStore
from proponent.store.units import count_units, failure_of, has_units

from .work import Work, work_off

_POLL_S: Final = 0.2
_LOOK_S: Final = 2.0
_GRACE_S: Final = 10.0
"""Time for workers to end by themselves when a run has failed."""
_MOST_DEATHS: Final = 3
"""Deaths of each worker, between two units that get done, after which a run gives up."""
_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_log = logging.getLogger(__name__)


class Ended(NamedTuple):
    """How a worker came to its end."""

    death: str | None = None
    """What it died of, where that is no reason to end the run: another takes its place."""
    error: ProponentError | None = None
    """Why it, and any other, cannot work."""


class Worker(Protocol):
    """A worker of a run, on whatever machine: what an engine starts."""

    def ended(self) -> Ended | None:
        """Return how it has ended, None while it works."""
        ...

    def ask_to_stop(self) -> None:
        """Let it end when it has finished the unit that it has begun."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


def work_through(
    lake: LakeStore, run_id: str, *, workers: int | None, here: Callable[[], Work], collect: Callable[[], None]
) -> None:
    """Do every unit of a run; `collect` takes in what was written, time and again.

    One worker is this process, with the work that `here` gives; more are processes that make it themselves, and all are
    where the lake has a cluster, by default as many as that has room for. One that was killed is replaced. At the first
    Ctrl-C they finish the units that they have begun, at the second they are stopped at once. Raises what a unit failed
    with, and what a worker could not work for; WorkerError when workers die again and again.
    """
    start: Callable[[int], Worker]
    if lake.cluster is not None:
        from .ray_engine import starter

        start, n = starter(lake, lake.cluster, run_id, workers)
    elif workers in (None, 1):
        work_off(lake, run_id, here(), after_each=collect)
        _require_no_failure(lake, run_id)
        return
    else:
        assert workers is not None
        start, n = _process_starter(lake, run_id, workers), workers
    with _started(start, n, collect) as running:
        _watch(lake, run_id, running, start, collect)


def help_through(lake: LakeStore, run_id: str, *, workers: int) -> None:
    """Do units of a run that another process publishes, in some processes, until none is left.

    Raises WorkerError when a worker cannot work.
    """
    start = _process_starter(lake, run_id, workers, helping=True)
    with _started(start, workers, lambda: None) as running:
        looked_at = time.monotonic()
        while any(worker.ended() is None for worker in running):
            time.sleep(_POLL_S)
            if time.monotonic() - looked_at > _LOOK_S:
                looked_at = time.monotonic()
                if not has_units(lake.catalog, run_id, "waiting", "leased"):
                    _ask_to_stop(running)  # they look for themselves more and more seldom
        failed = next((end.error for end in (worker.ended() for worker in running) if end and end.error), None)
        if failed is not None:
            raise WorkerError(str(failed)) from failed


def _process_starter(
    lake: LakeStore, run_id: str, workers: int, *, helping: bool = False
) -> "Callable[[int], _Process]":
    """Return what starts the worker of a place, each with its share of the processors and a GPU of its own."""
    with lake.catalog.read() as session:
        is_spread = session.get_one(models.Run, run_id).settings.get("device_map") is not None
    threads = max(1, (os.cpu_count() or 1) // workers)

    def start(place: int) -> _Process:
        gpu = {} if is_spread else gpu_of(place, os.environ, Path("/proc/driver/nvidia/gpus"))
        return _Process(lake, run_id, threads, gpu, helping=helping)

    return start


def gpu_of(place: int, environment: Mapping[str, str], gpus: Path) -> dict[str, str]:
    """Return the environment that leaves a worker one of several GPUs, in turn; empty where there are not several.

    `gpus` is the folder in which Linux lists them. Left to itself, every process would take the first.
    """
    named = environment.get(_VISIBLE)
    if named is None:
        visible = [str(number) for number, _ in enumerate(gpus.iterdir() if gpus.is_dir() else ())]
    else:
        visible = [one.strip() for one in named.split(",") if one.strip()]
    return {_VISIBLE: visible[place % len(visible)]} if len(visible) > 1 else {}


@contextmanager
def _started(start: Callable[[int], Worker], n: int, collect: Callable[[], None]) -> Iterator[list[Worker]]:
    """Give workers for a with block, after which they end; the block may replace some in the list."""
    running: list[Worker] = [start(place) for place in range(n)]
    try:
        yield running
    except KeyboardInterrupt:
        _log.warning("finishing what has been begun; press Ctrl-C again to stop at once")
        _ask_to_stop(running)
        try:
            while any(worker.ended() is None for worker in running):
                time.sleep(_POLL_S)
            collect()
        except KeyboardInterrupt:
            _kill(running)
        raise
    finally:
        _ask_to_stop(running)
        deadline = time.monotonic() + _GRACE_S
        while any(worker.ended() is None for worker in running) and time.monotonic() < deadline:
            time.sleep(_POLL_S / 4)
        _kill(running)


class _Process:
    """A worker that is a process of this machine."""

    def __init__(
        self, lake: LakeStore, run_id: str, threads: int, gpu: Mapping[str, str], *, helping: bool = False
    ) -> None:
        command = [sys.executable, "-P", "-m", "proponent.ingest.worker", str(lake.root), run_id, str(threads)]
        command += ["helping"] if helping else []
        environment = (
            os.environ
            | lake.environment()
            | logs.environment()
            | telemetry.environment()
            | dict(gpu)
            | {
                "OMP_NUM_THREADS": str(threads),
                "OMP_WAIT_POLICY": "PASSIVE",
                "RAYON_NUM_THREADS": str(threads),
            }
        )
        # A Ctrl-C reaches the whole group. A worker inherits that it is blocked, and hears from this process what it
        # means.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self._process = subprocess.Popen(  # noqa: S603  (own arguments)
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._end: Ended | None = None

    def ended(self) -> Ended | None:
        code = self._process.poll()
        if self._end is None and code is not None:
            self._end = self._how(code)
        return self._end

    def _how(self, code: int) -> Ended:
        told = self._close()
        if code <= 0:
            return Ended(death=f"was killed by signal {-code}" if code else None)
        try:
            return Ended(error=_error_of(json.loads(told)))
        except ValueError:  # it came to its end before it could tell, or something else has written there
            return Ended(error=WorkerError(f"a worker ended with exit code {code}; what it said is above"))

    def _close(self) -> bytes:
        """Close the worker's standard output; return what was there."""
        heard = self._process.stdout
        if heard is None or heard.closed:
            return b""
        with heard:
            return heard.read()

    def ask_to_stop(self) -> None:
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.ended()  # closes what it would have been heard by


def _watch(
    lake: LakeStore, run_id: str, running: list[Worker], start: Callable[[int], Worker], collect: Callable[[], None]
) -> None:
    open_units, deaths = 0, 0
    while True:
        collect()
        _require_no_failure(lake, run_id)
        counts = count_units(lake.catalog, run_id)
        still_open = counts.get("waiting", 0) + counts.get("leased", 0)
        if not still_open:
            return
        deaths = deaths if still_open == open_units else 0
        open_units = still_open
        for place, worker in enumerate(running):
            end = worker.ended()
            if end is None:
                continue
            if end.error is not None:
                _require_no_failure(lake, run_id)
                raise end.error
            deaths += 1
            if deaths > _MOST_DEATHS * len(running):
                last = f", the last {end.death}" if end.death else ""
                raise WorkerError(f"{deaths} workers died without getting anything done{last}; give them more memory")
            if end.death:
                _log.warning("a worker %s; another takes its place", end.death)
            worker.ask_to_stop()
            running[place] = start(place)
        time.sleep(_POLL_S)


def _require_no_failure(lake: LakeStore, run_id: str) -> None:
    """Raise the error of a unit that failed as it was raised, whichever process did that."""
    failure = failure_of(lake.catalog, run_id)
    if failure:
        raise _error_of(failure)


def _error_of(failure: Mapping[str, str]) -> ProponentError:
    """Return an error as it was raised in another process; of one that the project has no class of, with its kind."""
    kind = getattr(errors, failure["kind"], None)
    if kind is None:
        return WorkerError(f"{failure['kind']}: {failure['error']}")
    found: ProponentError = kind(failure["error"])
    return found


def _ask_to_stop(running: list[Worker]) -> None:
    for worker in running:
        worker.ask_to_stop()


def _kill(running: list[Worker]) -> None:
    for worker in running:
        worker.kill()
