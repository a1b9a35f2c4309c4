"""Restoring a lake from a backup: under another name until it is whole and checked.

Notable: a restore that was cut short leaves a folder that is no lake, `.NAME.restoring` beside the place where the lake
will be, and starting again takes its place. Rows in a PostgreSQL catalog appear in one transaction; a mark in that
folder says that they are this restore's, so that starting again may replace them and nobody else's.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proponent.schema.errors import DamagedLakeError, LakeError, ProponentError

from .backup import Backup, alone_in, copy_file, read_backup
from .catalog import catalog_engine, catalog_name
from .catalog_copy import Upgrade, copy_from_sqlite, is_used
from .check import Finding, check
from .lake import CONFIG_NAME, DEFAULT_CATALOG, LakeConfig, open_store, write_config
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
    root: Path,
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
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise LakeError(f"{root} is not empty; restore into a new folder")
    partial = root.absolute().parent / f".{root.absolute().name}.restoring"
    with alone_in(partial):
        _empty(partial)
        try:
            for folder in ("tables", "artifacts", "reports"):
                (partial / folder).mkdir()
            _copy(backup, backup_dir, partial, progress)
            _place_catalog(partial, catalog, upgrade)
            write_config(partial / CONFIG_NAME, LakeConfig(format=backup.lake_format, catalog=catalog))
            damage = _finish(partial)
            _require_sound(damage, accept_damage=accept_damage)
        except ProponentError:
            _empty(partial)
            if not any(partial.iterdir()):
                partial.rmdir()
            raise
        (partial / _MARK).unlink(missing_ok=True)
        partial.replace(root.absolute())
    return Restored(backup.snapshot, len(backup.files), backup.size, tuple(damage))


def _require_sound(damage: list[Finding], *, accept_damage: bool) -> None:
    if damage and not accept_damage:
        more = f" (and {len(damage) - 1} more)" if damage[1:] else ""
        raise DamagedLakeError(
            f"the lake was damaged when the backup was made: {damage[0].where}: {damage[0].what}{more}; "
            "--accept-damage restores it as it is"
        )


def _empty(partial: Path) -> None:
    """Remove what an earlier restore has left, but for the mark of a catalog that it may have filled."""
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _MARK:
            path.unlink()


def _copy(backup: Backup, backup_dir: Path, partial: Path, progress: Progress) -> None:
    for file in backup.files:
        target = partial / file.path
        if partial not in target.resolve().parents:
            raise DamagedLakeError(f"the backup in {backup_dir} names {file.path!r}, which lies outside of a lake")
        try:
            content_hash = copy_file(backup_dir / file.stored, target)
        except FileNotFoundError as error:
            raise DamagedLakeError(f"{backup_dir / file.stored} is missing; take another backup") from error
        if content_hash != file.content_hash:
            raise DamagedLakeError(f"{backup_dir / file.stored} was changed since the backup; take another backup")
        progress(file.size)


def _place_catalog(partial: Path, catalog: str, upgrade: Upgrade) -> None:
    engine = catalog_engine(catalog, root=partial)
    try:
        if catalog == DEFAULT_CATALOG:
            upgrade(engine)
            return
        here = catalog_engine(DEFAULT_CATALOG, root=partial)
        upgrade(here)
        here.dispose()
        upgrade(engine)
        mark, name = partial / _MARK, catalog_name(catalog)
        is_own = mark.is_file() and mark.read_text("utf-8") == name
        if is_used(engine) and not is_own:
            raise LakeError("this catalog belongs to another lake; give each lake its own")
        mark.write_text(name, "utf-8")
        copy_from_sqlite(partial / "catalog.db", engine)
        for path in partial.glob("catalog.db*"):
            path.unlink()
    finally:
        engine.dispose()


def _finish(partial: Path) -> list[Finding]:
    """Set the tags of the snapshots, and return the damage that a check finds."""
    lake = open_store(partial)
    try:
        snapshots = readable_snapshots(lake.catalog)
        for table in sorted({name for one in snapshots for name in one.versions}):
            set_tags(lake, table, snapshots)
        return [finding for finding in check(lake, deep=True) if finding.grade == "damage"]
    finally:
        lake.close()
