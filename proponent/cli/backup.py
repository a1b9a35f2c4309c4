"""`proponent backup` and `restore`: a lake in another folder, and back."""

from pathlib import Path

import click

from .options import lake_argument, quiet_option
from .output import remark
from .progress import progress

_backup_argument = click.argument("backup", type=click.Path(path_type=Path, file_okay=False), metavar="BACKUP")


@click.command()
@lake_argument
@_backup_argument
@quiet_option
def backup(lake: Path, backup: Path, quiet: bool) -> None:
    """Copy a lake, with all snapshots that can be read, into a folder.

    Others may write meanwhile: the backup is the lake at the moment when it began. Into a folder that has a backup of
    the lake only what is new is copied, and what the lake has no more is removed. Checkpoints of models are not part
    of a lake, and passwords are not copied.

    \b
    Example:
      proponent backup mylake /backups/mylake
    """
    from proponent.lake import open as open_lake

    with open_lake(lake) as opened, progress("bytes", quiet=quiet) as advance:
        done = opened.backup(backup, progress=advance)
    remark(
        f"{backup} has {lake} as of snapshot {done['snapshot']}: {done['files']:,} files, {done['bytes']:,} bytes; "
        f"{done['copied']:,} were new",
        quiet=quiet,
    )


@click.command()
@_backup_argument
@lake_argument
@click.option("--catalog", metavar="URL", help="SQLAlchemy URL of the catalog; by default SQLite inside the lake.")
@click.option("--accept-damage", is_flag=True, help="Restore a lake that was damaged when the backup was made.")
@quiet_option
def restore(backup: Path, lake: Path, catalog: str | None, accept_damage: bool, quiet: bool) -> None:
    """Make a lake of a backup, in a new folder.

    The lake gets its name when it is whole and `check` finds no damage. A restore that was killed is started again.

    \b
    Example:
      proponent restore /backups/mylake mylake
    """
    from proponent.lake import restore as make
    from proponent.store.lake import DEFAULT_CATALOG

    with progress("bytes", quiet=quiet) as advance:
        done = make(backup, lake, catalog=catalog or DEFAULT_CATALOG, accept_damage=accept_damage, progress=advance)
    for line in done["damage"]:
        remark(f"damaged: {line}", quiet=quiet)
    remark(f"{lake} is at snapshot {done['snapshot']}: {done['files']:,} files, {done['bytes']:,} bytes", quiet=quiet)
