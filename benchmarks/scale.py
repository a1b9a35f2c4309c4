"""Growing: workers, rows, and a catalog that many workers share.

    python benchmarks/scale.py                       # about twenty minutes on two cores, 2 GB of disk
    python benchmarks/scale.py --part coordination --workers 10000 --units 20000
    python benchmarks/scale.py --part search --rows 10000 100000 1000000 10000000

- `throughput`: an ingest and an encoding with 1, 2 and 4 workers, each a command as people start it. The reference is
  one worker. On two cores four workers can only show what sharing out costs, not what four cores would do.
- `search`: whole exact searches in lakes of 10^4 to 10^7 rows of 64 components, with their peak memory (rows.py). The
  reference is reading the vectors and doing nothing with them.
- `coordination`: what workers ask of the catalog (lease, heartbeat, report, hand in; and the committer's and a
  watcher's questions), by the same functions, on a PostgreSQL server of its own, while as many units are leased as
  there would be workers. A few processes stand for all of them, so requests come as fast as answers do, and not all at
  one moment. The reference is `SELECT 1` through the same pool. Client and server share the cores here: the server's
  own CPU seconds for each request are told beside.

Prints one JSON object as its last line.
"""

import argparse
import json
import multiprocessing
import os
import pwd
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from lake import corpus_lines, write_checkpoint
from rows import searching

from proponent import migrations
from proponent.schema.catalog import Unit, now
from proponent.schema.ids import fresh_id
from proponent.store.at_work import runs_at_work
from proponent.store.catalog import Catalog, catalog_engine
from proponent.store.leases import TTL
from proponent.store.runs import new_run
from proponent.store.units import HeldUnit, count_units, failure_of, reports_of, take_unit, written_units

_POSTGRES = Path("/usr/lib/postgresql/15/bin")
_ENCODE = ("--blocks", 1, "--side", 8, "--moments", "none", "--sample", 512)
_UNIT_S = 60.0
"""Seconds that a worker is thought to take for a unit."""


# Workers


