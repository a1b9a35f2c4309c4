"""A Ray cluster whose nodes are hosts of their own: an object store and PostgreSQL are all that they share."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select, text

import proponent
from proponent.lake import Lake
from proponent.schema import catalog as models

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[3]
WALK_THROUGH = re.compile(r"### The demonstration on a cluster\n.*?```sh\n(.*?)```", re.DOTALL)
LAKE = "s3://lakes/demo/lake"
TABLES = ("documents", "passages", "mentions", "encodings_factbook", "encodings_factbook_plain")
HITS = (
    "SELECT query_id, method, filter, k, n_candidates, side, rank, passage_id, score, percentile "
    "FROM traces JOIN hits USING (trace_id) JOIN queries USING (query_id) WHERE exact AND prompt <> 'Peru. Capital:' "
    "ORDER BY ALL"
)


class Hosts:
    """Three nodes with scratch space of their own."""

    def __init__(self, nodes: Any, folder: Path) -> None:
        self.nodes = nodes
        self._folder = folder
        self.raylets: dict[str, int] = {}
        for name in ("alpha", "beta", "gamma"):
            self.add(name)

    @property
    def address(self) -> str:
        address: str = self.nodes.address
        return address

    def add(self, name: str, **environment: str) -> int:
        """Start a node; return its process."""
        (self._folder / name).mkdir(exist_ok=True)
        [raylet] = self.nodes.add(TEST_HOST=name, TMPDIR=str(self._folder / name), **environment)
        self.raylets[name] = int(raylet)
        return int(raylet)

    def left_over(self) -> list[Path]:
        """Return what is in the folders of runs on the nodes."""
        return list(self._folder.glob("*/proponent-*/*/*"))

    def kill(self, name: str) -> None:
        """End a node as a machine ends that loses its power."""
        node = psutil.Process(self.raylets[name])
        for process in [node, *node.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture(scope="module")
def hosts(ray_nodes: Callable[[], Any]) -> Iterator[Hosts]:
    with tempfile.TemporaryDirectory(prefix="hosts-", ignore_cleanup_errors=True) as folder:
        yield Hosts(ray_nodes(), Path(folder))


@pytest.fixture
def environment(store: Any, postgres: str, empty_postgres: Any, hosts: Hosts) -> dict[str, str]:
    """What the walk-through exports; one thread each, since with others the last bits of a norm may differ."""
    mine = {"PROPONENT_CATALOG": postgres, "RAY_ADDRESS": hosts.address, "OMP_NUM_THREADS": "1"}
    return os.environ | mine


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command of proponent."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "proponent", *map(str, arguments)]
        started.append(
            subprocess.Popen(
                command, env=environment | more, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def corpus(tmp_path: Path, corpus_files: Callable[..., Path]) -> Path:
    return corpus_files(tmp_path / "corpus", rows=60, files=3)


def failed(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert not out
    return errors.strip().splitlines()[-1]


def ended(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    return out


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration in a folder, by processes of this machine."""
    folder = tmp_path_factory.mktemp("laptop")
    command = [sys.executable, "-m", "proponent", "demo", str(folder), "-q"]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return folder


def rows(lake: Lake) -> dict[str, list[Any]]:
    """What is in a lake's tables, without what depends on when and where a run was."""
    found = {"hits": lake.sql(HITS).to_dicts()}
    for name in TABLES:
        data = lake.store.table(name, at=lake.snapshot).to_table()
        kept = data.drop_columns([column for column in ("run_id", "file") if column in data.column_names])
        found[name] = sorted(kept.to_pylist(), key=repr)
    encoders = lake.sql("SELECT name, encoder_id, projection_hash, artifact FROM encoders ORDER BY ALL")
    return found | {"encoders": encoders.to_dicts()}


def test_the_demonstration_on_a_cluster_makes_the_lake_of_a_laptop(
    tmp_path: Path, hosts: Hosts, laptop: Path, run: Callable[..., subprocess.Popen[str]], environment: dict[str, str]
) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text("utf-8")
    [block] = WALK_THROUGH.findall(page)
    lines = [line for line in block.splitlines() if line.startswith("proponent ")]
    assert lines[0].startswith("proponent demo ")
    for line in lines:
        ended(run(*shlex.split(line.replace("$PROPONENT_CATALOG", environment["PROPONENT_CATALOG"]))[1:]))
    with proponent.open(laptop / "lake") as one, proponent.open(LAKE) as other:
        wanted, found = rows(one), rows(other)
        for name, some in wanted.items():
            assert some, name
            assert some == found[name], name
        assert [finding for finding in other.check(deep=True) if finding["grade"] != "note"] == []
    assert (tmp_path / "demo" / "report.html").is_file()
    assert not hosts.left_over(), "what a run has left on a node"


