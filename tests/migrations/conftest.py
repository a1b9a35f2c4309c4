"""Lakes of the first release, as it made them, and processes that upgrade one catalog at the same moment."""

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

UPGRADE = """
import sys
from pathlib import Path
from proponent import migrations
from proponent.store.catalog import catalog_engine
engine = catalog_engine(sys.argv[1], root=Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
migrations.upgrade(engine)
"""
ARCHIVE = Path(__file__).parents[1] / "fixtures" / "first-release.tar.gz"


@pytest.fixture(scope="session")
def unpack() -> Callable[[Path], Path]:
    """Put the first release's lake, its checkpoint and `expected.json` into a folder; return the lake."""

    def unpack(folder: Path) -> Path:
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
        return folder / "lake"

    return unpack


@pytest.fixture
def first_lake(tmp_path: Path, unpack: Callable[[Path], Path]) -> Path:
    return unpack(tmp_path)


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory, unpack: Callable[[Path], Path]) -> dict[str, Any]:
    """What the first release said of its lake."""
    folder = tmp_path_factory.mktemp("first")
    unpack(folder)
    told: dict[str, Any] = json.loads((folder / "expected.json").read_text("utf-8"))
    return told


@pytest.fixture
def upgrade_at_once() -> Callable[..., None]:
    """Upgrade one catalog from several processes at the same moment."""

    def upgrade(url: str, root: Path, *, processes: int = 4) -> None:
        command = [sys.executable, "-c", UPGRADE, url, str(root)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        children = [subprocess.Popen(command, **pipes) for _ in range(processes)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n", child.communicate()[1]
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        for child in children:
            _, errors = child.communicate(timeout=120)
            assert child.returncode == 0, errors

    return upgrade
