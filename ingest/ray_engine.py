"""The engine for a Ray cluster: workers are actors, which Ray places, and starts again when a node dies.

Notable: an actor does what a worker process does, `work_on`, with the same leases and heartbeats, so that the catalog
decides who holds a unit and Ray never does. A node that dies costs the units that it had begun; others take them at
once where they see that its processes are gone, and when the leases expire elsewhere. What one node cannot do, its disk
being full or its network cut, it hands back, as helpers do.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Final

from proponent.observe import events, logs, telemetry
from proponent.schema import catalog as models
from proponent.schema.errors import SettingsError
from proponent.store.lake import LakeStore
from proponent.store.ray_cluster import Opening, RayCluster, naming_node, node_name
from proponent.store.units import count_units

from .engine import Ended
from .helping import why_no_files
from .worker import work_on

_LATE_S: Final = 60.0
"""Seconds after which a worker that has no place is told of."""
_log = logging.getLogger(__name__)
_ON_GPU: Final = ("encode",)
"""Kinds of runs that have a use for a GPU."""


def starter(
    lake: LakeStore, cluster: RayCluster, run_id: str, workers: int | None
) -> "tuple[Callable[[int], RayWorker], int]":
    """Return what starts a worker of a run on a cluster, whichever place it takes, and how many there are to be.

    Raises SettingsError for a node that has not the files of an ingest.
    """
    with lake.catalog.read() as session:
        run = session.get_one(models.Run, run_id)
    cluster.require_everywhere(_require_files, run_id)
    on_gpu, spread = run.kind in _ON_GPU, run.settings.get("device_map") is not None
    counts = count_units(lake.catalog, run_id)
    n_open = counts.get("waiting", 0) + counts.get("leased", 0)
    n = workers or min(cluster.workers(on_gpu=on_gpu, spread=spread), max(1, n_open))
    room = cluster.room(n, on_gpu=on_gpu, spread=spread)
    tell_late = cache(partial(_log.warning, "a worker waits for a place on the cluster, and asks for %s", room))
    return lambda _place: RayWorker(cluster, run_id, room, tell_late), n


def _require_files(lake: LakeStore, run_id: str) -> None:
    with lake.catalog.read() as session:
        run = session.get_one(models.Run, run_id)
    if (why := why_no_files(lake, run)) is not None:
        raise SettingsError(f"{node_name()}: {why}; give the corpus by URLs, or from a folder that all nodes share")


class RayWorker:
    """A worker on some node, as this process sees it."""

    def __init__(
        self, cluster: RayCluster, run_id: str, room: Mapping[str, int], tell_late: Callable[[], None]
    ) -> None:
        import ray

        self._ray: Any = ray
        self._cluster = cluster
        self._actor = cluster.actor(_Actor, room=room)
        self._is_up = self._actor.is_up.remote()
        self._work = self._actor.work.remote(run_id)
        self._end: Ended | None = None
        self._is_asked = False
        self._tell_late = tell_late
        self._late_at = time.monotonic() + _LATE_S

    def ended(self) -> Ended | None:
        """Return how it has ended, None while it works or waits for a place."""
        if self._end is None and self._ray.wait([self._work], timeout=0)[0]:
            self._end = self._how()
        if time.monotonic() > self._late_at and not self._ray.wait([self._is_up], timeout=0)[0]:
            self._tell_late()
        return self._end

    def _how(self) -> Ended:
        try:
            self._ray.get(self._work)
        except self._ray.exceptions.RayError as error:
            told = self._cluster.error_of(error)
            if not isinstance(error, self._ray.exceptions.RayTaskError):
                return Ended(death=f"has died ({told})")
            if isinstance(error.cause, OSError):  # this node's disk or network, and perhaps no other's
                return Ended(death=f"has given up ({told})")
            return Ended(error=told)
        return Ended()

    def ask_to_stop(self) -> None:
        """Let it end when it has finished the unit that it has begun."""
        if self._is_asked or self._end is not None:
            return
        self._is_asked = True
        if self._ray.wait([self._is_up], timeout=0)[0]:
            self._actor.stop.options(max_task_retries=0).remote()
        else:  # it has no place yet, and may never get one
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._ray.kill(self._actor)
        self._end = self._end or Ended()


class _Actor:
    """What runs on a node."""

    def __init__(self, opening: Opening, threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(threads)
        self._opening = opening
        self._threads = threads
        self._stop = threading.Event()

    def is_up(self) -> bool:
        return True

    def stop(self) -> None:
        self._stop.set()

    def work(self, run_id: str) -> None:
        """Work on units until none is left. Raises what keeps this node from working, with its name."""
        lake = self._opening.open()
        logs.set_up_as_parent()
        telemetry.set_up()
        events.always(lake=self._opening.root, worker=os.getpid())
        try:
            with naming_node():
                _require_files(lake, run_id)  # a node may have come since
                work_on(lake, run_id, threads=self._threads, stop=self._stop, helping=True)
        finally:
            lake.close()
            telemetry.flush()
