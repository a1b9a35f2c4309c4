"""The public Python API: a lake, and everything one does with it.

Notable: torch and the models load when the first operation needs them, and then stay loaded.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proponent import migrations
from proponent.schema import catalog as models
from proponent.schema.errors import LakeError
from proponent.schema.settings import RAY, require_engine
from proponent.store.catalog import CATALOG, catalog_name
from proponent.store.lake import DEFAULT_CATALOG, create_store, open_store, require_own_catalog
from proponent.store.place import LakePath, StrPath, lake_path
from proponent.store.published import require_newest
from proponent.store.runs import new_run

from .asking import Asking
from .base import Progress, ignore
from .encoding import Encoding
from .ingesting import Ingesting
from .keeping import Keeping
from .telling import Telling

if TYPE_CHECKING:
    from proponent.encode.checkpoint import DeviceMap


class Lake(Ingesting, Encoding, Keeping, Asking, Telling):
    """An open lake. Use it in a with block, or close it."""


def init(path: StrPath, *, catalog: str = DEFAULT_CATALOG, storage_options: Mapping[str, str] | None = None) -> "Lake":
    """Make a lake in a new or empty folder, or finish one whose making was cut short; return it open.

    `path` may be a prefix in an object store, which `storage_options` reach beside the environment; its `catalog` is
    then elsewhere. Neither options nor a password of the catalog are written into the lake. Raises LakeError when the
    folder holds other things, or a lake already.
    """
    run = new_run("init", {"catalog": catalog_name(catalog)})
    run.status, run.finished_at = "done", models.now()
    return Lake(create_store(lake_path(path, storage_options), catalog=catalog, upgrade=migrations.upgrade, run=run))


def open(  # noqa: A001
    path: StrPath,
    *,
    catalog: str | None = None,
    storage_options: Mapping[str, str] | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    device_map: "DeviceMap | None" = None,
    may_be_older: bool = False,
) -> "Lake":
    """Open a lake.

    `catalog` is the URL of its catalog on a server where the lake's own does not do, with a password, say; by default
    that of the environment variable PROPONENT_CATALOG. `storage_options` reach an object store beside the environment.
    With the engine `ray`, ingests, encodings, the exact scans of traces and evaluations, and the training and the steps
    of evaluations are done by the Ray cluster at `ray_address` or RAY_ADDRESS, or else by one that is made on this
    machine and ends with the lake.
    `device_map` spreads models that are larger than one device, as in transformers: `auto`, or the names of modules
    with a GPU's number, `cpu` or `disk`. With `may_be_older` a catalog is let in that was restored from an older copy
    than the tables, for `check` and `catch_up` alone. Raises LakeNotFoundError, LakeHalfMadeError, LakeVersionError or
    OlderCatalogError, with what to do about it, LakeError for another catalog than its own where that is a file, and
    SettingsError for a cluster that cannot be used.
    """
    require_engine(engine, ray_address)
    store = open_store(lake_path(path, storage_options), catalog=catalog or os.environ.get(CATALOG))
    try:
        if catalog is not None and catalog != store.catalog_url:
            own = catalog_name(store.catalog_url)
            raise LakeError(f"the catalog of {path} is {own}, and no other can take its place")
        migrations.require_current(store.catalog.engine, lake=str(path))
        require_own_catalog(store)
        if not may_be_older:
            require_newest(store)
        if engine == RAY:
            store.join_cluster(ray_address)
    except BaseException:
        store.close()
        raise
    return Lake(store, device_map=device_map)


def migrate(path: StrPath, *, storage_options: Mapping[str, str] | None = None) -> list[str]:
    """Bring the catalog and the tables of a lake to the form of this version; return which migrations the tables had.

    Cut short anywhere, it goes on when it is called again. Raises LakeVersionError for a lake of a newer proponent,
    LakeBusyError while others write to it.
    """
    place, catalog = lake_path(path, storage_options), os.environ.get(CATALOG)
    done = _migrate(place, catalog)
    with open(place) as lake:
        lake._measure_indexes()
    return done


def _migrate(place: LakePath, catalog: str | None) -> list[str]:
    store = open_store(place, catalog=catalog)
    try:
        return migrations.migrate(store)
    finally:
        store.close()


def restore(
    backup: str | Path,
    path: StrPath,
    *,
    catalog: str = DEFAULT_CATALOG,
    accept_damage: bool = False,
    storage_options: Mapping[str, str] | None = None,
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Make a lake of a backup in a new or empty folder or prefix; return the newest snapshot, files, bytes and damage.

    It is checked before it gets its name. `progress` is told bytes. Raises LakeError when the folder is not empty or
    the catalog is in use, DamagedLakeError for a backup that was cut short or changed, and, unless `accept_damage`, for
    a lake that was damaged when the backup was made.
    """
    from proponent.store.restore import restore as make

    place = lake_path(path, storage_options)
    done = make(
        Path(backup),
        place,
        upgrade=migrations.upgrade,
        catalog=catalog,
        accept_damage=accept_damage,
        progress=progress,
    )
    if not done.damage:  # what is damaged may be past migrating; opening it says what to do
        _migrate(place, None if catalog == DEFAULT_CATALOG else catalog)
    return vars(done) | {"damage": [f"{finding.where}: {finding.what}" for finding in done.damage]}