def command(*arguments: object) -> tuple[float, float]:
    """Run a command of proponent; return its seconds, and CPU seconds with its workers'."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = [sys.executable, "-m", "proponent", *map(str, arguments), "-q"]
    subprocess.run(done, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


def throughput(folder: Path, passages: int, texts: int) -> dict[str, Any]:
    """Measure an ingest and an encoding with 1, 2 and 4 workers."""
    corpus, few = folder / "corpus", folder / "few"
    for place, n in ((corpus, passages), (few, texts)):
        place.mkdir()
        files = [(place / f"{number}.jsonl").open("w", encoding="utf-8") for number in range(8)]
        for number, line in enumerate(corpus_lines(n)):
            files[number % 8].write(line)
        for file in files:
            file.close()
    write_checkpoint(folder / "model")
    found: dict[str, Any] = {}
    for workers in (1, 2, 4):
        lake = folder / f"lake{workers}"
        command("init", lake)
        options = ("--corpus", "c", "--workers", workers, "--max-tokens", 240)
        seconds, cpu = command("ingest", lake, corpus, *options)
        found[f"ingest_{workers}"] = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
        shutil.rmtree(lake)
        command("init", lake)
        command("model", "add", lake, folder / "model", "--name", "tiny")
        command("ingest", lake, few, *options)
        command("encode", lake, *_ENCODE, "--only", "false")  # fits the encoder
        seconds, cpu = command("encode", lake, *_ENCODE, "--workers", workers)
        found[f"encode_{workers}"] = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
        shutil.rmtree(lake)
    print(f"\n{passages:,} passages ingested, {texts:,} texts encoded by a tiny model; start-up included")
    for kind in ("ingest", "encode"):
        base = found[f"{kind}_1"]
        for workers in (1, 2, 4):
            one = found[f"{kind}_{workers}"]
            one["speed_over_one_worker"] = round(base["seconds"] / one["seconds"], 3)
            one["cpu_over_one_worker"] = round(one["cpu_seconds"] / base["cpu_seconds"], 3)
            print(
                f"  {kind} {workers}: {one['seconds']:7.1f} s, {one['cpu_seconds']:7.1f} CPU s, "
                f"{one['speed_over_one_worker']:.2f} of one worker's speed"
            )
    return found


# A catalog for many


@contextmanager
def postgres() -> Iterator[tuple[str, Path]]:
    """Give the URL of a server of its own, as it is set up by default, and its folder."""
    folder = Path(tempfile.mkdtemp(prefix="proponent-scale-", dir="/tmp"))  # a socket's path is short
    user = pwd.getpwnam("postgres") if os.getuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user.pw_uid, user.pw_gid)

    def run(*words: object) -> None:
        full = [*(["runuser", "-u", "postgres", "--"] if user else []), *map(str, words)]
        subprocess.run(full, check=True, stdout=subprocess.DEVNULL, cwd=folder)

    run(_POSTGRES / "initdb", "-D", folder / "data", "--auth=trust", "--encoding=UTF8")
    options = f"-k {folder} -c listen_addresses=''"
    run(_POSTGRES / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start")
    try:
        name = "postgres" if user else pwd.getpwuid(os.getuid()).pw_name
        yield f"postgresql+psycopg://{name}@/postgres?host={folder}", folder
    finally:
        run(_POSTGRES / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def fill(catalog: Catalog, *, units: int, leased: int) -> str:
    """Put a run into the catalog whose first units are leased to workers elsewhere; return its id."""
    run = new_run("encode", {"encoder": "e"})
    work = {"start": 0, "stop": 512}
    with catalog.write() as session:
        session.add(run)
        session.flush()
        rows = [
            {
                "unit_id": fresh_id(),
                "run_id": run.run_id,
                "ordinal": ordinal,
                "work": work,
                "status": "leased" if ordinal < leased else "waiting",
                "attempts": int(ordinal < leased),
                "token": fresh_id() if ordinal < leased else None,
                "host": f"host{ordinal % 1000}/boot/pid" if ordinal < leased else None,
                "pid": ordinal if ordinal < leased else None,
                "process_start": "1" if ordinal < leased else None,
                "expires_at": now() + timedelta(hours=1) if ordinal < leased else None,
            }
            for ordinal in range(units)
        ]
        session.execute(Unit.__table__.insert(), rows)  # type: ignore[attr-defined]
    return str(run.run_id)


def request(name: str, catalog: Catalog, run_id: str, held: list[HeldUnit]) -> Callable[[], object]:
    """Return what a worker, the committer or a watcher asks."""
    turn = iter(range(1 << 30))

    def mine() -> HeldUnit:
        return held[next(turn) % len(held)]

    def nothing() -> None:
        with catalog.read() as session:
            session.connection().exec_driver_sql("SELECT 1")

    def hand_in() -> None:
        unit = take_unit(catalog, run_id)
        assert unit is not None
        unit.finish({"counts": {"encoded": 512, "tokens": 9}, "batch": None, "fidelity": None})

    return {
        "select_1": nothing,
        "heartbeat": lambda: mine().renew(),
        "report": lambda: mine().report({"texts": 7}),
        "lease_and_hand_in": hand_in,
        "count_units": lambda: count_units(catalog, run_id),
        "failure_of": lambda: failure_of(catalog, run_id),
        "reports_of": lambda: reports_of(catalog, run_id),
        "written_units": lambda: written_units(catalog, run_id, known=["none"]),
        "status": lambda: runs_at_work(catalog),
        "nothing_to_lease": lambda: take_unit(catalog, run_id),
    }[name]


_open: list[Catalog] = []


def ask(
    url: str, run_id: str, name: str, tokens: list[tuple[str, int, str]], *, seconds: float, threads: int
) -> list[float]:
    """Ask one thing again and again through a pool of connections; return how long each time took."""
    while _open:
        _open.pop().close()
    catalog = Catalog(catalog_engine(url, root=Path()))
    _open.append(catalog)  # as long as somebody looks at what the server has done for it
    taken: list[float] = []
    until = time.perf_counter() + seconds

    def loop(some: list[tuple[str, int, str]]) -> None:
        held = [
            HeldUnit(catalog, Unit(unit_id=unit_id, run_id=run_id, ordinal=ordinal, work={}), token)
            for unit_id, ordinal, token in some
        ]
        do = request(name, catalog, run_id, held)
        while time.perf_counter() < until:
            began = time.perf_counter()
            do()
            taken.append(time.perf_counter() - began)

    workers = [threading.Thread(target=loop, args=(tokens[number::threads],)) for number in range(threads)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    return taken


def connections(folder: Path) -> dict[int, float]:
    """Return the CPU seconds of a server's connections, by process, without what it does for itself."""
    pid = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
    found = {}
    for child in psutil.Process(pid).children():
        with suppress(psutil.Error):  # one that has just ended
            if "[local]" in " ".join(child.cmdline()):
                times = child.cpu_times()
                found[child.pid] = times.user + times.system
    return found


