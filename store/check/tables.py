"""A table's files against what the catalog says of them: there, whole, and with the rows that were written."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import lance
import pyarrow as pa

from proponent.schema import catalog as models
from proponent.schema.errors import ProponentError, StorageError
from proponent.schema.tables import TABLE_MIGRATION
from proponent.store.files import files_on_disk, named_files, names_of
from proponent.store.hashes import file_hash
from proponent.store.lake import LakeStore
from proponent.store.place import sizes_below
from proponent.store.probe import LANCE_ERRORS, Prober, Unreadable, described
from proponent.store.tags import tagged, wanted_tags

from .facts import Facts
from .findings import BACKUP, REPAIR, Finding, Grade, named, remedy_of


@dataclass
class CheckedTable:
    """What a check has found of one table."""

    name: str
    findings: list[Finding] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)
    """Files of the newest snapshot that are missing or wrong, by their path in the table's folder."""
    dataset: lance.LanceDataset | None = None
    """The table as the newest snapshot has it, when it can be opened."""

    @property
    def is_sound(self) -> bool:
        """Whether every file of the newest snapshot has what was written."""
        return self.dataset is not None and not self.damaged

    def add(self, grade: Grade, kind: str, *told: str, names: Iterable[str] = ()) -> None:
        """Add a finding; `told` is where it is, what, and the remedy."""
        where, what, remedy = told
        self.findings.append(Finding(grade, kind, where, what, remedy, self.name, tuple(names)))


