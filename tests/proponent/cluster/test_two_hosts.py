"""Two hosts that share a bucket and a PostgreSQL server alone, one of which the network cuts off."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

import proponent
from proponent.lake import Lake
from proponent.schema import catalog as models
from proponent.schema.settings import EncoderSettings

pytestmark = pytest.mark.full

ROWS = 900
LAKE, CORPUS = "s3://lakes/shared", "s3://lakes/corpus"
TTL_S = 4.0
Rows = Callable[[Lake], dict[str, list[Any]]]


class Host:
    """A machine: its own home and scratch space, its own way to the bucket and to the catalog."""

    def __init__(self, name: str, folder: Path, s3: Any, catalog: Any, environment: dict[str, str]) -> None:
        self.s3 = s3
        self.catalog = catalog
        for part in ("home", "tmp"):
            (folder / name / part).mkdir(parents=True)
        self.environment = (
            os.environ
            | environment
            | {
                "TEST_HOST": name,
                "TEST_TTL_S": str(TTL_S),
                "PYTHONPATH": str(Path(__file__).parent / "host"),
                "HOME": str(folder / name / "home"),
                "TMPDIR": str(folder / name / "tmp"),
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3.port}",
                "PROPONENT_CATALOG": f"postgresql+psycopg://postgres@127.0.0.1:{catalog.port}/postgres",
            }
        )
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command of proponent."""
        command = [sys.executable, "-m", "proponent", *map(str, arguments)]
        process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._processes.append(process)
        return process

    def cut(self) -> None:
        for proxy in (self.s3, self.catalog):
            proxy.cut()

    def stall(self) -> None:
        for proxy in (self.s3, self.catalog):
            proxy.stall()

    def heal(self) -> None:
        for proxy in (self.s3, self.catalog):
            proxy.heal()

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


@pytest.fixture
def hosts(
    s3_server: Any, store: Any, postgres: str, empty_postgres: Any, proxy_to: Callable[..., Any], tmp_path: Path
) -> Iterator[list[Host]]:
    socket = f"{postgres.partition('host=')[2]}/.s.PGSQL.5432"
    made = [
        Host(name, tmp_path, proxy_to(s3_server.port), proxy_to(socket), s3_server.environment)
        for name in ("alpha", "beta")
    ]
    yield made
    for host in made:
        host.heal()
        host.end()


@pytest.fixture
def lake(
    store: Any, postgres: str, hosts: list[Host], tmp_path: Path, corpus_files: Callable[..., Path]
) -> Iterator[Lake]:
    """The shared lake, as the test sees it, on a network of its own; the corpus lies in the bucket."""
    store.put(f"{corpus_files(tmp_path / 'corpus', rows=ROWS, files=60)}/", "lakes/corpus/", recursive=True)
    with proponent.init(LAKE, catalog=postgres) as lake:
        yield lake


@pytest.fixture
def wanted(tmp_path: Path, lake: Lake, rows_of: Rows) -> dict[str, list[Any]]:
    with proponent.init(tmp_path / "local") as local:
        local.ingest(tmp_path / "corpus", corpus="c")
        return rows_of(local)


def units(lake: Lake) -> list[models.Unit]:
    with lake.store.catalog.read() as session:
        return list(session.scalars(select(models.Unit)))


