"""Doing a run's units one after the other, whatever the work is."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol

from proponent.observe.events import around, count, span
from proponent.schema.errors import CatalogError, LeaseLostError, ProponentError, WorkerError
from proponent.store.lake import LakeStore
from proponent.store.objects import storage_error
from proponent.store.units import HeldUnit, has_units, take_unit, working_on

_POLL_S = 0.5
_DOCUMENTS: Final = ("added", "updated", "unchanged", "duplicate", "withdrawn")
_TEXTS: Final = ("encoded", "too_long", "without_loss", "not_finite")
_MOST_IDLE_S = 30.0
"""Where nothing is left but what others hold, thousands of workers ask no more often than that."""
_REPORT_EVERY_S = 1.0
_HELPER_REPORTS_EVERY_S = 15.0
"""Of a long unit, on machines that help: there may be thousands of them."""

Report = Callable[[dict[str, int]], None]
"""Takes what a unit has come to so far."""


class Work(Protocol):
    """What a worker knows how to do."""

    def do(self, work: dict[str, Any], report: Report) -> dict[str, Any]:
        """Do one piece of work; return what came of it as JSON data. `report` may be told as often as one likes."""
        ...

    def undo(self, result: dict[str, Any]) -> None:
        """Remove what was written for a result that nobody takes."""
        ...


def work_off(
    lake: LakeStore,
    run_id: str,
    work: Work,
    *,
    stop: threading.Event | None = None,
    is_orphan: Callable[[], bool] = lambda: False,
    after_each: Callable[[], None] = lambda: None,
    helping: bool = False,
) -> None:
    """Take one unit after the other until none is left, or until somebody says stop.

    A unit is handed back in the middle when the process that publishes is gone, `is_orphan`. `after_each` is called
    after each unit, and each time that one has said how far it is. Who is `helping` hands back what its own machine
    keeps it from doing.
    """
    idle_s = _POLL_S
    with _lasting_objects_left_alone():
        while not (stop and stop.is_set()):
            unit = take_unit(lake.catalog, run_id)
            if unit is not None:
                idle_s = _POLL_S
                do_unit(unit, work, after_each, is_orphan, helping=helping)
                after_each()
            elif has_units(lake.catalog, run_id, "leased"):
                after_each()
                _sleep(stop, idle_s)  # its worker may die
                idle_s = min(idle_s * 1.5, _MOST_IDLE_S)
            else:
                return


def _sleep(stop: threading.Event | None, seconds: float) -> None:
    if stop is None:
        time.sleep(seconds)
    else:
        stop.wait(seconds)


@contextmanager
def _lasting_objects_left_alone() -> Iterator[None]:
    """Keep what was loaded before the work out of garbage collection, which takes a fifth of the time otherwise."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def do_unit(
    unit: HeldUnit,
    work: Work,
    after_report: Callable[[], None] = lambda: None,
    is_orphan: Callable[[], bool] = lambda: False,
    *,
    helping: bool = False,
) -> None:
    """Do one unit. Why it cannot be done is handed in, too; an interruption hands the unit back.

    So does, on a machine that is `helping`, what need not happen on another: a full disk, a network that is cut.
    """
    result = None
    try:
        with around(run=unit.run_id), span("unit", unit=unit.ordinal):
            with working_on(unit):
                result = work.do(unit.work, _Reporter(unit, after_report, is_orphan, helping=helping))
            unit.finish(result)
        _count(unit.work, result["counts"])
    except LeaseLostError:  # another worker does it, since this one was held for dead
        if result is not None:
            with suppress(OSError):  # a network that was cut, say
                work.undo(result)
    except ProponentError as error:
        if helping and isinstance(error, OSError):
            unit.hand_back()
        else:
            unit.fail(error)
        raise
    except Exception as error:  # a full disk, a library's own: the next worker would meet it, too
        away = storage_error(error)
        if helping and (away or isinstance(error, OSError)):
            unit.hand_back()
        else:
            unit.fail(away or WorkerError(f"{type(error).__name__}: {error}"))
        raise away or error from error
    except BaseException:
        unit.hand_back()
        raise


def _count(work: dict[str, Any], counts: dict[str, int]) -> None:
    """Count what a unit came to; one that is done once more was counted before."""
    if work.get("again"):
        return
    kind = "encode" if "encoded" in counts else "ingest"
    for name in _TEXTS if kind == "encode" else _DOCUMENTS:
        if counts.get(name):
            count("texts" if kind == "encode" else "documents", counts[name], outcome=name)
    for name, told in (("passages", "passages"), ("rejects", "rejected")):
        if counts.get(told):
            count(name, counts[told])
    if counts.get("tokens"):
        count("tokens", counts["tokens"], work=kind)


class _Reporter:
    """Tells the catalog how far a unit is, now and then."""

    def __init__(
        self, unit: HeldUnit, after_report: Callable[[], None], is_orphan: Callable[[], bool], *, helping: bool
    ) -> None:
        self._unit = unit
        self._after_report = after_report
        self._is_orphan = is_orphan
        self._told_at = self._began_at = time.monotonic()
        self._most_s = _HELPER_REPORTS_EVERY_S if helping else _REPORT_EVERY_S

    def __call__(self, counts: dict[str, int]) -> None:
        if self._is_orphan():
            raise KeyboardInterrupt  # nobody would publish what comes out
        now = time.monotonic()
        if now - self._told_at < min(max(_REPORT_EVERY_S, (now - self._began_at) / 4), self._most_s):
            return
        self._told_at = now
        try:
            self._unit.report(counts)
        except LeaseLostError:
            raise
        except CatalogError:  # busy or away: the next report tells more
            return
        self._after_report()