def coordination(workers: int, units: int, seconds: float, processes: int, threads: int) -> dict[str, Any]:
    """Measure how many requests a second the catalog answers while so many units are leased."""
    found: dict[str, Any] = {}
    print(f"\nPostgreSQL, {units:,} units of which {workers:,} are leased, {processes} x {threads} connections")
    with postgres() as (url, folder):
        catalog = Catalog(catalog_engine(url, root=Path()))
        migrations.upgrade(catalog.engine)
        run_id = fill(catalog, units=units, leased=workers)
        with catalog.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("ANALYZE")
        with catalog.read() as session:
            rows = session.query(Unit.unit_id, Unit.ordinal, Unit.token).where(Unit.status == "leased").all()
        held = [(row[0], row[1], row[2]) for row in rows]
        names = ["select_1", "heartbeat", "report", "lease_and_hand_in"]
        names += ["count_units", "failure_of", "reports_of", "written_units", "status", "nothing_to_lease"]
        context = multiprocessing.get_context("spawn")
        how = {"seconds": seconds, "threads": threads}
        with context.Pool(processes) as pool:
            for name in names:
                if name == "nothing_to_lease":
                    with catalog.write() as session:
                        session.query(Unit).where(Unit.status == "waiting").update({"status": "done"})
                before = connections(folder)
                jobs = [
                    pool.apply_async(ask, (url, run_id, name, held[number::processes]), how)
                    for number in range(processes)
                ]
                taken = sorted(value for job in jobs for value in job.get())
                cpu = sum(used for pid, used in connections(folder).items() if pid not in before)
                one = found[name] = {
                    "per_second": round(len(taken) / seconds, 1),
                    "median_ms": round(1000 * taken[len(taken) // 2], 2),
                    "p95_ms": round(1000 * taken[int(len(taken) * 0.95)], 2),
                    "server_cpu_ms": round(1000 * cpu / len(taken), 3),
                }
                one["over_select_1"] = round(found["select_1"]["per_second"] / one["per_second"], 2)
                print(
                    f"  {name:18} {one['per_second']:9,.1f} a second, median {one['median_ms']:8.2f} ms, p95 "
                    f"{one['p95_ms']:8.2f} ms, {one['server_cpu_ms']:7.3f} ms of the server's CPU"
                )
        catalog.close()
    return found | {"capacity": capacity(found, workers)}


def capacity(found: dict[str, Any], workers: int) -> dict[str, Any]:
    """Return what the workers ask for each second, and how often they can give a sign of life.

    Of each: heartbeats and reports every quarter of the lease's time, and a lease with what is handed in for each unit.
    """
    beat = TTL.total_seconds() / 4
    told: dict[str, Any] = {}
    for what, column in (("as_measured", None), ("server_of_one_core", "server_cpu_ms")):
        cost = {
            name: (one[column] / 1000 if column else 1 / one["per_second"])
            for name, one in found.items()
            if name in {"heartbeat", "report", "lease_and_hand_in"}
        }
        units = workers / _UNIT_S * cost["lease_and_hand_in"]
        share = workers / beat * (cost["heartbeat"] + cost["report"]) + units
        left = 0.7 - units  # a server that is busy for more than 70 % of the time answers late
        every = workers * (cost["heartbeat"] + cost["report"]) / left if left > 0 else None
        told[what] = {
            "busy_at_present_interval": round(share, 3),
            "shortest_interval_s": None if every is None else round(every, 1),
        }
    needed = workers * (2 / beat + 1 / _UNIT_S)
    print(f"  {workers:,} workers ask {needed:,.0f} things a second with an interval of {beat:g} s:")
    for what, one in told.items():
        busy, every = one["busy_at_present_interval"], one["shortest_interval_s"]
        print(f"    {what}: busy for {busy:.2f} of the time; shortest interval {every} s")
    return told


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("throughput", "search", "coordination"), action="append")
    parser.add_argument("--passages", type=int, default=100_000, help="of the ingest")
    parser.add_argument("--texts", type=int, default=8_000, help="that are encoded")
    parser.add_argument("--rows", type=int, nargs="+", default=[10**4, 10**5, 10**6, 10**7])
    parser.add_argument("--workers", type=int, default=10_000, help="that are simulated")
    parser.add_argument("--units", type=int, default=50_000, help="of the simulated run")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each kind of request")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=8, help="connections of each process")
    parser.add_argument("--folder", type=Path, help="where to put files; by default a temporary folder")
    chosen = parser.parse_args()
    parts, found = chosen.part or ["throughput", "search", "coordination"], dict[str, Any]()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as parent:
        if "throughput" in parts:
            found["throughput"] = throughput(Path(parent), chosen.passages, chosen.texts)
        if "search" in parts:
            found["search"] = searching(Path(parent), chosen.rows)
    if "coordination" in parts and (_POSTGRES / "initdb").exists():
        found["coordination"] = coordination(
            chosen.workers, chosen.units, chosen.seconds, chosen.processes, chosen.threads
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
