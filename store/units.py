"""Units of work: cut by a run, leased by workers, written by them and published by the run's committer.

Notable: a worker that dies loses its unit to the next one that asks, at once on this machine and after the lease's
expiry elsewhere. Whoever finishes a unit proves with its token that it still holds it, so that work which was given to
somebody else is never counted twice.
"""

import logging
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import delete, func, or_, select, update

from proponent.observe.events import count, tell
from proponent.schema.catalog import Unit, now
from proponent.schema.errors import CatalogError, LakeBusyError, LeaseLostError, ProponentError, WorkerError
from proponent.schema.ids import fresh_id

from .catalog import Catalog
from .leases import TTL, held_here, is_alive, process_start, this_machine

MOST_ATTEMPTS: Final = 3
"""A unit on which so many workers have died is not given to another."""
_AT_ONCE: Final = 1000
_log = logging.getLogger(__name__)


class HeldUnit:
    """A unit that this process works on."""

    def __init__(self, catalog: Catalog, unit: Unit, token: str) -> None:
        self._catalog = catalog
        self._unit_id = unit.unit_id
        self.run_id = unit.run_id
        self._token = token
        self.ordinal = unit.ordinal
        self.work = unit.work

    def renew(self) -> None:
        """Put off the expiry. Raises LeaseLostError when the unit was given to somebody else."""
        self._update(expires_at=now() + TTL)

    def finish(self, result: dict[str, Any]) -> None:
        """Hand in what was written. Raises LeaseLostError when the unit was given to somebody else."""
        self._let_go("written", status="written", result=result)

    def report(self, counts: dict[str, int]) -> None:
        """Say how far it is. Raises LeaseLostError when the unit was given to somebody else."""
        self._update(result={"so_far": counts})

    def fail(self, error: ProponentError) -> None:
        """Say why the unit cannot be done by anybody."""
        self._let_go("failed", status="failed", result=_failure(error), error=type(error).__name__)

    def hand_back(self) -> None:
        """Leave the unit to another worker, as if it had not been begun."""
        self._let_go("handed back", status="waiting", attempts=Unit.attempts - 1, result=None)

    def _let_go(self, how: str, *, error: str | None = None, **values: Any) -> None:
        try:
            self._update(token=None, **values)
        finally:
            held_here.discard(self._token)
        tell(_log, f"unit {how}", run=self.run_id, unit=self.ordinal, error=error)
        count("units", outcome=how.replace(" ", "_"))

    def _update(self, **values: Any) -> None:
        mine = update(Unit).where(Unit.unit_id == self._unit_id, Unit.token == self._token)
        with self._catalog.write() as session:
            if session.connection().execute(mine.values(**values)).rowcount != 1:
                tell(_log, "late unit refused", level=logging.WARNING, run=self.run_id, unit=self.ordinal)
                count("refusals", what="unit")
                raise LeaseLostError(f"unit {self.ordinal} was given to another worker")


def add_units(catalog: Catalog, run_id: str, works: Sequence[dict[str, Any]]) -> None:
    """Cut a run's work into units."""
    with catalog.write() as session:
        session.add_all(
            Unit(unit_id=fresh_id(), run_id=run_id, ordinal=ordinal, work=work, status="waiting", attempts=0)
            for ordinal, work in enumerate(works)
        )


def _failure(error: ProponentError) -> dict[str, Any]:
    return {"error": str(error), "kind": type(error).__name__}


def take_unit(catalog: Catalog, run_id: str) -> HeldUnit | None:
    """Lease the first unit that waits, or whose worker has died; None when there is none to be had at present."""
    token = fresh_id()
    held_here.add(token)
    taken = None
    try:
        taken = _take(catalog, run_id, token)
    finally:
        if taken is None:
            held_here.discard(token)
    return taken


def _take(catalog: Catalog, run_id: str, token: str) -> HeldUnit | None:
    of_run = select(Unit).where(Unit.run_id == run_id).order_by(Unit.ordinal)
    with catalog.write() as session:
        unit = session.scalars(
            of_run.where(Unit.status == "waiting").limit(1).with_for_update(skip_locked=True)
        ).first()
        if unit is None:
            # Of ten thousand that others hold, the few that may be had: whoever lives renews in time, and here the
            # process can be looked at.
            may_be_dead = or_(Unit.expires_at <= now(), Unit.host == this_machine())
            leased = of_run.where(Unit.status == "leased", may_be_dead).with_for_update(skip_locked=True)
            unit = next((one for one in session.scalars(leased) if not is_alive(one)), None)
        if unit is None:
            return None
        _tell_taken(unit)
        if unit.attempts >= MOST_ATTEMPTS:
            unit.status, unit.token = "failed", None
            unit.result = _failure(WorkerError(f"{unit.attempts} workers died on the same unit, {unit.ordinal}"))
            return None
        unit.status, unit.token, unit.attempts = "leased", token, unit.attempts + 1
        unit.host, unit.pid, unit.process_start = this_machine(), os.getpid(), process_start(os.getpid())
        unit.expires_at, unit.result = now() + TTL, None
        session.flush()
        session.expunge(unit)
    return HeldUnit(catalog, unit, token)


