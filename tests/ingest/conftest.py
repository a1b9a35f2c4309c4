"""A lake in a temporary folder, and corpus files to put into it."""

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

import proponent

Rows = list[dict[str, Any]]


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[proponent.Lake]:
    with proponent.init(tmp_path / "lake") as made:
        yield made


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: Sequence[dict[str, Any] | str], name: str = "corpus.jsonl") -> Path:
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def read_table() -> Callable[..., Rows]:
    """Return the rows of a lake's table at its newest snapshot, without the columns named."""

    def read(lake: proponent.Lake, name: str, *, without: Sequence[str] = (), sort: str | None = None) -> Rows:
        data: pa.Table = lake.store.table(name, at=lake.snapshot).to_table()
        rows = data.drop_columns([column for column in without if column in data.column_names]).to_pylist()
        return sorted(rows, key=lambda row: row[sort] if sort else json.dumps(row, default=str, sort_keys=True))

    return read


@pytest.fixture
def countries() -> Rows:
    """Documents with every field that has a column, and two that have none."""
    return [
        {
            "id": f"{code}-1",
            "text": f"{capital} is the capital of {name}. It has {n} districts.",
            "source": "Geography",
            "date": f"20{10 + n}-0{n}",
            "title": name,
            "url": f"https://example.org/{code}",
            "author": "nobody",
            "language": "en",
            "license": "CC0-1.0",
            "entities": [name, capital],
            "code": code,
            "numbers": {"districts": n, "share": n / 7, "by_year": [n, None]},
        }
        for n, (code, name, capital) in enumerate(
            [("FR", "France", "Paris"), ("PE", "Peru", "Lima"), ("KE", "Kenya", "Nairobi"), ("JP", "日本", "東京")],
            start=1,
        )
    ]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let its users mount file systems")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)  # lists that are mapped into memory go with their last user


@pytest.fixture
def fill() -> Callable[..., None]:
    """Fill up the file system that a new file is on, but for some bytes."""

    def written(path: Path, *, leave: int) -> None:
        free = os.statvfs(path.parent)
        with path.open("wb") as file:
            file.write(b"\0" * (free.f_bavail * free.f_frsize - leave))

    return written


class WorkingRun:
    """A process of its own that ingests or encodes with workers."""

    def __init__(self, script: str, lake: Path, *arguments: object) -> None:
        self.lake = lake
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(lake), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def n_done(self) -> int:
        """Units that some worker has finished so far."""
        with sqlite3.connect(f"file:{self.lake}/catalog.db?mode=ro", uri=True, timeout=10) as connection:
            done = "SELECT count(*) FROM units WHERE status IN ('written', 'done')"
            return int(connection.execute(done).fetchone()[0])

    def workers(self) -> list[psutil.Process]:
        """Its workers that live."""
        if self.process.poll() is not None:
            return []
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if WORKER in _command(child)]

    def kill_a_worker(self, chance: random.Random) -> bool:
        """Kill one of the workers; return whether there was one that lived."""
        try:
            victims = self.workers()
            if victims:
                chance.choice(victims).kill()
        except psutil.NoSuchProcess:
            return False
        return bool(victims)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, as long as the run goes on."""
        deadline = time.monotonic() + 120
        while not condition():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self) -> None:
        """Pull the plug."""
        self.process.kill()
        self.process.communicate()

    def ends_well(self) -> str:
        """Wait for the end; return what was printed."""
        output, errors = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, errors
        return output


WORKER = "proponent.ingest.worker"


@pytest.fixture
def start_run() -> Iterator[Callable[..., WorkingRun]]:
    """Start runs of a script; in the end no worker may outlive its run."""
    started: list[WorkingRun] = []

    def start(script: str, lake: Path, *arguments: object) -> WorkingRun:
        started.append(WorkingRun(script, lake, *arguments))
        return started[-1]

    yield start
    for run in started:
        if run.process.poll() is None:
            run.kill()
    deadline = time.monotonic() + 60
    lakes = {str(run.lake) for run in started}
    while any(WORKER in command and lakes & set(command) for command in map(_command, psutil.process_iter())):
        assert time.monotonic() < deadline, "a worker outlived its run"
        time.sleep(0.1)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