@pytest.mark.parametrize(
    ("environment_of_node", "says"),
    [
        ({"TEST_TORCH": "1.0+cu12"}, r"node [\d.]+ \(delta\) has torch 1\.0\+cu12, and this machine has .*; install"),
        ({"TEST_WITHOUT": "proponent"}, r"node [\d.]+: .*proponent"),
    ],
)
def test_a_node_with_other_libraries_is_told_before_anything_is_done(
    hosts: Hosts, run: Callable[..., subprocess.Popen[str]], environment: dict[str, str], corpus: Path,
    environment_of_node: dict[str, str], says: str,
) -> None:  # fmt: skip
    ended(run("init", LAKE, "--catalog", environment["PROPONENT_CATALOG"]))
    hosts.add("delta", **environment_of_node)
    try:
        assert re.search(says, failed(run("ingest", LAKE, corpus, "--corpus", "c", "--engine", "ray")))
    finally:
        hosts.kill("delta")
    ended(run("ingest", LAKE, corpus, "--corpus", "c", "--engine", "ray"))


def test_several_machines_need_a_catalog_on_a_server(
    run: Callable[..., subprocess.Popen[str]], corpus: Path, tmp_path: Path
) -> None:
    ended(run("init", tmp_path / "lake"))
    told = failed(run("ingest", tmp_path / "lake", corpus, "--corpus", "c", "--engine", "ray"))
    assert re.search(r"\) is another machine, and the lake's catalog is in SQLite; several machines need", told)


@pytest.mark.skipif(subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0, reason="needs a namespace")
def test_a_node_that_does_not_see_the_folder_of_a_lake_or_of_a_corpus_is_told(
    hosts: Hosts,
    run: Callable[..., subprocess.Popen[str]],
    environment: dict[str, str],
    corpus: Path,
    tmp_path: Path,
    empty_postgres: Any,
) -> None:
    catalog = ("--catalog", environment["PROPONENT_CATALOG"])
    with hosts.nodes.without(tmp_path):
        ended(run("init", LAKE, *catalog))
        told = failed(run("ingest", LAKE, corpus, "--corpus", "c", "--engine", "ray"))
        says = (
            r"node [\d.]+ \(.*\): .*corpus/000.jsonl is not on this machine; give the corpus by URLs, or from a folder"
        )
        assert re.search(says, told)
        with empty_postgres.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        ended(run("init", tmp_path / "lake", *catalog))
        told = failed(run("ingest", tmp_path / "lake", corpus, "--corpus", "c", "--engine", "ray"))
        assert re.search(r"node [\d.]+ \(.*\) does not see the lake's folder .*; put the lake into a folder that", told)
    assert not list((tmp_path / "lake" / "work").iterdir())


def test_a_host_that_dies_in_mid_run_loses_nothing_and_doubles_nothing(
    hosts: Hosts, laptop: Path, run: Callable[..., subprocess.Popen[str]], environment: dict[str, str]
) -> None:
    catalog = ("--catalog", environment["PROPONENT_CATALOG"])
    ended(run("init", LAKE, *catalog))
    demo = run("demo", "demo", "--lake", LAKE, *catalog, "--engine", "ray", "-q")
    encoding = select(models.Unit.unit_id).join(models.Run, models.Run.run_id == models.Unit.run_id)
    of_gamma = encoding.where(
        models.Run.kind == "encode", models.Unit.status == "leased", models.Unit.host.startswith("gamma/")
    )
    with proponent.open(LAKE) as lake:
        deadline, held = time.monotonic() + 300, list[str]()
        while not held:
            assert time.monotonic() < deadline, "the host had no unit"
            assert demo.poll() is None, demo.communicate()
            time.sleep(0.05)
            with lake.store.catalog.read() as session:
                held = list(session.scalars(of_gamma))
        hosts.kill("gamma")
        ended(demo)
        with proponent.open(laptop / "lake") as local:
            wanted = rows(local)
        found = rows(lake)
        for name, some in wanted.items():
            assert some == found[name], name
        # What the dead one had written and nobody knows of is left over.
        assert {finding["grade"] for finding in lake.check(deep=True)} <= {"note", "leftover"}
    hosts.add("gamma")
