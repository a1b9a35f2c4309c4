"""Where a lake lies: a folder of this machine, or a prefix in an object store.

`lake_path` makes a `LakePath` of what people write: a `pathlib.Path` of a folder, an `ObjectPath` of
`s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`. Both have the methods of `Path` that reading
needs. What they do differently is a function here: listing, removing, writing whole, moving in.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from proponent.schema.errors import SettingsError

from .objects import ObjectPath, object_path

_CHUNK: Final = 4 << 20
LakePath = Path | ObjectPath
StrPath = str | Path | ObjectPath


def lake_path(path: StrPath, options: Mapping[str, str] | None = None) -> LakePath:
    """Return where a lake lies; `options` reach its object store.

    Raises SettingsError for a URL of something else, and for options of a folder.
    """
    if isinstance(path, ObjectPath) and options is None:
        return path
    found = object_path(str(path), options or {})
    if found is None and options:
        raise SettingsError(f"{path} is a folder, which has no storage options")
    return found or Path(str(path))


def lance_options(path: LakePath) -> dict[str, str] | None:
    """Return the storage options with which Lance opens or writes something."""
    return path.options if isinstance(path, ObjectPath) else None


def given_options(path: LakePath) -> dict[str, str]:
    """Return the options that a path of an object store was given, without those that are the same for all."""
    return path.given if isinstance(path, ObjectPath) else {}


def sizes_below(path: LakePath) -> dict[str, int]:
    """Return the sizes of all files below a folder, by their paths from there; none where there is no folder."""
    if isinstance(path, ObjectPath):
        return path.sizes()
    sizes, start = {}, len(str(path)) + 1
    for folder, _, names in os.walk(path):  # with texts: a Path for every file takes ten times as long
        for name in names:
            file = os.path.join(folder, name)
            with suppress(FileNotFoundError):  # somebody at work has renamed or removed it
                sizes[file[start:].replace(os.sep, "/")] = os.stat(file).st_size
    return sizes


def names_in(path: LakePath) -> list[str]:
    """Return the names of the files and folders in a folder, sorted; none where there is no folder."""
    if isinstance(path, ObjectPath):
        return path.entries()
    return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []


def make_folder(path: LakePath) -> None:
    """Make a folder where folders have to be made."""
    if isinstance(path, Path):
        path.mkdir(parents=True, exist_ok=True)


def remove(path: LakePath) -> None:
    """Remove a file, or a folder with all that is in it; nothing is no error."""
    if isinstance(path, ObjectPath):
        path.remove_all()
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def chunks_of(path: LakePath) -> Iterator[bytes]:
    """Yield what is in a file. Raises FileNotFoundError."""
    if isinstance(path, ObjectPath):
        yield from path.chunks()
        return
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """Give the name of a file that takes its place when it is whole and on the disk."""
    # Not by the process id: in containers that share a lake it is the same, and so it is for the threads of a process.
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put names on the disk, too: a machine that stops forgets a file whose new name is not there yet."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def writing(path: LakePath) -> Iterator[Path]:
    """Give the name of a file of this machine to write in a with block, which is then, as a whole, the lake's."""
    if isinstance(path, Path):
        with _partial(path) as partial:
            yield partial
        return
    with tempfile.TemporaryDirectory(prefix="proponent-") as made:
        file = Path(made) / path.name
        yield file
        path.upload(file)


def write_whole(path: LakePath, data: bytes) -> None:
    """Write a file, which appears whole or not at all and stays when the machine stops."""
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
        return
    with _partial(path) as partial:
        partial.write_bytes(data)


def move_in(source: Path, target: LakePath) -> None:
    """Move a file of this machine, or a folder, to its place in the lake."""
    if isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    elif source.is_dir():
        for file in sorted(one for one in source.rglob("*") if one.is_file()):
            (target / file.relative_to(source).as_posix()).upload(file)
        shutil.rmtree(source)
    else:
        target.upload(source)
        source.unlink()


def fetch(source: LakePath, target: Path) -> None:
    """Copy a file of the lake to this machine, where it appears whole. Raises FileNotFoundError."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _partial(target) as partial, partial.open("wb") as file:
        for chunk in chunks_of(source):
            file.write(chunk)


@contextmanager
def scratch_folder(inside: LakePath, name: str) -> Iterator[Path]:
    """Give an empty folder of this machine for a with block: in a lake's own folder, or wherever TMPDIR says.

    What a process that was killed has left in a lake's folder goes first.
    """
    if isinstance(inside, ObjectPath):
        with tempfile.TemporaryDirectory(prefix=f"proponent-{name}-") as made:
            yield Path(made)
        return
    folder = inside / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
