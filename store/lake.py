"""A lake: the place where it lies, its configuration, its catalog and its tables.

Notable: `proponent.toml` is written last, so a place that has it is a whole lake, and one that has tables but no
`proponent.toml` is one whose making was cut short. It names the catalog without a password, and the run that made the
lake, by which a catalog elsewhere is known to be this lake's.
"""

import json
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import lance
import pyarrow as pa
from sqlalchemy import Engine, select

from proponent.schema import catalog as models
from proponent.schema.errors import (
    DamagedLakeError,
    LakeError,
    LakeHalfMadeError,
    LakeNotFoundError,
    LakeVersionError,
    NotFoundError,
    SettingsError,
)
from proponent.schema.settings import GROUP_BYTES
from proponent.schema.tables import LAKE_TABLES, NORMS, encodings_schema, index_schema

from .catalog import CATALOG, Catalog, catalog_engine, file_of, without_password
from .objects import ObjectPath, storage_error
from .place import (
    LakePath,
    chunks_of,
    given_options,
    lance_options,
    make_folder,
    names_in,
    scratch_folder,
    write_whole,
)
from .snapshots import Snapshot

if TYPE_CHECKING:
    from .ray_cluster import RayCluster

FORMAT: Final = 1
"""Version of the lake's layout that this code writes, and the newest that it reads."""

CONFIG_NAME: Final = "proponent.toml"
DEFAULT_CATALOG: Final = "sqlite:///catalog.db"
STORAGE: Final = "PROPONENT_STORAGE"
"""Environment variable by which a worker learns of storage options, as JSON; nobody sees it on a command line."""


@dataclass(frozen=True)
class LakeConfig:
    """What `proponent.toml` says."""

    format: int = FORMAT
    catalog: str = DEFAULT_CATALOG
    group_bytes: int = GROUP_BYTES
    """Bytes that the sums of one kind of groups may take; a line that people write."""
    made_by: str = ""
    """The run that made the lake, as its catalog has it; empty in lakes from before this was written."""

    def to_toml(self) -> str:
        """Return the file's text, without a password."""
        # JSON strings are TOML basic strings.
        lines = ["# A proponent lake. Its folders belong together.", f"format = {self.format}"]
        lines += [f"catalog = {json.dumps(without_password(self.catalog))}"]
        return "\n".join([*lines, *([f"made_by = {json.dumps(self.made_by)}"] if self.made_by else []), ""])


