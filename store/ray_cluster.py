"""A Ray cluster that works for an open lake: joined, checked, and asked to do things with the lake on its nodes.

Notable: only `--engine ray` imports this, and Ray. What the nodes do is what processes of one machine do; here is how
they come to have the lake open, and how is found out, in one line and before any work, that a node cannot: another
version of a library, a folder that it does not see. A cluster that is made for one command asks everybody for a token
that only its own processes know, since Ray listens on all of a machine's addresses.
"""

import logging
import os
import platform
import secrets
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from proponent.observe import logs, telemetry
from proponent.schema.errors import ProponentError, SettingsError, WorkerError

from .lake import LakeStore, open_store
from .leases import this_machine
from .place import given_options, lake_path, make_folder
from .runs import library_versions

T = TypeVar("T")

RESTARTS: Final = 3
"""How often Ray itself starts an actor or a task again whose process or node has died."""
_ADDRESS: Final = "RAY_ADDRESS"
_AUTH_MODE: Final = "RAY_AUTH_MODE"
_HERE: Final = "local"
"""Ray's own name for a cluster that is made here and now."""
_REACH_S: Final = 10.0
_LOOK_S: Final = 60.0
"""Seconds that a node may take to start a process and look at the lake."""
_STORE_BYTES: Final = 512 << 20
_LONGEST_FOLDER: Final = 40
"""Letters of a temporary folder in which Ray's sockets still get names that are short enough."""
_GONE: Final = ("NodeDiedError", "WorkerCrashedError", "LocalRayletDiedError", "TaskUnschedulableError")
"""Ray's errors that say of a node that it is no longer there."""
_POLL_S: Final = 0.2
_PASSED_ON: Final = ("AWS_", "GOOGLE_", "AZURE_", "PG", "OTEL_")
"""Beginnings of the environment variables that reach object stores, PostgreSQL and who receives traces."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opening:
    """How a process on a node opens the lake that another process has open."""

    root: str
    options: Mapping[str, str] = field(repr=False)
    catalog: str | None = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    mark: str | None
    """A file in the lake's folder by which it is known to be the same; None in an object store."""
    versions: Mapping[str, str]
    machine: str

    def open(self) -> LakeStore:
        """Open it. Raises SettingsError, which names the node, where it would not be the same."""
        os.environ.update(self.environment)
        self._require_versions()
        root = lake_path(self.root, self.options)
        if self.mark is not None and not (root / "work" / self.mark).is_file():
            raise SettingsError(
                f"{node_name()} does not see the lake's folder {self.root}; put the lake into a folder that all "
                "nodes share, or into an object store"
            )
        if self.catalog is None and this_machine() != self.machine:
            raise SettingsError(
                f"{node_name()} is another machine, and the lake's catalog is in SQLite; several machines need one on "
                "PostgreSQL (`proponent init LAKE --catalog URL`)"
            )
        return open_store(root, catalog=self.catalog)

    def _require_versions(self) -> None:
        here = _versions()
        for name, version in self.versions.items():
            # A build for CPUs, 2.13.0+cpu, is the same version as one for GPUs.
            if here.get(name, "").partition("+")[0] != version.partition("+")[0]:
                raise SettingsError(
                    f"{node_name()} has {name} {here.get(name, 'not at all')}, and this machine has {version}; "
                    "install the same on all"
                )


def _versions() -> dict[str, str]:
    return library_versions() | {"python": platform.python_version()}


def node_name() -> str:
    """Return what people call the node that this process is on."""
    from ray.util import get_node_ip_address

    return f"node {get_node_ip_address()} ({socket.gethostname()})"  # type: ignore[no-untyped-call]


@contextmanager
def naming_node() -> Iterator[None]:
    """Have what goes wrong say on which node it does, as a SettingsError of a node says already."""
    try:
        yield
    except SettingsError:
        raise
    except ProponentError as error:
        raise type(error)(f"{node_name()}: {error}") from error
    except OSError as error:
        raise OSError(f"{node_name()}: {error}") from error
    except Exception as error:
        raise WorkerError(f"{node_name()}: {type(error).__name__}: {error}") from error


