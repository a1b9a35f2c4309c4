"""Backups: a folder with everything of a lake as it is at one moment, while others go on writing.

How a backup is never half a backup:

1. The catalog is copied as it is at one moment. What its snapshots name does not change any more, and `compact`, which
   alone removes files, waits.
2. Those files are copied, each under another name first. Files that never change keep their names, so that a second
   backup into the same folder copies new ones alone; all others are named by their content.
3. `backup.json`, which lists every file with its hash, takes the place of the former one, whose files are all still
   there; then what only the former named goes.

Notable: passwords stay behind. A catalog on PostgreSQL becomes a SQLite file, and `proponent.toml` is not copied.
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.errors import DamagedLakeError, LakeBusyError, LakeError, LakeNotFoundError
from proponent.schema.ids import fresh_id, stream_id

from .catalog import Catalog, catalog_engine
from .catalog_copy import Upgrade, copy_to_sqlite
from .check import held_against_compaction
from .check.artifacts import NAMING
from .hashes import file_hash
from .lake import LakeStore
from .objects import storage_error
from .place import LakePath, chunks_of, make_folder, sizes_below, writing
from .probe import LANCE_ERRORS
from .snapshots import Snapshot, readable_snapshots

FORMAT: Final = 1
LIST: Final = "backup.json"
_BEGUN: Final = "backup.partial"
_OWN: Final = frozenset({LIST, f"{LIST}.new", _BEGUN, f"{_BEGUN}.new", "tables", "artifacts", "content"})
_NEVER_CHANGE: Final = ("data", "_deletions", "_indices", "_transactions")
"""Folders of a table whose files have names of their own, drawn at random."""

Progress = Callable[[int], object]


class StoredFile(NamedTuple):
    """A file of a backup."""

    path: str
    """Where it belongs in the lake."""
    stored: str
    """Where it is in the backup."""
    size: int
    content_hash: str


@dataclass(frozen=True)
class Backup:
    """What a backup's list says."""

    format: int
    lake: str
    """The run that made the lake: what tells lakes apart."""
    lake_format: int
    snapshot: int
    """The newest snapshot in it."""
    made_at: str
    files: tuple[StoredFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class BackedUp:
    """What making a backup did."""

    snapshot: int
    files: int
    bytes: int
    copied: int
    """Files that were not in the folder yet."""


def read_backup(folder: Path) -> Backup:
    """Return what is in a backup.

    Raises LakeNotFoundError where there is none, DamagedLakeError for one that was cut short or whose list is damaged.
    """
    try:
        described = json.loads((folder / LIST).read_text("utf-8"))
        files = tuple(StoredFile(*file) for file in described.pop("files"))
        backup = Backup(**described, files=files)
    except FileNotFoundError as error:
        if (folder / _BEGUN).exists():
            raise DamagedLakeError(f"the backup in {folder} was cut short; make it again") from error
        raise LakeNotFoundError(f"{folder} is no backup (it has no {LIST})") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedLakeError(f"{folder / LIST} cannot be read: {error}") from error
    if backup.format > FORMAT:
        raise LakeError(f"{folder} was made by a newer proponent; upgrade proponent")
    return backup


def back_up(lake: LakeStore, folder: Path, *, upgrade: Upgrade, progress: Progress = lambda _n: None) -> BackedUp:
    """Copy a lake into a folder, or bring the backup of it there up to date.

    `progress` is told bytes. Raises LakeError for a folder that holds other things or another lake's backup,
    LakeBusyError while the lake is compacted or somebody else writes the same backup, DamagedLakeError for a lake that
    lacks a file.
    """
    if re.match(r"[a-z0-9]+:/", str(folder)):
        raise LakeError(f"{folder} is no folder of this machine; back up into one, and copy it to the object store")
    _require_apart(lake.root, folder)
    with held_against_compaction(lake, f"backup {fresh_id()}"), alone_in(folder):
        before = _begin(lake, folder)
        with TemporaryDirectory(dir=folder, prefix="content.") as scratch:
            copy = Path(scratch) / "catalog.db"
            copy_to_sqlite(lake.catalog, copy, upgrade=upgrade)
            catalog = Catalog(catalog_engine("sqlite:///catalog.db", root=copy.parent))
            try:
                snapshots, artifacts = readable_snapshots(catalog), _artifacts(catalog)
            finally:
                catalog.close()
            writer = _Writer(folder, before, progress)
            writer.add("catalog.db", copy)
            for path in _files(lake, snapshots, artifacts):
                writer.add(path, lake.root / path)
        backup = Backup(
            format=FORMAT,
            lake=_lake_id(lake),
            lake_format=lake.config.format,
            snapshot=snapshots[-1].snapshot_id,
            made_at=models.now().isoformat(timespec="seconds"),
            files=tuple(writer.files),
        )
        _write_whole(folder / LIST, json.dumps(asdict(backup) | {"files": backup.files}).encode())
        _prune(folder, backup)
    return BackedUp(backup.snapshot, len(backup.files), backup.size, writer.copied)


def _require_apart(root: LakePath, folder: Path) -> None:
    if not isinstance(root, Path):
        return
    here, there = root.resolve(), folder.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise LakeError(f"{folder} and the lake {root} lie in each other; choose a folder elsewhere")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder for the length of a with block, made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise LakeError(f"{folder} cannot be made: {error.strerror}") from error
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LakeBusyError(f"another process is at work in {folder}; wait for it") from error


def _lake_id(lake: LakeStore) -> str:
    with lake.catalog.read() as session:
        return str(session.scalars(select(models.Snapshot.run_id).order_by(models.Snapshot.snapshot_id).limit(1)).one())


def _begin(lake: LakeStore, folder: Path) -> Backup | None:
    """Return the backup that is there. Raises LakeError when the folder is not for this lake."""
    others = {path.name for path in folder.iterdir() if not path.name.startswith("content.")} - _OWN
    if others:
        raise LakeError(f"{folder} holds other things ({min(others)}); choose a new folder")
    before = read_backup(folder) if (folder / LIST).exists() else None
    begun = folder / _BEGUN
    belongs_to = before.lake if before else begun.read_text("utf-8") if begun.exists() else _lake_id(lake)
    if belongs_to != _lake_id(lake):
        raise LakeError(f"{folder} has the backup of another lake; choose a new folder")
    _write_whole(begun, _lake_id(lake).encode())
    for left in folder.glob("content.*"):
        shutil.rmtree(left)
    return before


def _artifacts(catalog: Catalog) -> list[str]:
    tables = {table.name: table for table in models.Base.metadata.sorted_tables}
    with catalog.read() as session:
        found = {name for table, column in NAMING for name in session.scalars(select(tables[table].c[column]))}
    return sorted(found - {None})


def _files(lake: LakeStore, snapshots: list[Snapshot], artifacts: list[str]) -> Iterator[str]:
    """Yield the files that snapshots name, artifacts and reports, by their paths in the lake."""
    for table in sorted({name for one in snapshots for name in one.versions}):
        wanted = {one.versions[table] for one in snapshots if one.has(table)}
        yield from sorted(_files_of(lake, table, wanted))
    yield from (f"artifacts/{name}" for name in artifacts)
    yield from (f"reports/{name}" for name in sorted(sizes_below(lake.reports_dir)) if not name.endswith(".partial"))


def _files_of(lake: LakeStore, table: str, versions: set[int]) -> set[str]:
    """Return the files of some versions of a table; transactions, which are notes, as far as they are there."""
    here, found, seen = sizes_below(lake.table_dir(table)), set[str](), set[int]()
    try:
        for rows in lake.opened(table, min(versions)).tracked_files(min_version=min(versions)):
            for row in rows.to_pylist():
                if row["version"] in versions and (row["type"] != "transaction file" or row["path"] in here):
                    found.add(f"tables/{table}.lance/{row['path']}")
                    seen.add(row["version"])
    except LANCE_ERRORS as error:
        if (away := storage_error(error)) is not None:
            raise away from error
        told = str(error).splitlines()[0]
        raise DamagedLakeError(f"table {table!r} cannot be read: {told}; run `proponent check {lake.root}`") from error
    if lost := versions - seen:
        raise DamagedLakeError(
            f"table {table!r} has lost version {max(lost)}; run `proponent check {lake.root} --deep`"
        )
    return found


class _Writer:
    """Copies files into a backup, but for those that are there already."""

    def __init__(self, folder: Path, before: Backup | None, progress: Progress) -> None:
        self._folder = folder
        self._progress = progress
        self._there = {file.stored: file for file in before.files} if before else {}
        self.files: list[StoredFile] = []
        self.copied = 0

    def add(self, path: str, source: LakePath) -> None:
        """Add a file that belongs at a path of the lake. Raises DamagedLakeError when it is missing."""
        try:
            size = source.stat().st_size
            stored = path if _never_changes(path) else f"content/{file_hash(source)}"
            known, target = self._there.get(stored), self._folder / stored
            is_there = target.is_file() and target.stat().st_size == size
            if known is not None and known.size == size and is_there:
                content_hash = known.content_hash
            elif is_there:  # of a backup that was cut short: whole, since it has its name
                content_hash = file_hash(target)
            else:
                content_hash = copy_file(source, target)
                self.copied += 1
        except FileNotFoundError as error:
            raise DamagedLakeError(f"{source} is missing; `proponent check` says what else is") from error
        self.files.append(StoredFile(path, stored, size, content_hash))
        self._progress(size)


def _never_changes(path: str) -> bool:
    return path.startswith("artifacts/") or any(f".lance/{name}/" in path for name in _NEVER_CHANGE)


def copy_file(source: LakePath, target: LakePath) -> str:
    """Copy a file, which appears whole or not at all; return the hash of its bytes."""
    make_folder(target.parent)
    with writing(target) as partial, partial.open("wb") as file:

        def written() -> Iterator[bytes]:
            for chunk in chunks_of(source):
                file.write(chunk)
                yield chunk

        return stream_id("file", written())


def _write_whole(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.new")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _prune(folder: Path, backup: Backup) -> None:
    """Remove what is in the folder and not in the backup: files of snapshots that were erased since, above all."""
    kept = {file.stored for file in backup.files} | {LIST}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(folder).as_posix() not in kept:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def as_row(done: BackedUp) -> dict[str, Any]:
    """Return what was done as a row for people."""
    return asdict(done)