class LakeStore:
    """An open lake: paths, catalog and Lance tables."""

    def __init__(self, root: LakePath, config: LakeConfig, *, catalog: str | None = None) -> None:
        """Open what a configuration names, with the catalog at a URL if that is given."""
        self.root = root
        self.config = config
        self.catalog_url = catalog or config.catalog
        self.catalog = Catalog(catalog_engine(self.catalog_url, root=root))
        self.cluster: RayCluster | None = None
        """Machines that work for this process; None where it has this one alone."""

    @property
    def tables_dir(self) -> LakePath:
        """Folder of the LanceDB database."""
        return self.root / "tables"

    @property
    def artifacts_dir(self) -> LakePath:
        """Folder of fitted state."""
        return self.root / "artifacts"

    @property
    def reports_dir(self) -> LakePath:
        """Folder of reports."""
        return self.root / "reports"

    @property
    def sums_dir(self) -> LakePath:
        """Folder of group sums."""
        return self.root / "sums"

    @property
    def work_dir(self) -> LakePath:
        """Folder of what runs lay out for their workers."""
        return self.root / "work"

    def table_dir(self, table: str) -> LakePath:
        """Folder of a table."""
        return self.tables_dir / f"{table}.lance"

    def environment(self) -> dict[str, str]:
        """Return environment variables by which a child process opens the same lake."""
        options, on_server = given_options(self.root), not self.catalog_url.startswith("sqlite")
        return {STORAGE: json.dumps(options)} | ({CATALOG: self.catalog_url} if on_server else {})

    def scratch(self, name: str) -> AbstractContextManager[Path]:
        """Give an empty folder of this machine for a with block: inside the lake, if that is on this machine."""
        return scratch_folder(self.work_dir, name)

    def opened(self, table: str, version: int | None = None) -> lance.LanceDataset:
        """Open a version of a table, by default the newest, as Lance does, with Lance's own errors."""
        folder = self.table_dir(table)
        return lance.dataset(str(folder), version=version, storage_options=lance_options(folder))

    def table(self, name: str, *, at: Snapshot | None = None) -> lance.LanceDataset:
        """Open a Lance table: at a snapshot for reading, at its newest version only for the committer.

        Raises NotFoundError when the lake (at that snapshot) has no such table.
        """
        if at is not None and not at.has(name):
            raise NotFoundError(f"the lake has no table {name!r} at snapshot {at.snapshot_id}")
        try:
            return self.opened(name, at.versions[name] if at else None)
        except (ValueError, OSError) as error:
            if (away := storage_error(error)) is not None:
                raise away from error
            if not isinstance(error, ValueError):
                raise
            if self.table_dir(name).is_dir():
                raise DamagedLakeError(f"table {name!r} cannot be opened: {str(error).splitlines()[0]}") from error
            raise NotFoundError(f"the lake has no table {name!r}") from error

    def schema(self, name: str) -> pa.Schema:
        """Return the schema that rows of a table must have. Raises NotFoundError for an unknown table."""
        if name in LAKE_TABLES:
            return LAKE_TABLES[name]
        kind, _, encoder = name.partition("_")
        if kind == "norms":
            return NORMS
        with self.catalog.read() as session:
            row = session.get(models.Encoder, encoder)
        if row is None or kind not in ("encodings", "index"):
            raise NotFoundError(f"the lake has no table {name!r}")
        return encodings_schema(row.dim, row.codes) if kind == "encodings" else index_schema(row.dim)

    def create_table(self, name: str) -> None:
        """Make an empty table unless it is there. Only under the commit lock."""
        path = self.table_dir(name)
        schema = self.schema(name)
        if not has_versions(path):
            options = lance_options(path)
            lance.write_dataset(
                schema.empty_table(), str(path), schema=schema, mode="overwrite", storage_options=options
            )

    def join_cluster(self, address: str | None) -> None:
        """Let a Ray cluster do the work, by default that of RAY_ADDRESS, or one that is made on this machine.

        Raises SettingsError when Ray is not installed, the cluster cannot be joined, or a node would not do the same.
        """
        from .ray_cluster import RayCluster

        self.cluster = RayCluster(self, address)

    def close(self) -> None:
        """Leave the cluster, and close the catalog's connections."""
        if self.cluster is not None:
            self.cluster.close()
            self.cluster = None
        self.catalog.close()


def has_versions(folder: LakePath) -> bool:
    """Return whether a table's folder has any version of it."""
    return any(name.endswith(".manifest") for name in names_in(folder / "_versions"))


def open_store(root: LakePath, *, catalog: str | None = None) -> LakeStore:
    """Open the lake at a place, with its catalog at another URL than the lake says, one with a password, say.

    Raises LakeNotFoundError, LakeHalfMadeError, LakeVersionError or DamagedLakeError, StorageError for an object store
    that cannot be used, LakeError for a catalog of another lake.
    """
    config = _found_config(root)
    if config.catalog == DEFAULT_CATALOG and not (root / "catalog.db").is_file():
        raise DamagedLakeError(f"{root} has lost its catalog.db; restore it from a backup")
    lake = LakeStore(root, config, catalog=None if config.catalog.startswith("sqlite") else catalog)
    file = file_of(lake.catalog.engine)
    if file is not None and not file.is_file():
        lake.close()
        raise DamagedLakeError(f"the lake's catalog, {file}, is not on this machine; open the lake where it is")
    return lake


def require_own_catalog(lake: LakeStore) -> None:
    """Raise LakeError when the catalog is another lake's; lakes from before they said who made them are believed."""
    if lake.config.made_by and lake.config.catalog != DEFAULT_CATALOG:
        with lake.catalog.read() as session:
            first = session.scalars(
                select(models.Snapshot.run_id).order_by(models.Snapshot.snapshot_id).limit(1)
            ).first()
        if first != lake.config.made_by:
            raise LakeError(f"the catalog is not that of {lake.root}; see that PROPONENT_CATALOG names the right one")