class RayCluster:
    """A cluster that was joined for a lake; `close` leaves it, or ends it where it was made for this lake alone."""

    def __init__(self, lake: LakeStore, address: str | None = None) -> None:
        """Join a cluster, by default that of RAY_ADDRESS, or make one of this machine where there is none.

        Raises SettingsError when Ray is not installed, the cluster cannot be joined, or a node would not do the same.
        """
        self._lake = lake
        self._folder: str | None = None
        self._mark: str | None = None
        address = address or os.environ.get(_ADDRESS) or _HERE
        self._ray = _import_ray(with_token=address == _HERE)
        self._is_mine = not self._ray.is_initialized()
        try:
            if self._is_mine:
                self._join(address)
            self.opening = self._opening()
            self.require_everywhere(_nothing_more)
        except BaseException:
            self.close()
            raise

    def _join(self, address: str) -> None:
        if address != _HERE:
            _require_reachable(address)
        elif os.environ.get(_AUTH_MODE) != "token":
            raise SettingsError(
                "Ray was imported before the lake was opened, so that others on the network could use a cluster that "
                "is made now; open the lake first, or call ray.init yourself"
            )
        if address == _HERE and len(tempfile.gettempdir()) < _LONGEST_FOLDER:
            self._folder = tempfile.mkdtemp(prefix="proponent-ray-")
        made: dict[str, Any] = {
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": self._folder,
        }
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Lance warns of forks, and what Ray forks is another program at once
                self._ray.init(
                    address=address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **(made if address == _HERE else {}),
                )
        except (Exception, SystemExit) as error:
            what = "be started on this machine" if address == _HERE else f"be joined at {address}"
            raise SettingsError(f"a Ray cluster cannot {what}: {_why(error)}") from error

    def _opening(self) -> Opening:
        lake = self._lake
        if isinstance(lake.root, Path):
            self._mark = f"ray-{secrets.token_hex(8)}"
            make_folder(lake.work_dir)
            (lake.root / "work" / self._mark).touch()
        return Opening(
            root=str(lake.root.absolute() if isinstance(lake.root, Path) else lake.root),
            options=given_options(lake.root),
            catalog=None if lake.catalog_url.startswith("sqlite") else lake.catalog_url,
            environment={name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
            | logs.environment()
            | telemetry.environment(),
            mark=self._mark,
            versions=_versions(),
            machine=this_machine(),
        )

    def require_everywhere(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call function(lake, *arguments) on every node that takes work. Raises what it raises on the first."""
        self._on_every_node(_there, function, *arguments)

    def forget(self, function: Callable[[LakeStore, str], None], run_id: str) -> None:
        """Call a function of the lake and a run on every other machine, to remove what the run has left there."""
        with suppress(ProponentError):  # a node that has just died has nothing left
            self._on_every_node(_elsewhere, function, run_id)

    def _on_every_node(self, function: Callable[..., None], *arguments: Any) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        refs = {}
        for node in self._nodes():
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = self._ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
            refs[task.remote(self.opening, *arguments)] = node["NodeManagerAddress"]
        done, late = self._ray.wait(list(refs), num_returns=len(refs), timeout=_LOOK_S) if refs else ([], [])
        gone = tuple(getattr(self._ray.exceptions, name) for name in _GONE)
        for ref in done:
            try:
                self._ray.get(ref)
            except gone as error:  # Ray gives it nothing more to do
                _log.warning("node %s of the Ray cluster has died: %s", refs[ref], _first_line(error))
            except Exception as error:
                raise self.error_of(error, refs[ref]) from None
        for ref in late:
            _log.warning("node %s of the Ray cluster does not answer; going on without it", refs[ref])

    def _nodes(self) -> list[dict[str, Any]]:
        """Return the nodes that take work at present."""
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]

    def error_of(self, error: Exception, node: str | None = None) -> ProponentError:
        """Return what was raised on a node, or what became of it, as one of proponent's errors."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, ProponentError):
            return cause
        where = f"node {node}: " if node else ""
        if cause is not None:
            return WorkerError(f"{where}{type(cause).__name__}: {_first_line(cause)}")
        return WorkerError(f"{where}{_why(error)}")

    @property
    def has_gpus(self) -> bool:
        """Whether any node has a GPU at present."""
        return any(node["Resources"].get("GPU") for node in self._nodes())

    def workers(self, *, on_gpu: bool, spread: bool = False) -> int:
        """Return how many workers the cluster has room for: one on each GPU, or on each CPU.

        One whose model is `spread` has all the GPUs of a node.
        """
        gpus = [int(node["Resources"].get("GPU", 0)) for node in self._nodes()]
        if on_gpu and any(gpus):
            return sum(map(bool, gpus)) if spread else sum(gpus)
        return max(1, int(sum(node["Resources"]["CPU"] for node in self._nodes())))

    def room(self, workers: int, *, on_gpu: bool, spread: bool = False) -> dict[str, int]:
        """Return what each of some workers asks Ray for: a GPU where there are any, else as many CPUs as each can have.

        One whose model is `spread` asks for as many GPUs as the node has that has the fewest. Whether and where they
        get it is left to Ray: they may wait until a cluster has grown.
        """
        if on_gpu and self.has_gpus:
            fewest = min(int(gpus) for node in self._nodes() if (gpus := node["Resources"].get("GPU")))
            return {"num_cpus": 1, "num_gpus": fewest if spread else 1}
        cpus = [int(node["Resources"]["CPU"]) for node in self._nodes()]
        fitting = (n for n in range(max(cpus, default=1), 1, -1) if sum(have // n for have in cpus) >= workers)
        return {"num_cpus": next(fitting, 1), "num_gpus": 0}

    def actor(self, kind: type, *arguments: Any, room: Mapping[str, int]) -> Any:
        """Start an actor, which Ray starts again when its process or its node dies, with what it was doing."""
        options = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS, "max_concurrency": 2}
        return self._ray.remote(kind).options(**options, **room).remote(self.opening, room["num_cpus"], *arguments)

    def do(self, function: Callable[..., T], *arguments: Any, tell: Callable[[Any], object], spread: bool = False) -> T:
        """Call function(lake, *arguments, tell) on a node, with a GPU if there are any; return what it returns.

        What it tells there is told here, if not every time. Raises what it raises, WorkerError when its processes die.
        """
        actor = self.actor(_Doer, room=self.room(1, on_gpu=True, spread=spread))
        result, told = actor.do.remote(function, *arguments), 0
        try:
            while not self._ray.wait([result], timeout=_POLL_S)[0]:
                asked = actor.told.remote()
                if not self._ray.wait([asked], timeout=_POLL_S)[0]:  # it is still being started
                    continue
                n, last = self._ray.get(asked)
                if n != told:
                    told = n
                    tell(last)
            done: T = self._ray.get(result)
            return done
        except self._ray.exceptions.RayError as error:
            raise self.error_of(error) from None
        finally:
            self._ray.kill(actor)

    def each(
        self, function: Callable[[LakeStore, Any, Any], T], shared: Any, items: Sequence[Any], *, on_gpu: bool
    ) -> Iterator[tuple[int, T]]:
        """Call function(lake, shared, item) for each item on the nodes; yield places and results as they come.

        What is shared reaches each node once. A call whose node dies is made again. Ends the others when one fails or
        the caller stops. Raises what a call raises, WorkerError when its processes die time and again.
        """
        gpus = int(on_gpu and self.has_gpus)
        task = self._ray.remote(_with_lake).options(num_cpus=1, num_gpus=gpus, max_retries=RESTARTS)
        kept = self._ray.put(shared)
        waiting = {task.remote(self.opening, function, kept, item): place for place, item in enumerate(items)}
        try:
            while waiting:
                # Not for ever: a Ctrl-C is heard between two looks.
                for ref in self._ray.wait(list(waiting), timeout=_POLL_S)[0]:
                    place = waiting.pop(ref)
                    try:
                        yield place, self._ray.get(ref)
                    except self._ray.exceptions.RayError as error:
                        raise self.error_of(error) from None
        finally:
            for ref in waiting:
                self._ray.cancel(ref, force=True)

    def close(self) -> None:
        """Leave the cluster; end it where it was made here."""
        if self._mark is not None:
            with suppress(OSError):
                (self._lake.work_dir / self._mark).unlink()
            self._mark = None
        if self._is_mine:
            self._ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _import_ray(*, with_token: bool) -> Any:
    """Import Ray; `with_token`, so that clusters that this process makes are for those alone who know a token.

    Ray reads how it is protected when it is imported, once for all.
    """
    # No network but the cluster's own, and no remarks about what will once be another default.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if with_token and "ray" not in sys.modules and os.environ.get(_AUTH_MODE) != "token":
        os.environ[_AUTH_MODE] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        import ray
    except ModuleNotFoundError as error:
        raise SettingsError("--engine ray needs Ray, which is not installed; pip install 'proponent[ray]'") from error
    return ray


def _require_reachable(address: str) -> None:
    """Raise SettingsError where nobody listens: Ray itself would try for two minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "://" in address:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, OverflowError) as error:
        raise SettingsError(
            f"the Ray cluster {address} cannot be reached: {getattr(error, 'strerror', None) or error}; "
            "--ray-address or RAY_ADDRESS is HOST:PORT of its head, as `ray start --head` says it"
        ) from error


def _why(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "it does not answer"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _nothing_more(_lake: LakeStore) -> None:
    """Find nothing to object to, once the lake is open."""


def _there(opening: Opening, function: Callable[..., None], *arguments: Any) -> None:
    lake = opening.open()
    try:
        function(lake, *arguments)
    finally:
        lake.close()


def _elsewhere(opening: Opening, function: Callable[..., None], *arguments: Any) -> None:
    if this_machine() != opening.machine:  # whose folder is the committer's own
        _there(opening, function, *arguments)


def _with_lake(opening: Opening, function: Callable[[LakeStore, Any, Any], T], shared: Any, item: Any) -> T:
    lake = opening.open()
    try:
        return function(lake, shared, item)
    finally:
        lake.close()


class _Doer:
    """An actor that does one thing, and says beside that how far it is."""

    def __init__(self, opening: Opening, threads: int) -> None:
        self._opening = opening
        self._threads = threads
        self._told: tuple[int, Any] = (0, None)

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        import torch

        torch.set_num_threads(self._threads)
        lake = self._opening.open()
        try:
            return function(lake, *arguments, self._tell)
        finally:
            lake.close()

    def told(self) -> tuple[int, Any]:
        return self._told

    def _tell(self, what: Any) -> None:
        self._told = (self._told[0] + 1, what)