def _tell_taken(unit: Unit) -> None:
    """Tell that a unit is leased, and from whom where its worker has died."""
    if unit.status != "leased":
        tell(_log, "unit leased", run=unit.run_id, unit=unit.ordinal, attempt=unit.attempts + 1)
        return
    tell(
        _log, "unit taken over from a worker that died", run=unit.run_id, unit=unit.ordinal, attempt=unit.attempts + 1,
        from_machine=str(unit.host).partition("/")[0], from_pid=unit.pid,
    )  # fmt: skip
    count("takeovers", what="unit")


@contextmanager
def working_on(unit: HeldUnit) -> Iterator[None]:
    """Keep a unit's lease alive for the length of a with block."""
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(unit, stop), name="unit", daemon=True)
    heart.start()
    try:
        yield
    finally:
        stop.set()
        heart.join()


def _beat(unit: HeldUnit, stop: threading.Event) -> None:
    while not stop.wait(TTL.total_seconds() / 4):
        try:
            unit.renew()
        except LeaseLostError:
            return
        except CatalogError:  # busy or away; `finish` decides
            continue


def count_units(catalog: Catalog, run_id: str) -> dict[str, int]:
    """Return how many units of a run there are by status."""
    counted = select(Unit.status, func.count()).where(Unit.run_id == run_id).group_by(Unit.status)
    with catalog.read() as session:
        return {str(status): int(number) for status, number in session.execute(counted)}


def has_units(catalog: Catalog, run_id: str, *states: str) -> bool:
    """Return whether a run has any unit in one of some states; ten thousand workers may ask that, so it counts none."""
    found = select(Unit.unit_id).where(Unit.run_id == run_id, Unit.status.in_(states)).limit(1)
    with catalog.read() as session:
        return session.scalars(found).first() is not None


def all_units(catalog: Catalog, run_id: str) -> list[Unit]:
    """Return a run's units in order."""
    with catalog.read() as session:
        return list(session.scalars(select(Unit).where(Unit.run_id == run_id).order_by(Unit.ordinal)))


def failure_of(catalog: Catalog, run_id: str) -> dict[str, str] | None:
    """Return the `error` of the first unit of a run that failed and its class's name, `kind`; None if none did."""
    failed = select(Unit.result).where(Unit.run_id == run_id, Unit.status == "failed").order_by(Unit.ordinal).limit(1)
    with catalog.read() as session:
        return session.scalars(failed).first()


def written_units(catalog: Catalog, run_id: str, *, known: Collection[str] = ()) -> list[Unit]:
    """Return a run's units that are written and not published, in order, without those that are known already."""
    written = select(Unit.unit_id).where(Unit.run_id == run_id, Unit.status == "written").order_by(Unit.ordinal)
    with catalog.read() as session:
        keys = [key for key in session.scalars(written) if key not in known]
        found: list[Unit] = []
        for start in range(0, len(keys), _AT_ONCE):
            some = select(Unit).where(Unit.unit_id.in_(keys[start : start + _AT_ONCE])).order_by(Unit.ordinal)
            found += session.scalars(some)
    return found


def reports_of(catalog: Catalog, run_id: str) -> list[dict[str, int]]:
    """Return how far the units are that are being worked on, as far as their workers have said."""
    leased = select(Unit.result).where(Unit.run_id == run_id, Unit.status == "leased")
    with catalog.read() as session:
        return [result["so_far"] for result in session.scalars(leased) if result and "so_far" in result]


def repeat_units(catalog: Catalog, run_id: str, works: Mapping[int, dict[str, Any]]) -> None:
    """Give units, by their ordinals, to workers once more, with other work."""
    with catalog.write() as session:
        for ordinal, work in works.items():
            one = update(Unit).where(Unit.run_id == run_id, Unit.ordinal == ordinal)
            session.execute(one.values(status="waiting", attempts=0, result=None, work=work))


def reopen_units(catalog: Catalog, run_id: str) -> None:
    """Make what failed, or was tried too often, in a run that goes on now wait for a worker."""
    failed = update(Unit).where(Unit.run_id == run_id, Unit.status.in_(("failed", "waiting")))
    with catalog.write() as session:
        session.execute(failed.values(status="waiting", attempts=0, result=None))


def require_no_workers(catalog: Catalog) -> None:
    """Raise LakeBusyError while a worker is busy with a unit: it may outlive its run by some seconds."""
    with catalog.read() as session:
        for unit in session.scalars(select(Unit).where(Unit.status == "leased")):
            if is_alive(unit):
                raise LakeBusyError(
                    f"a worker, process {unit.pid} on {unit.host}, has not ended; try again in a minute"
                )


def remove_units(catalog: Catalog, run_ids: Sequence[str]) -> None:
    """Forget the units of runs that are over; a worker that still has one of them finds that it was taken."""
    with catalog.write() as session:
        session.execute(delete(Unit).where(Unit.run_id.in_(run_ids)))


def remove_all_units(catalog: Catalog) -> None:
    """Forget all units; only for who holds the lake alone, when every run is over."""
    with catalog.write() as session:
        session.execute(delete(Unit))
