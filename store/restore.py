"""Restoring a lake from a backup: under another name until it is whole and checked.

Notable: a restore that was cut short leaves a folder that is no lake, `.NAME.restoring` beside the place where the lake
will be, and starting again takes its place. In an object store, where nothing can be renamed, the lake is made in its
place, and is none before `proponent.toml` is there, which comes last. Rows in a PostgreSQL catalog appear in one
transaction; a mark among the files says that they are this restore's, so that starting again may replace them and
nobody else's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Final

from proponent.schema.errors import DamagedLakeError, LakeError, ProponentError

from .backup import Backup, alone_in, copy_file, read_backup
from .catalog import catalog_engine, catalog_name
from .catalog_copy import Upgrade, copy_from_sqlite, is_used
from .check import Finding, check
from .lake import CONFIG_NAME, DEFAULT_CATALOG, LakeConfig, LakeStore, require_possible, write_config
from .objects import ObjectPath
from .place import LakePath, chunks_of, fetch, make_folder, names_in, remove, write_whole
from .snapshots import readable_snapshots
from .tags import set_tags

_MARK: Final = "catalog.restoring"
Progress = Callable[[int], object]


@dataclass(frozen=True)
class Restored:
    """What a restore did."""

    snapshot: int
    files: int
    bytes: int
    damage: tuple[Finding, ...]
    """What the check finds that was wrong when the backup was made, if that was accepted."""


def restore(
    backup_dir: Path,
    root: LakePath,
    *,
    upgrade: Upgrade,
    catalog: str = DEFAULT_CATALOG,
    accept_damage: bool = False,
    progress: Progress = lambda _n: None,
) -> Restored:
    """Make a lake of a backup, with its catalog in SQLite or at a URL; `upgrade` brings it to the newest revision.

    `progress` is told bytes. Raises LakeError when the folder is not empty or the catalog is in use, DamagedLakeError
    when the backup was cut short, was changed, or, unless that is accepted, is of a lake that was damaged itself.
    """
    backup = read_backup(backup_dir)
    require_possible(root, catalog)
    with _in_the_making(root) as partial:
        for folder in ("tables", "artifacts", "reports"):
            make_folder(partial / folder)
        _copy(backup, backup_dir, partial, progress)
        _place_catalog(partial, catalog, upgrade)
        lake = LakeStore(partial, LakeConfig(format=backup.lake_format, catalog=catalog, made_by=backup.lake))
        damage = _finish(lake)
        _require_sound(damage, accept_damage=accept_damage)
        write_config(partial / CONFIG_NAME, lake.config)
    return Restored(backup.snapshot, len(backup.files), backup.size, tuple(damage))


@contextmanager
def _in_the_making(root: LakePath) -> Iterator[LakePath]:
    """Give the place where a lake is made, empty but for the mark of a restore that was cut short."""
    if isinstance(root, ObjectPath):
        if names_in(root) and ((root / CONFIG_NAME).is_file() or not (root / _MARK).is_file()):
            raise LakeError(f"{root} is not empty; restore to a new prefix")
        write_whole(root / _MARK, (root / _MARK).read_bytes() if (root / _MARK).is_file() else b"")
        yield from _cleared(root)
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise LakeError(f"{root} is not empty; restore into a new folder")
    partial = root.absolute().parent / f".{root.absolute().name}.restoring"
    with alone_in(partial):
        yield from _cleared(partial)
        partial.replace(root.absolute())


def _cleared(partial: LakePath) -> Iterator[LakePath]:
    _empty(partial)
    try:
        yield partial
    except ProponentError:
        _empty(partial)
        if isinstance(partial, Path) and not any(partial.iterdir()):
            partial.rmdir()
        raise
    remove(partial / _MARK)


def _require_sound(damage: list[Finding], *, accept_damage: bool) -> None:
    if damage and not accept_damage:
        more = f" (and {len(damage) - 1} more)" if damage[1:] else ""
        raise DamagedLakeError(
            f"the lake was damaged when the backup was made: {damage[0].where}: {damage[0].what}{more}; "
            "--accept-damage restores it as it is"
        )


def _empty(partial: LakePath) -> None:
    """Remove what an earlier restore has left, but for the mark of a catalog that it may have filled."""
    for name in names_in(partial):
        if name != _MARK:
            remove(partial / name)


def _copy(backup: Backup, backup_dir: Path, partial: LakePath, progress: Progress) -> None:
    for file in backup.files:
        target = partial / file.path
        if PurePosixPath(file.path).is_absolute() or ".." in PurePosixPath(file.path).parts:
            raise DamagedLakeError(f"the backup in {backup_dir} names {file.path!r}, which lies outside of a lake")
        try:
            content_hash = copy_file(backup_dir / file.stored, target)
        except FileNotFoundError as error:
            raise DamagedLakeError(f"{backup_dir / file.stored} is missing; take another backup") from error
        if content_hash != file.content_hash:
            raise DamagedLakeError(f"{backup_dir / file.stored} was changed since the backup; take another backup")
        progress(file.size)


def _place_catalog(partial: LakePath, catalog: str, upgrade: Upgrade) -> None:
    engine = catalog_engine(catalog, root=partial)
    try:
        upgrade(engine)
        if catalog == DEFAULT_CATALOG:
            return
        mark, name = partial / _MARK, catalog_name(catalog).encode()
        is_own = mark.is_file() and b"".join(chunks_of(mark)) == name
        if is_used(engine) and not is_own:
            raise LakeError("this catalog belongs to another lake; give each lake its own")
        write_whole(mark, name)
        with TemporaryDirectory(prefix="proponent-") as scratch:
            fetch(partial / "catalog.db", Path(scratch) / "catalog.db")
            here = catalog_engine(DEFAULT_CATALOG, root=Path(scratch))
            upgrade(here)
            here.dispose()
            copy_from_sqlite(Path(scratch) / "catalog.db", engine)
        remove(partial / "catalog.db")
    finally:
        engine.dispose()


def _finish(lake: LakeStore) -> list[Finding]:
    """Set the tags of the snapshots, and return the damage that a check finds."""
    try:
        snapshots = readable_snapshots(lake.catalog)
        for table in sorted({name for one in snapshots for name in one.versions}):
            set_tags(lake, table, snapshots)
        return [finding for finding in check(lake, deep=True) if finding.grade == "damage"]
    finally:
        lake.close()
