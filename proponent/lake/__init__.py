"""The public Python API: a lake, and everything one does with it.

Notable: torch and the models load when the first operation needs them, and then stay loaded.
"""

from pathlib import Path
from typing import Any

from proponent import migrations
from proponent.schema import catalog as models
from proponent.store.catalog import catalog_name
from proponent.store.lake import DEFAULT_CATALOG, create_store, open_store
from proponent.store.runs import new_run

from .asking import Asking
from .base import Progress, StrPath, ignore
from .encoding import Encoding
from .ingesting import Ingesting
from .keeping import Keeping
from .telling import Telling


class Lake(Ingesting, Encoding, Keeping, Asking, Telling):
    """An open lake. Use it in a with block, or close it."""


def init(path: StrPath, *, catalog: str = DEFAULT_CATALOG) -> "Lake":
    """Make a lake in a new or empty folder, or finish one whose making was cut short; return it open.

    Raises LakeError when the folder holds other things, or a lake already.
    """
    run = new_run("init", {"catalog": catalog_name(catalog)})
    run.status, run.finished_at = "done", models.now()
    return Lake(create_store(Path(path), catalog=catalog, upgrade=migrations.upgrade, run=run))


def open(path: StrPath) -> "Lake":  # noqa: A001
    """Open a lake.

    Raises LakeNotFoundError, LakeHalfMadeError or LakeVersionError, with what to do about it.
    """
    store = open_store(Path(path))
    try:
        migrations.require_current(store.catalog.engine, lake=str(path))
    except BaseException:
        store.close()
        raise
    return Lake(store)


def migrate(path: StrPath) -> list[str]:
    """Bring the catalog and the tables of a lake to the form of this version; return which migrations the tables had.

    Cut short anywhere, it goes on when it is called again. Raises LakeVersionError for a lake of a newer proponent,
    LakeBusyError while others write to it.
    """
    done = _migrate(Path(path))
    with open(path) as lake:
        lake._measure_indexes()
    return done


def _migrate(path: Path) -> list[str]:
    store = open_store(path)
    try:
        return migrations.migrate(store)
    finally:
        store.close()


def restore(
    backup: StrPath,
    path: StrPath,
    *,
    catalog: str = DEFAULT_CATALOG,
    accept_damage: bool = False,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Make a lake of a backup in a new or empty folder; return the newest snapshot, files, bytes and damage.

    It is checked before it gets its name. `progress` is told bytes. Raises LakeError when the folder is not empty or
    the catalog is in use, DamagedLakeError for a backup that was cut short or changed, and, unless `accept_damage`, for
    a lake that was damaged when the backup was made.
    """
    from proponent.store.restore import restore as make

    done = make(
        Path(backup),
        Path(path),
        upgrade=migrations.upgrade,
        catalog=catalog,
        accept_damage=accept_damage,
        progress=progress,
    )
    if not done.damage:  # what is damaged may be past migrating; opening it says what to do
        _migrate(Path(path))
    return vars(done) | {"damage": [f"{finding.where}: {finding.what}" for finding in done.damage]}
