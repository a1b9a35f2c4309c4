"""A run's folder, and the lists in it that the units of its work are ranges of.

Notable: it lies in the lake. Where that is an object store, every machine has a folder of its own for the run, in
TMPDIR, and what the others have to know is given (`give`) to the lake and fetched (`fetch`) from there.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from proponent.schema.errors import SettingsError
from proponent.schema.ids import content_id
from proponent.store.lake import LakeStore
from proponent.store.place import fetch as fetch_file
from proponent.store.place import remove


def run_folder(lake: LakeStore, run_id: str) -> Path:
    """Return the folder of what a run and its workers tell each other; it goes when the run is over."""
    if isinstance(lake.root, Path):
        return lake.root / "work" / run_id
    of_lake = content_id("lake", str(lake.root), lake.config.made_by)
    return _own_folder() / of_lake / run_id


def _own_folder() -> Path:
    """Return a folder in TMPDIR that is this user's; where others may write, one of theirs may have its name.

    Raises SettingsError for one that is somebody else's.
    """
    folder = Path(tempfile.gettempdir()) / f"proponent-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise SettingsError(f"{folder} is not a folder of yours; let TMPDIR name one where nobody else writes")
    return folder


def give(lake: LakeStore, run_id: str, name: str) -> None:
    """Let the workers on other machines have a file of the run's folder."""
    shared = lake.work_dir / run_id / name
    if not isinstance(shared, Path):
        shared.upload(run_folder(lake, run_id) / name)


def fetch(lake: LakeStore, run_id: str, name: str, *, anew: bool = False) -> Path:
    """Return a file of the run's folder that any machine has given; `anew` where it may have changed since.

    Raises FileNotFoundError.
    """
    here, shared = run_folder(lake, run_id) / name, lake.work_dir / run_id / name
    if not isinstance(shared, Path) and (anew or not here.is_file()):
        fetch_file(shared, here)
    return here


def is_given(lake: LakeStore, run_id: str, name: str) -> bool:
    """Return whether the run's folder has a file, on whatever machine it was written."""
    return (lake.work_dir / run_id / name).is_file()


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
    """Remove what a run has left in its folder, also on the other machines of a cluster."""
    leave_run_folder(lake, run_id)
    if lake.cluster is not None and not isinstance(lake.root, Path):
        lake.cluster.forget(leave_run_folder, run_id)
    with suppress(OSError):
        remove(lake.work_dir / run_id)


def leave_run_folder(lake: LakeStore, run_id: str) -> None:
    """Remove what this machine has of a run's folder, but for what is shared."""
    shutil.rmtree(run_folder(lake, run_id), ignore_errors=True)
