"""The engine for one machine: this process or worker processes, watched until the work is done."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from proponent.observe import logs, telemetry
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
_log = logging.getLogger(__name__)

Process = subprocess.Popen[bytes]


def work_through(
    lake: LakeStore, run_id: str, *, workers: int, here: Callable[[], Work], collect: Callable[[], None]
) -> None:
    """Do every unit of a run; `collect` takes in what was written, time and again.

    One worker is this process, with the work that `here` gives; more are processes that make it themselves. One that
    was killed is replaced. At the first Ctrl-C they finish the units that they have begun, at the second they are
    stopped at once. Raises what a unit failed with, WorkerError when a worker cannot work.
    """
    if workers == 1:
        work_off(lake, run_id, here(), after_each=collect)
        _require_no_failure(lake, run_id)
        return
    threads = _threads(workers)
    with _processes(lake, run_id, workers, collect) as processes:
        _watch(lake, run_id, processes, threads, collect)


def help_through(lake: LakeStore, run_id: str, *, workers: int) -> None:
    """Do units of a run that another process publishes, in some processes, until none is left.

    Raises WorkerError when a worker cannot work.
    """
    with _processes(lake, run_id, workers, lambda: None, helping=True) as processes:
        looked_at = time.monotonic()
        while any(process.poll() is None for process in processes):
            time.sleep(_POLL_S)
            if time.monotonic() - looked_at > _LOOK_S:
                looked_at = time.monotonic()
                if not has_units(lake.catalog, run_id, "waiting", "leased"):
                    _ask_to_stop(processes)  # they look for themselves more and more seldom
        failed = next((process.returncode for process in processes if process.returncode > 0), None)
        if failed is not None:
            raise WorkerError(f"a worker ended with exit code {failed}; what it said is above")


def _threads(workers: int) -> int:
    return max(1, (os.cpu_count() or 1) // workers)


@contextmanager
def _processes(
    lake: LakeStore, run_id: str, workers: int, collect: Callable[[], None], *, helping: bool = False
) -> Iterator[list[Process]]:
    """Give worker processes for a with block, after which they end; the block may replace some in the list."""
    processes = [_start(lake, run_id, _threads(workers), helping=helping) for _ in range(workers)]
    try:
        yield processes
    except KeyboardInterrupt:
        _log.warning("finishing what has been begun; press Ctrl-C again to stop at once")
        _ask_to_stop(processes)
        try:
            for process in processes:
                process.wait()
            collect()
        except KeyboardInterrupt:
            _kill(processes)
        raise
    finally:
        _ask_to_stop(processes)
        deadline = time.monotonic() + _GRACE_S
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            time.sleep(_POLL_S / 4)
        _kill(processes)


def _start(lake: LakeStore, run_id: str, threads: int, *, helping: bool = False) -> Process:
    command = [sys.executable, "-P", "-m", "proponent.ingest.worker", str(lake.root), run_id, str(threads)]
    command += ["helping"] if helping else []
    environment = (
        os.environ
        | lake.environment()
        | logs.environment()
        | telemetry.environment()
        | {
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            "RAYON_NUM_THREADS": str(threads),
        }
    )
    # A Ctrl-C reaches the whole group. A worker inherits that it is blocked, and hears from this process what it means.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)  # noqa: S603  (own arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(lake: LakeStore, run_id: str, processes: list[Process], threads: int, collect: Callable[[], None]) -> None:
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
        for place, process in enumerate(processes):
            code = process.poll()
            if code is None:
                continue
            if code > 0:
                _require_no_failure(lake, run_id)
                raise WorkerError(f"a worker ended with exit code {code}; what it said is above")
            deaths += 1
            if deaths > _MOST_DEATHS * len(processes):
                raise WorkerError(f"{deaths} workers died without getting anything done; give them more memory")
            if code:
                _log.warning("a worker was killed by signal %d; another takes its place", -code)
            _ask_to_stop([process])
            processes[place] = _start(lake, run_id, threads)
        time.sleep(_POLL_S)


def _require_no_failure(lake: LakeStore, run_id: str) -> None:
    """Raise the error of a unit that failed as it was raised, whichever process did that."""
    failure = failure_of(lake.catalog, run_id)
    if failure:
        kind = getattr(errors, failure["kind"], WorkerError)
        raise (kind if issubclass(kind, ProponentError) else WorkerError)(failure["error"])


def _ask_to_stop(processes: list[Process]) -> None:
    for process in processes:
        if process.stdin and not process.stdin.closed:
            process.stdin.close()


def _kill(processes: list[Process]) -> None:
    for process in processes:
        process.kill()
        process.wait()
