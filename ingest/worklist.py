"""A run's folder in the lake, and the list in it that the units of its work are ranges of."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from proponent.store.lake import LakeStore


def run_folder(lake: LakeStore, run_id: str) -> Path:
    """Return the folder of what a run and its workers tell each other; it goes when the run is over."""
    return lake.work_dir / run_id


@contextmanager
def list_writer(folder: Path, name: str, schema: pa.Schema) -> Iterator[pa.RecordBatchFileWriter]:
    """Write a list where the workers of a run find it, in a folder that its owner alone can read."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        yield writer


def write_list(folder: Path, name: str, rows: pa.Table) -> None:
    """Write a list that is in memory."""
    with list_writer(folder, name, rows.schema) as writer:
        writer.write_table(rows)


def read_list(folder: Path, name: str) -> pa.Table:
    """Map a list into memory."""
    with pa.memory_map(str(folder / f"{name}.arrow")) as source:
        return pa.ipc.open_file(source).read_all()


def remove_run_folder(lake: LakeStore, run_id: str) -> None:
    """Remove what a run has left in its folder."""
    shutil.rmtree(run_folder(lake, run_id), ignore_errors=True)