def _found_config(root: LakePath) -> LakeConfig:
    try:
        return _read_config(root / CONFIG_NAME)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not root.exists():
            raise LakeNotFoundError(f"{root} does not exist; make a lake with `proponent init {root}`") from error
        if _has_parts(root):
            raise LakeHalfMadeError(f"{root} was not finished; run `proponent init {root}` again") from error
        raise LakeNotFoundError(
            f"{root} is no lake (it has no {CONFIG_NAME}); make one with `proponent init`"
        ) from error


def _read_config(path: LakePath) -> LakeConfig:
    data = b"".join(chunks_of(path))
    try:
        values = tomllib.loads(data.decode("utf-8"))
        config = LakeConfig(
            format=int(values["format"]),
            catalog=str(values["catalog"]),
            group_bytes=int(values.get("group_bytes", GROUP_BYTES)),
            made_by=str(values.get("made_by", "")),
        )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise DamagedLakeError(f"{path} cannot be read ({error}); it needs the lines `format` and `catalog`") from error
    if not 0 <= config.group_bytes <= 1 << 31:
        raise DamagedLakeError(f"{path}: group_bytes must be between 0 and 2^31, not {config.group_bytes}")
    if config.format > FORMAT:
        raise LakeVersionError(
            f"{path.parent} has lake format {config.format}, this proponent reads up to {FORMAT}; upgrade proponent"
        )
    return config


def _has_parts(root: LakePath) -> bool:
    return (root / "tables").is_dir() or (root / "catalog.db").is_file()


def create_store(root: LakePath, *, catalog: str, upgrade: Callable[[Engine], None], run: models.Run) -> LakeStore:
    """Make a lake, or finish one whose making was cut short.

    `upgrade` brings the empty catalog to its newest revision; `run` is recorded as the lake's first run. Raises
    LakeError when the folder holds other things or is a whole lake already, SettingsError for a lake in an object store
    whose catalog would be a file in it.
    """
    require_possible(root, catalog)
    if (root / CONFIG_NAME).is_file():
        raise LakeError(f"{root} is a lake already")
    if isinstance(root, Path) and root.exists() and not root.is_dir():
        raise LakeError(f"{root} is a file; a lake needs a folder")
    if names_in(root) and not _has_parts(root):
        raise LakeError(f"{root} is not empty and no lake; choose a new folder")
    lake = LakeStore(root, LakeConfig(catalog=catalog))
    if catalog != DEFAULT_CATALOG and not _has_parts(root):
        upgrade(lake.catalog.engine)
        _require_unused(lake)
    try:
        for folder in ("tables", "artifacts", "reports"):
            make_folder(root / folder)
    except OSError as error:
        raise LakeError(f"{root} cannot be made: {error.strerror}") from error
    upgrade(lake.catalog.engine)
    for name in LAKE_TABLES:
        lake.create_table(name)
    with lake.catalog.write() as session:
        if session.scalars(select(models.Snapshot)).first() is None:
            session.add(run)
            session.flush()
            versions = {name: lake.table(name).version for name in LAKE_TABLES}
            session.add(models.Snapshot(run_id=run.run_id, versions=versions))
        made_by = session.scalars(select(models.Snapshot.run_id).order_by(models.Snapshot.snapshot_id).limit(1)).one()
    lake.config = replace(lake.config, made_by=made_by)
    write_config(root / CONFIG_NAME, lake.config)
    return lake


def require_possible(root: LakePath, catalog: str) -> None:
    """Raise SettingsError when a lake cannot have its catalog there: SQLite needs a disk."""
    if isinstance(root, ObjectPath) and catalog.startswith("sqlite") and not catalog.startswith("sqlite:////"):
        raise SettingsError(
            f"a lake in an object store needs a catalog elsewhere: proponent init {root} --catalog "
            "postgresql+psycopg://USER@HOST/DATABASE, or, for this machine alone, sqlite:////FOLDER/catalog.db"
        )


def _require_unused(lake: LakeStore) -> None:
    with lake.catalog.read() as session:
        if session.scalars(select(models.Snapshot)).first() is not None:
            raise LakeError("this catalog belongs to another lake; give each lake its own")


def write_config(path: LakePath, config: LakeConfig) -> None:
    """Write `proponent.toml`, whole or not at all."""
    write_whole(path, config.to_toml().encode())