def wait_until(is_so: Callable[[], bool], what: str, *processes: subprocess.Popen[str], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"{what} did not come"
        for process in processes:
            assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def ended(process: subprocess.Popen[str], seconds: float = 300) -> tuple[int, str]:
    _, errors = process.communicate(timeout=seconds)
    return process.returncode, errors


def at_work(lake: Lake, host: str) -> int:
    return sum(unit.status == "leased" and str(unit.host).startswith(f"{host}/") for unit in units(lake))


@pytest.mark.parametrize("trouble", ["cut", "stall"])
def test_a_helper_that_the_network_cuts_off_loses_and_doubles_nothing(
    hosts: list[Host], lake: Lake, wanted: dict[str, list[Any]], rows_of: Rows, trouble: str
) -> None:
    alpha, beta = hosts
    for host in hosts:
        host.s3.delay_s = 0.02
    ingest = alpha.start("ingest", LAKE, f"{CORPUS}/*.jsonl", "--corpus", "c", "--workers", 4, "-q")
    helping = beta.start("work", LAKE, "--workers", 4, "--wait", 20)
    wait_until(lambda: at_work(lake, "beta") >= 2 and at_work(lake, "alpha") >= 1, "work on both", ingest, helping)
    [seen] = lake.status()["at_work"]
    assert (seen["kind"], seen["subject"]) == ("ingest", "c")
    assert set(seen["workers"]) == {"alpha", "beta"}

    getattr(beta, trouble)()
    held = {unit.unit_id for unit in units(lake) if unit.status == "leased" and str(unit.host).startswith("beta/")}
    assert held
    code, errors = ended(ingest)
    assert code == 0, errors
    assert rows_of(lake) == wanted

    if trouble == "cut":
        code, errors = ended(helping)
        assert code == 1
        last = errors.strip().splitlines()[-1]
        assert last.startswith("error: the catalog cannot be used: "), errors
        assert "127.0.0.1" in last
    beta.heal()
    code, errors = ended(helping)
    assert rows_of(lake) == wanted, "what came late is not there"
    assert {finding["grade"] for finding in lake.check(deep=True)} <= {"leftover", "note"}
    lake.compact()
    assert lake.check(deep=True) == []
    assert rows_of(lake) == wanted


@pytest.mark.parametrize("table", ["documents", "passages"])
def test_a_commit_that_comes_late_is_refused_and_nothing_is_doubled(
    hosts: list[Host], lake: Lake, wanted: dict[str, list[Any]], rows_of: Rows, table: str
) -> None:
    alpha, beta = hosts
    alpha.s3.stalls_with = [alpha.s3, alpha.catalog]
    alpha.s3.stall_at = f"PUT /lakes/shared/tables/{table}.lance/_versions/".encode()
    command = ("ingest", LAKE, f"{CORPUS}/*.jsonl", "--corpus", "c", "--workers", 4)
    late = alpha.start(*command)
    wait_until(alpha.s3.stalled.is_set, "the commit", late)
    assert lake.snapshot.snapshot_id == 1

    deadline = time.monotonic() + 240
    while True:  # until the lease has expired, it is refused
        code, errors = ended(beta.start(*command))
        if code == 0 or time.monotonic() > deadline:
            break
        assert "is held by process" in errors
        assert "alpha" in errors
    assert code == 0, errors
    assert rows_of(lake) == wanted
    published = lake.snapshot

    alpha.heal()
    code, errors = ended(late)
    assert code == 1
    assert "was taken over by another process" in errors, errors
    assert lake.snapshot == published
    assert rows_of(lake) == wanted
    assert {finding["grade"] for finding in lake.check(deep=True)} <= {"leftover", "note"}
    code, errors = ended(beta.start("mark", LAKE, "--where", "source = 'a'", "--trained-on", "no"))
    assert code == 0, errors
    assert len(rows_of(lake)["documents"]) == ROWS
    lake.compact()
    assert lake.check(deep=True) == []
    assert len(rows_of(lake)["passages"]) == len(wanted["passages"])


def test_two_hosts_encode_what_one_process_encodes(
    hosts: list[Host], lake: Lake, wanted: dict[str, list[Any]], rows_of: Rows, checkpoint_dir: Path, tmp_path: Path
) -> None:
    alpha, beta = hosts
    settings = EncoderSettings(blocks=1, side=8, moments="none", sample=40)
    with proponent.open(tmp_path / "local") as local:
        local.add_model(checkpoint_dir, name="tiny")
        local.encode(settings=settings)
        encoded = rows_of(local)["encodings_tiny"]
    lake.ingest(f"{CORPUS}/*.jsonl", corpus="c")
    lake.add_model(checkpoint_dir, name="tiny")
    options = ("--blocks", 1, "--side", 8, "--moments", "none", "--sample", 40)
    encode = alpha.start("encode", LAKE, *options, "--workers", 2, "-q")
    helping = beta.start("work", LAKE, "--workers", 2, "--wait", 60)
    code, errors = ended(encode)
    assert code == 0, errors
    assert rows_of(lake)["encodings_tiny"] == encoded
    code, errors = ended(helping)
    assert code == 0, errors


def test_a_helper_leaves_alone_what_it_cannot_do(hosts: list[Host], lake: Lake, tmp_path: Path) -> None:
    alpha, beta = hosts
    (tmp_path / "here").mkdir()
    lines = "".join(f'{{"id": "{n}", "text": "Here is {n}."}}\n' for n in range(4000))
    (tmp_path / "here" / "a.jsonl").write_text(lines)
    ingest = alpha.start("ingest", LAKE, tmp_path / "here", "--corpus", "files", "--workers", 2, "-q")
    wait_until(lambda: at_work(lake, "alpha") >= 1, "work", ingest)
    alpha.stall()
    moved = (tmp_path / "here").rename(tmp_path / "not here")
    _, errors = beta.start("work", LAKE).communicate(timeout=120)
    assert "a.jsonl is not on this machine" in errors
    moved.rename(tmp_path / "here")
    ingest.kill()