class TableChecker:
    """Checks the tables of a lake one after the other."""

    def __init__(
        self, lake: LakeStore, facts: Facts, prober: Prober, *, deep: bool, progress: Callable[[int], object]
    ) -> None:
        self._lake = lake
        self._facts = facts
        self._prober = prober
        self._deep = deep
        self._progress = progress
        self._here: dict[str, int] = {}
        """Sizes of the files of the table that is being checked."""

    def check(self, name: str) -> CheckedTable:
        """Check a table that the newest snapshot, or with `deep` any snapshot, has."""
        table = CheckedTable(name)
        self._here = sizes_below(self._lake.table_dir(name))
        if not self._here:
            table.damaged.add("")
            table.add("damage", "table", name, "the table's folder is missing", remedy_of(name))
            return table
        checked: dict[str, str | None] = {}
        recorded = self._recorded(name)
        for version, snapshots in sorted(self._versions(name).items(), reverse=True):
            is_newest = version == self._facts.at.versions.get(name)
            dataset = self._open(table, version, snapshots)
            if is_newest:
                table.dataset = dataset
                table.damaged |= {"_versions"} if dataset is None else set()
            if dataset is None:
                continue
            sizes = _sizes(dataset)
            for path in sorted(names_of(dataset)):
                if path not in checked:
                    checked[path] = self._wrong_with(name, path, sizes, recorded.get(path, []))
                    self._tell(table, path, checked[path], snapshots)
                if checked[path] is not None and is_newest:
                    table.damaged.add(path)
            self._check_rows(table, dataset, checked, snapshots, is_newest=is_newest)
        self._check_schema(table)
        self._check_tags(table)
        self._check_newest(table)
        return table

    def _versions(self, name: str) -> dict[int, list[int]]:
        """Return the versions of a table that are checked, with the snapshots that name them."""
        versions: dict[int, list[int]] = {}
        for snapshot in self._facts.snapshots if self._deep else [self._facts.at]:
            if snapshot.has(name):
                versions.setdefault(snapshot.versions[name], []).append(snapshot.snapshot_id)
        return versions

    def _open(self, table: CheckedTable, version: int, snapshots: list[int]) -> lance.LanceDataset | None:
        root, path = self._lake.table_dir(table.name), manifest_of(self._here, version)
        where, wrong, is_known = f"{table.name} version {version}", None, False
        if path is None:
            wrong = "its manifest is missing"
        elif (stored := self._facts.hashes.get(table.name, {}).get(path)) is not None:
            is_known = file_hash(root / path) == stored.content_hash
            wrong = None if is_known else "its manifest was changed"
        if wrong is None:
            try:
                if not is_known:
                    self._prober.open(root, version)
                return self._lake.opened(table.name, version)
            except StorageError:
                raise
            except (Unreadable, *LANCE_ERRORS) as error:
                wrong = f"it cannot be opened: {described(error)}"
        table.add("damage", "version", where, f"{wrong}; {_of_snapshots(snapshots)}", BACKUP, names=[str(version)])
        return None

    def _recorded(self, name: str) -> dict[str, list[models.StoredFile]]:
        """Return the files of a table whose bytes have hashes, those of an index by its folder."""
        recorded: dict[str, list[models.StoredFile]] = {}
        for path, stored in self._facts.hashes.get(name, {}).items():
            recorded.setdefault("/".join(path.split("/")[:2]), []).append(stored)
        return recorded

    def _wrong_with(
        self, name: str, path: str, sizes: Mapping[str, int | None], recorded: Sequence[models.StoredFile]
    ) -> str | None:
        """Return what is wrong with a file, or an index's folder, from outside."""
        root = self._lake.table_dir(name)
        if path.startswith("data/"):
            return self._wrong_size(path, sizes[path])
        if not recorded:
            is_here = any(PurePosixPath(file).is_relative_to(path) for file in self._here)
            return None if is_here else "it is missing"
        for stored in recorded:
            wrong = self._wrong_size(stored.path, stored.size)
            if wrong is None and file_hash(root / stored.path) != stored.content_hash:
                wrong = "its bytes were changed"
            if wrong is not None:
                return wrong if stored.path == path else f"{PurePosixPath(stored.path).name}: {wrong}"
        return None

    def _wrong_size(self, path: str, size: int | None) -> str | None:
        found = self._here.get(path)
        if found is None:
            return "it is missing"
        return None if not size or found == size else f"it has {found:,} bytes, not {size:,}"

    def _tell(self, table: CheckedTable, path: str, wrong: str | None, snapshots: list[int]) -> None:
        if wrong is None:
            return
        kind = {"data": "rows", "_deletions": "deletions", "_indices": "index"}[path.partition("/")[0]]
        remedy = f"{REPAIR} drops it, and builds it again" if kind == "index" else remedy_of(table.name)
        if self._facts.at.snapshot_id not in snapshots:
            remedy = f"{BACKUP}; the newest snapshot does not need it"
        table.add("damage", kind, f"{table.name} {path}", f"{wrong}; {_of_snapshots(snapshots)}", remedy, names=[path])

    def _check_rows(
        self,
        table: CheckedTable,
        dataset: lance.LanceDataset,
        checked: dict[str, str | None],
        snapshots: list[int],
        *,
        is_newest: bool,
    ) -> None:
        """Compare the rows of each batch, as they lie in its files, with the hash of what was written."""
        here = {
            f"data/{file.path}": fragment.physical_rows
            for fragment in dataset.get_fragments()
            for file in fragment.data_files()
        }
        known = set[str]()
        for batch in self._facts.batches.get(table.name, ()):
            paths = [f"data/{file}" for file in batch.files]
            of_batch = [path for path in paths if path in here]
            known.update(of_batch)
            if not of_batch or any(checked.get(path) is not None for path in of_batch):
                continue
            key = f"rows {batch.batch_id}"
            if key not in checked:
                checked[key] = self._wrong_with_rows(table.name, paths, batch, here)
                self._progress(batch.n_rows)
                if checked[key] is not None:
                    for path in of_batch:
                        self._tell(table, path, checked[key], snapshots)
            if checked[key] is not None:
                table.damaged |= set(of_batch) if is_newest else set()
        if is_newest and (unknown := sorted(here.keys() - known)):
            what = "rows that no batch of the catalog has: nothing to compare them with"
            table.add("note", "unknown rows", f"{table.name} {named(unknown)}", what, "none needed", names=unknown)

    def _wrong_with_rows(self, name: str, paths: list[str], batch: models.Batch, here: Mapping[str, int]) -> str | None:
        if any(path not in self._here for path in paths):
            return None  # a part of the batch was compacted away: there is no hash of the rest
        try:
            if self._prober.rows_hash(self._lake.table_dir(name), paths) != batch.content_hash:
                return "its rows are not those that were written"
        except Unreadable as error:
            return f"it cannot be read: {error}"
        if set(paths) <= here.keys() and sum(here[path] for path in paths) != batch.n_rows:
            return f"it has {sum(here[path] for path in paths)} rows in the table, {batch.n_rows} were written"
        return None

    def _check_schema(self, table: CheckedTable) -> None:
        if table.dataset is None:
            return
        try:
            wanted = self._lake.schema(table.name)
        except ProponentError:
            what = "nothing in the catalog says what it is for"
            table.add("damage", "schema", table.name, what, BACKUP)
            return
        is_former = self._facts.at.table_migration < TABLE_MIGRATION  # of a backup that is being restored
        if not is_former and not same_fields(table.dataset.schema, wanted):
            table.damaged.add("schema")
            what = f"its columns are not what they should be: {_difference(table.dataset.schema, wanted)}"
            table.add("damage", "schema", table.name, what, BACKUP)

    def _check_tags(self, table: CheckedTable) -> None:
        """Compare the tags with the snapshots that can be read."""
        if table.dataset is None:
            return
        wanted = wanted_tags(self._facts.snapshots, table.name)
        try:
            found = tagged(table.dataset)
        except LANCE_ERRORS as error:
            what = f"its tags cannot be read: {described(error)}"
            table.add("leftover", "tags", f"{table.name} _refs", what, f"{REPAIR} sets them again")
            return
        readable = {snapshot.snapshot_id: snapshot.versions.get(table.name) for snapshot in self._facts.snapshots}
        wrong = sorted(
            [one for one, version in wanted.items() if one not in found]
            + [one for one, version in found.items() if readable.get(one) != version and not self._facts.at_work]
        )
        if wrong:
            what = f"tags are missing or wrong: snapshot {named(map(str, wrong), of=len(wrong))}"
            table.add("note", "tags", f"{table.name} _refs", what, f"{REPAIR} sets them", names=map(str, wrong))

    def _check_newest(self, table: CheckedTable) -> None:
        """Look at what lies in the folder beside what the snapshot has: later versions, and files of no version."""
        if self._facts.at_work or table.dataset is None or not self._facts.at.has(table.name):
            return
        published = self._facts.at.versions[table.name]
        try:
            self._prober.open(self._lake.table_dir(table.name), None)
            newest = self._lake.table(table.name)
            left = orphans(self._lake, self._facts, table.name)
        except StorageError:
            raise
        except (Unreadable, ProponentError, *LANCE_ERRORS) as error:
            what = f"its versions cannot be listed: {described(error)}"
            table.add("damage", "versions", table.name, what, BACKUP)
            return
        changed = newest.version != published and names_of(newest) != names_of(table.dataset)
        if changed and not self._facts.rows["publications"]:
            what = f"version {newest.version} is in no snapshot; {published} is the newest that is"
            remedy = f"none needed: the next publication puts it back, or {REPAIR}"
            table.add("leftover", "unpublished", f"{table.name} version {newest.version}", what, remedy)
        if left:
            what = f"{sum(left.values()):,} bytes that no version names, of a process that died"
            remedy = f"{REPAIR} or `proponent compact` removes them"
            table.add("leftover", "orphans", f"{table.name} {named(left)}", what, remedy, names=left)


