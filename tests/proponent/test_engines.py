"""The engines' options: the local one knows nothing of Ray, and what keeps Ray's from working is one line."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import proponent
from proponent.schema.errors import SettingsError


def failed(*arguments: object, before: str = "") -> str:
    """Run a command that fails, in a process of its own, after some Python; return what it says."""
    command = [sys.executable, "-c", f"import sys\n{before}\nfrom proponent.cli import main\nmain()"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert not done.stdout
    [line] = done.stderr.splitlines()
    return line


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        "".join(json.dumps({"id": str(n), "text": f"Country {n} lies on a river."}) + "\n" for n in range(9))
    )
    return path


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"prompt": "Country 3 lies", "target": " on a river", "doc_keys": ["3"]}) + "\n")
    return path


@pytest.mark.full
def test_the_local_engine_never_imports_ray(tmp_path: Path, corpus: Path, facts: Path, checkpoint_dir: Path) -> None:
    lake, imported = tmp_path / "lake", tmp_path / "imported"
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "ray.py").write_text(f"open({str(imported)!r}, 'w')\nraise ImportError('here')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "first")}  # worker processes inherit it
    for arguments in (
        ("init", lake),
        ("model", "add", lake, checkpoint_dir, "--name", "m"),
        ("ingest", lake, corpus, "--corpus", "c", "--workers", 2, "--engine", "local"),
        ("encode", lake, "--blocks", 1, "--side", 8, "--workers", 2),
        ("trace", lake, "--prompt", "Country 3 lies", "--target", " on a river"),
        ("evaluate", lake, facts, "--methods", "trackstar", "--tail-patch", 1, "--lds", 3, "--retrain-epochs", 1),
    ):
        command = [sys.executable, "-m", "proponent", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not imported.exists(), arguments
    command = [sys.executable, "-m", "proponent", "trace", str(lake), "--prompt", "x", "--engine", "ray"]
    subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert imported.exists(), "this would have been seen"


def test_an_engine_that_is_not_installed_is_told(tmp_path: Path) -> None:
    proponent.init(tmp_path / "lake").close()
    told = failed("trace", tmp_path / "lake", "--prompt", "x", "--engine", "ray", before="sys.modules['ray'] = None")
    assert told == "error: --engine ray needs Ray, which is not installed; pip install 'proponent[ray]'"


def test_a_cluster_that_is_not_there_is_told(tmp_path: Path, corpus: Path) -> None:
    proponent.init(tmp_path / "lake").close()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    told = failed("ingest", tmp_path / "lake", corpus, "--corpus", "c", "--engine", "ray", "--ray-address", address)
    assert told == (
        f"error: the Ray cluster {address} cannot be reached: Connection refused; --ray-address or RAY_ADDRESS is "
        "HOST:PORT of its head, as `ray start --head` says it"
    )
    assert not list((tmp_path / "lake").glob("work/*"))


@pytest.mark.parametrize(
    ("engine", "address", "says"),
    [("local", "10.0.0.1:6379", "for --engine ray"), ("spark", None, "engine must be one of local, ray")],
)
def test_engines_that_there_are_not_are_told(tmp_path: Path, engine: str, address: str | None, says: str) -> None:
    proponent.init(tmp_path / "lake").close()
    with pytest.raises(SettingsError, match=says):
        proponent.open(tmp_path / "lake", engine=engine, ray_address=address)


def test_ray_that_was_imported_before_makes_no_open_cluster(tmp_path: Path) -> None:
    proponent.init(tmp_path / "lake").close()
    told = failed("trace", tmp_path / "lake", "--prompt", "x", "--engine", "ray", before="import ray")
    assert told.startswith("error: Ray was imported before the lake was opened")
