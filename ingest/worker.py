"""A worker: takes units of a run, does them and writes what came out, unseen until it is published.

`python -m proponent.ingest.worker LAKE RUN THREADS [helping]` works until nothing is left, or until its standard input
closes: that is how the process that started it tells it to stop, and what happens when that process dies. Its standard
output is for that process, too: it gets what ended the worker, in JSON, where the catalog does not say it. What fails
on a machine that is only helping is no reason to end the run.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TextIO

from proponent.observe import events, logs, metrics, telemetry
from proponent.schema import catalog as models
from proponent.schema.errors import CatalogError, ProponentError
from proponent.store.catalog import CATALOG
from proponent.store.lake import STORAGE, LakeStore, open_store
from proponent.store.place import lake_path
from proponent.store.units import failure_of

from .work import Work, work_off


def _encode_work(lake: LakeStore, run: models.Run, threads: int) -> Work:
    import torch

    from .encoding import encode_work

    torch.set_num_threads(threads)
    return encode_work(lake, run)


def _read_work(lake: LakeStore, run: models.Run, threads: int) -> Work:
    import pyarrow as pa

    from .read_work import read_work

    pa.set_cpu_count(threads)
    return read_work(lake, run)


_MOST_TOLD: Final = 1000
"""Letters of an error. A pipe takes 4 KiB at the least, and a process must not wait for who waits for its end."""
_KINDS: Final[dict[str, Callable[[LakeStore, models.Run, int], Work]]] = {"encode": _encode_work, "ingest": _read_work}


def main(root: str, run_id: str, threads: str, helping: str = "") -> None:
    """Work on a run of a lake with so many threads. What a unit fails with stands in the catalog, and ends it."""
    parent_hears = _standard_output()
    stop, parent = threading.Event(), os.getppid()
    logs.set_up_as_parent()
    telemetry.set_up()
    metrics.set_up_as_worker()
    events.always(lake=root, worker=os.getpid())
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
    options = json.loads(os.environ.get(STORAGE, "{}"))
    logs.hide(*options.values())
    try:
        lake = open_store(lake_path(root, options), catalog=os.environ.get(CATALOG))
    except ProponentError as error:  # the store is away just now, say
        _tell(parent_hears, error)
        sys.exit(1)
    try:
        try:
            is_orphan = lambda: os.getppid() != parent  # noqa: E731
            work_on(lake, run_id, threads=int(threads), stop=stop, is_orphan=is_orphan, helping=bool(helping))
        except KeyboardInterrupt:
            sys.exit(1)
        except Exception as error:
            if not _is_told(lake, run_id):
                _tell(parent_hears, error)
            sys.exit(1)
    finally:
        lake.close()
        telemetry.flush()


def work_on(
    lake: LakeStore,
    run_id: str,
    *,
    threads: int,
    stop: threading.Event,
    is_orphan: Callable[[], bool] = lambda: False,
    helping: bool,
) -> None:
    """Work on a run's units, as `work_off` does, with what its kind of run needs and so many threads."""
    with lake.catalog.read() as session:
        run = session.get_one(models.Run, run_id)
    work = _KINDS[run.kind](lake, run, threads)
    work_off(lake, run_id, work, stop=stop, is_orphan=is_orphan, helping=helping)


def _standard_output() -> TextIO:
    """Return it, and have what anything else prints go to standard error."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


def _tell(parent_hears: TextIO, error: Exception) -> None:
    """Say what has ended this process, to one that listens when it has: the pipe must take it whole."""
    message = str(error)
    told = {
        "kind": type(error).__name__,
        "error": message if len(message) <= _MOST_TOLD else f"{message[:_MOST_TOLD]}...",
    }
    with suppress(OSError):  # nobody is left to hear it
        json.dump(told, parent_hears, ensure_ascii=False)
        parent_hears.flush()


def _is_told(lake: LakeStore, run_id: str) -> bool:
    """Return whether the catalog says why the run fails."""
    try:
        return failure_of(lake.catalog, run_id) is not None
    except CatalogError:
        return False


def _stop_with_parent(stop: threading.Event) -> None:
    while os.read(0, 1):  # not through sys.stdin, whose lock Python cannot take back from a thread when it ends
        pass
    stop.set()


if __name__ == "__main__":
    main(*sys.argv[1:])
