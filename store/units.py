"""Units of work: cut by a run, leased by workers, written by them and published by the run's committer.

Notable: a worker that dies loses its unit to the next one that asks, at once on this machine and after the lease's
expiry elsewhere. Whoever finishes a unit proves with its token that it still holds it, so that work which was given to
somebody else is never counted twice.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import delete, func, select, update

from proponent.schema.catalog import Unit, now
from proponent.schema.errors import CatalogError, LakeBusyError, LeaseLostError
from proponent.schema.ids import fresh_id

from .catalog import Catalog
from .leases import TTL, is_alive, process_start, this_machine

MOST_ATTEMPTS: Final = 3
"""A unit on which so many workers have died is not given to another."""


class HeldUnit:
    """A unit that this process works on."""

    def __init__(self, catalog: Catalog, unit: Unit) -> None:
        self._catalog = catalog
        self._unit_id = unit.unit_id
        self._token = unit.token
        self.ordinal = unit.ordinal
        self.work = unit.work

    def renew(self) -> None:
        """Put off the expiry. Raises LeaseLostError when the unit was given to somebody else."""
        self._update(expires_at=now() + TTL)

    def finish(self, result: dict[str, Any]) -> None:
        """Hand in what was written. Raises LeaseLostError when the unit was given to somebody else."""
        self._update(status="written", result=result, token=None)

    def fail(self, error: str) -> None:
        """Say why the unit cannot be done by anybody."""
        self._update(status="failed", result={"error": error}, token=None)

    def hand_back(self) -> None:
        """Leave the unit to another worker, as if it had not been begun."""
        self._update(status="waiting", token=None, attempts=Unit.attempts - 1)

    def _update(self, **values: Any) -> None:
        mine = update(Unit).where(Unit.unit_id == self._unit_id, Unit.token == self._token)
        with self._catalog.write() as session:
            if session.connection().execute(mine.values(**values)).rowcount != 1:
                raise LeaseLostError(f"unit {self.ordinal} was given to another worker")


def add_units(catalog: Catalog, run_id: str, works: Sequence[dict[str, Any]]) -> None:
    """Cut a run's work into units."""
    with catalog.write() as session:
        session.add_all(
            Unit(unit_id=fresh_id(), run_id=run_id, ordinal=ordinal, work=work, status="waiting", attempts=0)
            for ordinal, work in enumerate(works)
        )


def take_unit(catalog: Catalog, run_id: str) -> HeldUnit | None:
    """Lease the first unit that waits, or whose worker has died; None when there is none to be had at present."""
    of_run = select(Unit).where(Unit.run_id == run_id).order_by(Unit.ordinal)
    with catalog.write() as session:
        unit = session.scalars(
            of_run.where(Unit.status == "waiting").limit(1).with_for_update(skip_locked=True)
        ).first()
        if unit is None:
            leased = session.scalars(of_run.where(Unit.status == "leased").with_for_update(skip_locked=True))
            unit = next((one for one in leased if not is_alive(one)), None)
        if unit is None:
            return None
        if unit.attempts >= MOST_ATTEMPTS:
            unit.status, unit.token = "failed", None
            unit.result = {"error": f"{unit.attempts} workers died on the same unit, {unit.ordinal}"}
            return None
        unit.status, unit.token, unit.attempts = "leased", fresh_id(), unit.attempts + 1
        unit.host, unit.pid, unit.process_start = this_machine(), os.getpid(), process_start(os.getpid())
        unit.expires_at = now() + TTL
        session.flush()
        session.expunge(unit)
    return HeldUnit(catalog, unit)


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


def units_with_status(catalog: Catalog, run_id: str, status: str) -> list[Unit]:
    """Return a run's units of one status, in order."""
    wanted = select(Unit).where(Unit.run_id == run_id, Unit.status == status).order_by(Unit.ordinal)
    with catalog.read() as session:
        return list(session.scalars(wanted))


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