def orphans(lake: LakeStore, facts: Facts, table: str) -> dict[str, int]:
    """Return the sizes of a table's files that no version names and no run that can go on has written."""
    named_here = {name for names in named_files(lake, table).values() for name in names}
    sizes = files_on_disk(lake, table)
    return {path: sizes[path] for path in sorted(sizes.keys() - named_here - _written(facts, table))}


def _written(facts: Facts, table: str) -> set[str]:
    """Return the files that runs which can go on have written, or that are being published."""
    results = [unit.result or {} for unit in facts.rows["units"]]
    written = [batch for one in results for batch in [*one.get("batches", ()), one.get("batch")] if batch]
    batches = [batch for batch in written if batch["table"] == table]
    steps = [one.plan["tables"].get(table, {}) for one in facts.rows["publications"]]
    fragments = [fragment for step in steps for fragment in step.get("fragments", ())]
    files = {file["path"] for fragment in fragments for file in fragment["files"]}
    return {f"data/{file}" for file in files.union(*(batch["files"] for batch in batches))}


def manifest_of(files: Collection[str], version: int) -> str | None:
    """Return the manifest, among a table's files, of a version in either of Lance's ways to name it; None if none."""
    names = (f"_versions/{2**64 - 1 - version:020d}.manifest", f"_versions/{version}.manifest")
    return next((name for name in names if name in files), None)


def same_fields(schema: pa.Schema, wanted: pa.Schema) -> bool:
    """Return whether two schemas have the same columns, types and nullability in the same order."""
    return bool(schema.remove_metadata().equals(wanted.remove_metadata()))


def _difference(schema: pa.Schema, wanted: pa.Schema) -> str:
    here = {field.name: f"{field.type}{'' if field.nullable else ' not null'}" for field in schema}
    there = {field.name: f"{field.type}{'' if field.nullable else ' not null'}" for field in wanted}
    differing = [name for name in there.keys() | here.keys() if here.get(name) != there.get(name)]
    if not differing:
        return "another order of columns"
    name = min(differing)
    return f"{name} is {here.get(name, 'missing')}, not {there.get(name, 'there')}"


def _sizes(dataset: lance.LanceDataset) -> dict[str, int | None]:
    """Return the sizes of a table's data files as it says itself."""
    files = (file for fragment in dataset.get_fragments() for file in fragment.data_files())
    return {f"data/{file.path}": file.file_size_bytes for file in files}


def _of_snapshots(snapshots: list[int]) -> str:
    return f"snapshot {named(map(str, reversed(snapshots)), of=len(snapshots))}"
