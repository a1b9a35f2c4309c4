"""Numbers of a lake for who watches over it, read from the catalog alone: no table is opened."""

from collections import Counter
from collections.abc import Iterator

from sqlalchemy import func, select

from proponent.observe.metrics import Gauge
from proponent.schema import catalog as models

from .at_work import runs_at_work
from .catalog import Catalog

_STATES = ("waiting", "leased", "written", "done", "failed")


def readings(catalog: Catalog) -> Iterator[Gauge]:
    """Yield what the catalog says of the lake just now."""
    with catalog.read() as session:
        counted = session.execute(select(models.Unit.status, func.count()).group_by(models.Unit.status))
        units = {str(state): int(number) for state, number in counted}
        published = session.execute(
            select(models.Snapshot.snapshot_id, models.Snapshot.created_at)
            .order_by(models.Snapshot.snapshot_id.desc())
            .limit(1)
        ).one()
        failed = select(func.count()).select_from(models.Run).where(models.Run.status == "failed")
        n_failed = int(session.scalars(failed).one())
    yield Gauge("snapshot", "Number of the newest snapshot.", {}, float(published[0]))
    told = "When the newest snapshot was published."
    yield Gauge("snapshot_timestamp_seconds", told, {}, published[1].timestamp())
    yield Gauge("runs_failed", "Runs of this lake that have failed.", {}, float(n_failed))
    for state in _STATES:
        told = "Units of work of runs that are not over, by state."
        yield Gauge("units_in_state", told, {"state": state}, float(units.get(state, 0)))
    runs, workers, silent = runs_at_work(catalog), Counter[str](), dict[str, float]()
    yield Gauge("runs_at_work", "Runs that are not over and have units.", {}, float(len(runs)))
    for run in runs:
        for machine, some in run.workers.items():
            workers[machine] += some.n
            silent[machine] = min(silent.get(machine, some.silent_s), some.silent_s)
        if run.throughput and run.throughput.per_second is not None:
            told = "Documents or texts a second since a run began."
            yield Gauge("run_rate", told, {"kind": run.kind, "run": run.run_id}, run.throughput.per_second)
    for machine, n in workers.items():
        yield Gauge("workers", "Workers that hold a unit, by machine.", {"machine": machine}, float(n))
    for machine, seconds in silent.items():
        told = "Seconds since a machine's last sign of life."
        yield Gauge("worker_silence_seconds", told, {"machine": machine}, seconds)
