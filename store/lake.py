"""A lake on disk: its folder, its configuration, its catalog and its tables.

Notable: `proponent.toml` is written last, so a folder that has it is a whole lake, and a folder that has tables but no
`proponent.toml` is one whose making was cut short.
"""

import json
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
)
from proponent.schema.settings import GROUP_BYTES
from proponent.schema.tables import LAKE_TABLES, NORMS, encodings_schema, index_schema

from .catalog import Catalog, catalog_engine
from .snapshots import Snapshot

FORMAT: Final = 1
"""Version of the lake's layout that this code writes, and the newest that it reads."""

CONFIG_NAME: Final = "proponent.toml"
DEFAULT_CATALOG: Final = "sqlite:///catalog.db"


@dataclass(frozen=True)
class LakeConfig:
    """What `proponent.toml` says."""

    format: int = FORMAT
    catalog: str = DEFAULT_CATALOG
    group_bytes: int = GROUP_BYTES
    """Bytes that the sums of one kind of groups may take; a line that people write."""

    def to_toml(self) -> str:
        """Return the file's text."""
        # JSON strings are TOML basic strings.
        lines = ["# A proponent lake. Its folders belong together.", f"format = {self.format}"]
        return "\n".join([*lines, f"catalog = {json.dumps(self.catalog)}", ""])


class LakeStore:
    """An open lake: paths, catalog and Lance tables."""

    def __init__(self, root: Path, config: LakeConfig) -> None:
        self.root = root
        self.config = config
        self.catalog = Catalog(catalog_engine(config.catalog, root=root))

    @property
    def tables_dir(self) -> Path:
        """Folder of the LanceDB database."""
        return self.root / "tables"

    @property
    def artifacts_dir(self) -> Path:
        """Folder of fitted state."""
        return self.root / "artifacts"

    @property
    def reports_dir(self) -> Path:
        """Folder of reports."""
        return self.root / "reports"

    @property
    def sums_dir(self) -> Path:
        """Folder of group sums."""
        return self.root / "sums"

    @property
    def work_dir(self) -> Path:
        """Folder of what runs lay out for their workers."""
        return self.root / "work"

    def table_dir(self, table: str) -> Path:
        """Folder of a table."""
        return self.tables_dir / f"{table}.lance"

    def table(self, name: str, *, at: Snapshot | None = None) -> lance.LanceDataset:
        """Open a Lance table: at a snapshot for reading, at its newest version only for the committer.

        Raises NotFoundError when the lake (at that snapshot) has no such table.
        """
        if at is not None and not at.has(name):
            raise NotFoundError(f"the lake has no table {name!r} at snapshot {at.snapshot_id}")
        path = self.table_dir(name)
        try:
            return lance.dataset(str(path), version=at.versions[name] if at else None)
        except ValueError as error:
            if path.is_dir():
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
        if not any((path / "_versions").glob("*.manifest")):
            lance.write_dataset(schema.empty_table(), str(path), schema=schema, mode="overwrite")

    def close(self) -> None:
        """Close the catalog's connections."""
        self.catalog.close()


def open_store(root: Path) -> LakeStore:
    """Open the lake in a folder.

    Raises LakeNotFoundError, LakeHalfMadeError, LakeVersionError or DamagedLakeError.
    """
    config_path = root / CONFIG_NAME
    if not config_path.is_file():
        if not root.exists():
            raise LakeNotFoundError(f"{root} does not exist; make a lake with `proponent init {root}`")
        if _has_parts(root):
            raise LakeHalfMadeError(f"{root} was not finished; run `proponent init {root}` again")
        raise LakeNotFoundError(f"{root} is no lake (it has no {CONFIG_NAME}); make one with `proponent init`")
    config = _read_config(config_path)
    lake = LakeStore(root, config)
    if config.catalog == DEFAULT_CATALOG and not (root / "catalog.db").is_file():
        raise DamagedLakeError(f"{root} has lost its catalog.db; restore it from a backup")
    return lake


def _read_config(path: Path) -> LakeConfig:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        config = LakeConfig(
            format=int(values["format"]),
            catalog=str(values["catalog"]),
            group_bytes=int(values.get("group_bytes", GROUP_BYTES)),
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


def _has_parts(root: Path) -> bool:
    return (root / "tables").is_dir() or (root / "catalog.db").exists()


def create_store(root: Path, *, catalog: str, upgrade: Callable[[Engine], None], run: models.Run) -> LakeStore:
    """Make a lake, or finish one whose making was cut short.

    `upgrade` brings the empty catalog to its newest revision; `run` is recorded as the lake's first run. Raises
    LakeError when the folder holds other things or is a whole lake already.
    """
    if (root / CONFIG_NAME).exists():
        raise LakeError(f"{root} is a lake already")
    if root.exists() and not root.is_dir():
        raise LakeError(f"{root} is a file; a lake needs a folder")
    if root.is_dir() and any(root.iterdir()) and not _has_parts(root):
        raise LakeError(f"{root} is not empty and no lake; choose a new folder")
    lake = LakeStore(root, LakeConfig(catalog=catalog))
    if catalog != DEFAULT_CATALOG and not _has_parts(root):
        upgrade(lake.catalog.engine)
        _require_unused(lake)
    try:
        for folder in ("tables", "artifacts", "reports"):
            (root / folder).mkdir(parents=True, exist_ok=True)
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
    write_config(root / CONFIG_NAME, lake.config)
    return lake


def _require_unused(lake: LakeStore) -> None:
    with lake.catalog.read() as session:
        if session.scalars(select(models.Snapshot)).first() is not None:
            raise LakeError("this catalog belongs to another lake; give each lake its own")


def write_config(path: Path, config: LakeConfig) -> None:
    """Write `proponent.toml`, whole or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(config.to_toml())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
