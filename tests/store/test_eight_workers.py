"""Eight processes share one catalog, on SQLite and on PostgreSQL: every lock has one holder, every unit counts once.

Two of them are killed in the middle, one while it holds a lock and one while it holds a unit.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.engine import Engine

from proponent.schema import catalog as models
from proponent.store.lake import DEFAULT_CATALOG, LakeStore
from proponent.store.runs import new_run
from proponent.store.snapshots import latest_snapshot
from proponent.store.units import add_units, all_units

WORKERS, UNITS, COUNTS = 8, 40, 10
WORK = """
import sys, time
from pathlib import Path
import pyarrow as pa
from proponent.schema.tables import DOCUMENTS
from proponent.store.commit import Change, committing, write_batch
from proponent.store.lake import open_store
from proponent.store.leases import lease
from proponent.store.units import take_unit

root, run_id, number, counter = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
lake = open_store(root)
print("ready", flush=True)
sys.stdin.readline()
if number == 0:
    with lease(lake.catalog, "count"):
        print("holds", flush=True)
        time.sleep(600)
if number == 1:
    take_unit(lake.catalog, run_id)
    print("holds", flush=True)
    time.sleep(600)
for _ in range(10):
    with lease(lake.catalog, "count"):
        counter.write_text(str(int(counter.read_text()) + 1))
while True:
    unit = take_unit(lake.catalog, run_id)
    if unit is not None:
        unit.finish({"worker": number})
    elif counter.with_name("killed").exists():  # nothing will become free again
        break
    else:
        time.sleep(0.05)
blank = {field.name: None if field.nullable else "" for field in DOCUMENTS} | {"n_passages": 0}
for n in range(3):
    row = blank | {"doc_id": f"{number}-{n}", "doc_key": f"{number}-{n}"}
    batch = write_batch(lake, "documents", pa.Table.from_pylist([row], DOCUMENTS))
    with committing(lake) as committer:
        committer.publish(run_id, [Change("documents", (batch,))])
lake.close()
"""


@pytest.mark.full
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_eight_workers_lose_and_double_nothing(
    database: str,
    make_lake: Callable[..., LakeStore],
    start_python: Callable[..., Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    catalog = DEFAULT_CATALOG
    if database == "postgres":
        engine: Engine = request.getfixturevalue("empty_postgres")
        catalog = engine.url.render_as_string(hide_password=False)
    lake = make_lake(catalog=catalog)
    run, counter = new_run("ingest", {}), tmp_path / "counter"
    counter.write_text("0")
    with lake.catalog.write() as session:
        session.add(run)
    add_units(lake.catalog, run.run_id, [{"n": n} for n in range(UNITS)])

    workers = [start_python(WORK, lake.root, run.run_id, number, counter) for number in range(WORKERS)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n", worker.communicate()[1]
    for worker in workers[:2]:
        start(worker)
        assert worker.stdout.readline() == "holds\n", worker.communicate()[1]
    for worker in workers[2:]:
        start(worker)
    for worker in workers[:2]:
        worker.kill()
        worker.wait()
    (tmp_path / "killed").touch()
    for worker in workers[2:]:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors

    assert counter.read_text() == str((WORKERS - 2) * COUNTS)
    units = all_units(lake.catalog, run.run_id)
    assert [unit.status for unit in units] == ["written"] * UNITS
    assert Counter(unit.attempts for unit in units) == {1: UNITS - 1, 2: 1}, "one was begun by who was killed"
    ids = sorted(lake.table("documents", at=latest_snapshot(lake.catalog)).to_table()["doc_id"].to_pylist())
    assert ids == sorted(f"{worker}-{n}" for worker in range(2, WORKERS) for n in range(3))
    with lake.catalog.read() as session:
        numbers = list(session.scalars(select(models.Snapshot.snapshot_id).order_by(models.Snapshot.snapshot_id)))
        assert numbers == list(range(1, 2 + (WORKERS - 2) * 3))
        assert session.scalars(select(models.Lock)).all() == []
        assert all(one.snapshot_id for one in session.scalars(select(models.Publication)))


def start(worker: Any) -> None:
    worker.stdin.write("\n")
    worker.stdin.flush()
