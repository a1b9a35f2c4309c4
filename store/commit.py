"""The only committer: the one place that changes a Lance table or publishes a snapshot.

How a change becomes visible, all or nothing, and once:

1. Anyone writes fragments (`write_batch`). Nobody sees them: no version of the table names them.
2. Under the lock "commit", a publication is journalled in the catalog: for every table the version it starts from,
   the rows to delete and the fragments to append, or the contents that replace it, and the catalog's own rows that
   belong to them.
3. Each table is changed by one Lance transaction that carries the publication's id, and tagged with the snapshot.
4. One catalog transaction inserts the snapshot and those rows and closes the publication: the moment of visibility.

Whoever takes the lock after a crash first finishes the publication that it finds open, and whoever decides what to
change by what is there calls `finish_interrupted` before looking. A table whose transaction is
already there is left alone; one that is half-way, or that was changed by nobody's plan, is put back to the version
that the last snapshot names, so a replay never doubles a row.

A holder on another machine that was held for dead may come back late, in the middle of 3. Its lock has another token
by then, so step 4 is refused to it. What it does to a table until it learns of that is no part of any snapshot: Lance
puts a late commit after those that came first, and a version counts as a publication's only if all since the version
that it starts from are that publication's own (`_result`). Else the table is put back and the step done again.
"""

import base64
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import Any

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata, write_fragments
from sqlalchemy import Column, bindparam, inspect, select
from sqlalchemy.orm import Session

from proponent.observe.events import count, span, tell
from proponent.schema import catalog as models
from proponent.schema.errors import LakeBusyError, LeaseLostError
from proponent.schema.ids import fresh_id
from proponent.schema.tables import conform, rows_hash

from .hashes import new_hashes
from .lake import LakeStore
from .leases import Lease, lease
from .place import LakePath
from .published import require_newest, tell_published
from .snapshots import Snapshot, as_snapshot, latest_snapshot
from .tags import tag

_KEY = "proponent.publication"
_MOST_TRIES = 5
"""How often a step is done again because somebody who was held for dead came in between."""
_KEYS_AT_ONCE = 10_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WrittenBatch:
    """Rows that lie in a table's folder as fragments which no version names yet."""

    table: str
    fragments: tuple[dict[str, Any], ...]
    files: tuple[str, ...]
    n_rows: int
    content_hash: str

    def to_json(self) -> dict[str, Any]:
        """Return the batch as JSON data, for a process that publishes it."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, described: dict[str, Any]) -> "WrittenBatch":
        """Read a batch that another process has written."""
        return cls(**described | {name: tuple(described[name]) for name in ("fragments", "files")})


@dataclass(frozen=True)
class Change:
    """What a publication does to one table: first delete rows by predicates, then append batches.

    With a schema, the batches take the place of all rows, and the schema that of the table's; versions before it keep
    theirs. `drop` names fragments that go as they are, since nobody can read the rows in them.
    """

    table: str
    append: tuple[WrittenBatch, ...] = ()
    delete: tuple[str, ...] = ()
    schema: pa.Schema | None = None
    drop: tuple[int, ...] = ()


@dataclass
class Changes:
    """Changes collected by a run until it publishes them."""

    _append: dict[str, list[WrittenBatch]] = field(default_factory=dict)
    _delete: dict[str, list[str]] = field(default_factory=dict)

    def append(self, batch: WrittenBatch) -> None:
        """Add a written batch."""
        self._append.setdefault(batch.table, []).append(batch)

    def delete(self, table: str, predicate: str) -> None:
        """Delete the rows of a table, as it was before this publication, that meet a Lance predicate."""
        self._delete.setdefault(table, []).append(predicate)

    def appended(self, table: str) -> list[WrittenBatch]:
        """Return the batches that are appended to a table."""
        return list(self._append.get(table, ()))

    def take(self) -> list[Change]:
        """Return what was collected, and start anew."""
        tables = sorted(self._append.keys() | self._delete.keys())
        taken = [Change(t, tuple(self._append.get(t, ())), tuple(self._delete.get(t, ()))) for t in tables]
        self._append, self._delete = {}, {}
        return taken


def write_batch(lake: LakeStore, table: str, data: pa.Table, *, schema: pa.Schema | None = None) -> WrittenBatch:
    """Write rows into a table's folder without making them visible.

    They are for the table as it is, or, with a schema, for the contents that will replace it. Raises InputError when
    they do not fit the schema.
    """
    dataset = lake.table(table)
    data = conform(data, schema or lake.schema(table), table=table)
    how = {"schema": schema, "mode": "overwrite"} if schema else {"schema": dataset.schema, "mode": "append"}
    fragments = write_fragments(data, dataset, **how) if data.num_rows else []
    described = tuple(fragment.to_json() for fragment in fragments)
    files = tuple(file["path"] for fragment in described for file in fragment["files"])
    return WrittenBatch(table, described, files, data.num_rows, rows_hash(data))


def is_there(lake: LakeStore, batch: WrittenBatch) -> bool:
    """Return whether the files of a batch are still where they were written, and whole."""
    sizes = [file.get("file_size_bytes") for fragment in batch.fragments for file in fragment["files"]]
    return all(
        path.is_file() and (not size or size == path.stat().st_size)
        for path, size in zip(_data_files(lake, batch), sizes, strict=True)
    )


def discard(lake: LakeStore, batches: Sequence[WrittenBatch]) -> None:
    """Remove the files of batches that will not be published; what a publication names stays."""
    planned = select(models.Batch.batch_id).where(
        models.Batch.table_name == bindparam("table"), models.Batch.content_hash == bindparam("hash")
    )
    for batch in batches:
        with lake.catalog.read() as session:
            told = session.execute(planned, {"table": batch.table, "hash": batch.content_hash}).first()
        if told is None:
            remove_files(lake, batch)


def remove_files(lake: LakeStore, batch: WrittenBatch) -> None:
    """Remove the files of a batch that nobody was told of, though others may have written and published its rows."""
    for path in _data_files(lake, batch):
        path.unlink(missing_ok=True)


def _data_files(lake: LakeStore, batch: WrittenBatch) -> list[LakePath]:
    return [lake.table_dir(batch.table) / "data" / name for name in batch.files]


def finish_interrupted(lake: LakeStore) -> None:
    """Finish what a process that died was publishing, so that a decision about what to write sees it."""
    if _open_publications(lake):
        with committing(lake):
            pass


@contextmanager
def committing(lake: LakeStore, *, under: Sequence[Lease] = ()) -> Iterator["Committer"]:
    """Hold the lake's commit lock; what an earlier holder left half-done is finished first.

    `under` are other locks that what is published rests on; losing one of them stops a publication, too. Raises
    OlderCatalogError when the tables have more than the catalog knows.
    """
    with lease(lake.catalog, "commit", under=under) as held:
        require_newest(lake)
        committer = Committer(lake, [held, *under])
        committer.finish_open_publications()
        yield committer


class Committer:
    """Publishes changes, while it holds the lock."""

    def __init__(self, lake: LakeStore, leases: Sequence[Lease]) -> None:
        self._lake = lake
        self._leases = leases

    def publish(
        self,
        run_id: str,
        changes: Sequence[Change],
        *,
        adopt: Sequence[str] = (),
        rows_as_at: Snapshot | None = None,
        rows: Sequence[models.Base] = (),
        amend: Sequence[models.Base] = (),
        table_migration: int | None = None,
    ) -> Snapshot:
        """Make changes visible in one new snapshot.

        `adopt` names tables whose newest version, made under this same lock (a new index, say), the snapshot takes;
        their rows have to be those of `rows_as_at`, by default the last snapshot.
        `rows` are catalog rows that belong to the changes and appear with the snapshot, unless they are there already.
        `amend` are rows that are there, with their key and those columns that change with the snapshot.
        `table_migration` is the migration of tables that this is, or that they are put back to.
        """
        publication_id = fresh_id()
        before = latest_snapshot(self._lake.catalog)
        tables = {change.table: self._step(change, before) for change in changes}
        tables |= {name: {"version": self._adopted(name, rows_as_at or before)} for name in adopt}
        batches = [
            models.Batch(
                batch_id=fresh_id(),
                publication_id=publication_id,
                table_name=batch.table,
                files=list(batch.files),
                n_rows=batch.n_rows,
                content_hash=batch.content_hash,
            )
            for change in changes
            for batch in change.append
        ]
        plan = {
            "tables": tables,
            "rows": [_to_json(row) for row in rows],
            "amend": [_to_json(row) for row in amend],
            "table_migration": before.table_migration if table_migration is None else table_migration,
        }
        with self._lake.catalog.write() as session:
            self.confirm(session)
            session.add(models.Publication(publication_id=publication_id, run_id=run_id, plan=plan))
            session.flush()
            session.add_all(batches)
        with span("commit", tables=len(tables), rows=sum(batch.n_rows for batch in batches)):
            return self._carry_out(publication_id)

    def _adopted(self, table: str, before: Snapshot) -> int:
        """Return a table's newest version. Raises LeaseLostError when it has other rows than it should."""
        newest = self._lake.table(table)
        published = before.versions.get(table)
        if published is not None and _rows_of(newest) != _rows_of(newest.checkout_version(published)):
            raise LeaseLostError(
                f"table {table!r} was changed meanwhile by a process that was held for dead; start again"
            )
        return int(newest.version)

    def as_published(self, table: str) -> lance.LanceDataset:
        """Return a table as the newest snapshot has it, for what is built on it to be adopted.

        A version that somebody made there who died before publishing it is undone.
        """
        published, dataset = latest_snapshot(self._lake.catalog).versions[table], self._lake.table(table)
        if dataset.version == published:
            return dataset
        tell(_log, "putting a table back", table=table, version=published)
        dataset.checkout_version(published).restore()  # type: ignore[no-untyped-call]
        return self._lake.table(table)

    def finish_open_publications(self) -> None:
        """Carry out what a crashed process had planned."""
        for publication_id in _open_publications(self._lake):
            tell(_log, "finishing a publication that was cut short", publication=publication_id)
            self._carry_out(publication_id)

    def plan(self, changes: Sequence[Change], before: Snapshot) -> dict[str, Any]:
        """Return what a publication's journal entry says of changes to the tables as a snapshot has them."""
        return {"tables": {change.table: self._step(change, before) for change in changes}, "rows": []}

    def confirm(self, session: Session) -> None:
        """Renew the locks inside a transaction. Raises LeaseLostError if one is no longer held."""
        for held in self._leases:
            held.confirm(session)

    def _step(self, change: Change, before: Snapshot) -> dict[str, Any]:
        base = before.versions.get(change.table) or self._lake.table(change.table).version
        fragments = [fragment for batch in change.append for fragment in batch.fragments]
        step = {"base": base, "delete": list(change.delete), "fragments": fragments}
        step |= {"drop": list(change.drop)} if change.drop else {}
        return step if change.schema is None else step | {"schema": _schema_to_json(change.schema)}

    def _carry_out(self, publication_id: str) -> Snapshot:
        with self._lake.catalog.read() as session:
            publication = session.get_one(models.Publication, publication_id)
        before = latest_snapshot(self._lake.catalog)
        versions = dict(before.versions)
        for table, step in publication.plan["tables"].items():
            for held in self._leases:
                held.renew()
            versions[table] = step.get("version") or self._apply(table, step, publication_id)
        changed = {table: self._at_version(table, versions[table]) for table in publication.plan["tables"]}
        hashes = [file for table in changed for file in new_hashes(self._lake, table, changed[table])]
        migration = publication.plan.get("table_migration", before.table_migration)  # older plans have none
        row = models.Snapshot(run_id=publication.run_id, versions=versions, table_migration=migration)
        with self._lake.catalog.write() as session:
            self.confirm(session)
            session.add(row)
            session.flush()
            for dataset in changed.values():
                tag(dataset, snapshot_id=row.snapshot_id, version=dataset.version)
            for file in hashes:
                session.merge(file)
            _add_missing(session, [_from_json(described) for described in publication.plan["rows"]])
            for described in publication.plan.get("amend", []):  # plans of older versions have none
                session.merge(_from_json(described))
            session.get_one(models.Publication, publication_id).snapshot_id = row.snapshot_id
            session.flush()
            tell_published(self._lake, session, snapshot_id=row.snapshot_id, publication_id=publication_id)
        tell(
            _log, "snapshot published", snapshot=row.snapshot_id, run=publication.run_id, publication=publication_id,
            tables=",".join(sorted(changed)),
        )  # fmt: skip
        count("snapshots")
        return as_snapshot(row)

    def _at_version(self, table: str, version: int) -> lance.LanceDataset:
        dataset = self._lake.table(table)
        return dataset if dataset.version == version else dataset.checkout_version(version)

    def _apply(self, table: str, step: dict[str, Any], key: str) -> int:
        """Do a step unless it is done; return the version that has it."""
        for _ in range(_MOST_TRIES):
            dataset = self._lake.table(table)
            if _ends_with_key(step) and (done := _result(dataset, step, key)) is not None:
                return done
            if dataset.version != step["base"]:
                tell(_log, "putting a table back", table=table, version=step["base"])
                dataset.checkout_version(step["base"]).restore()  # type: ignore[no-untyped-call]
            self._carry_out_step(self._lake.table(table), step, key)
            if (done := _result(self._lake.table(table), step, key)) is not None:
                return done
        raise LakeBusyError(
            f"table {table!r} is being changed by a process that was held for dead; stop it, then go on"
        )

    @staticmethod
    def _carry_out_step(dataset: lance.LanceDataset, step: dict[str, Any], key: str) -> None:
        if step.get("drop"):
            operation: Any = lance.LanceOperation.Delete([], step["drop"], "false")
            dataset = lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)
        for predicate in step["delete"]:
            dataset.delete(predicate)
        fragments = [FragmentMetadata.from_json(json.dumps(fragment)) for fragment in step["fragments"]]
        operation = lance.LanceOperation.Append(fragments)
        if "schema" in step:
            operation = lance.LanceOperation.Overwrite(_schema_from_json(step["schema"]), fragments)
        if _ends_with_key(step):
            transaction = lance.Transaction(
                read_version=dataset.version, operation=operation, transaction_properties={_KEY: key}
            )
            lance.LanceDataset.commit(dataset, transaction)


def _open_publications(lake: LakeStore) -> list[str]:
    still_open = (
        select(models.Publication.publication_id)
        .where(models.Publication.snapshot_id.is_(None))
        .order_by(models.Publication.created_at)
    )
    with lake.catalog.read() as session:
        return list(session.scalars(still_open))


def _to_json(row: models.Base) -> dict[str, Any]:
    given = {name: value for name, value in vars(row).items() if not name.startswith("_")}
    return {"table": row.__tablename__, "values": given}


def _from_json(described: dict[str, Any]) -> models.Base:
    row: models.Base = _kinds()[described["table"]](**described["values"])
    return row


@cache
def _kinds() -> dict[str, Any]:
    return {mapper.class_.__tablename__: mapper.class_ for mapper in models.Base.registry.mappers}


def _schema_to_json(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def _schema_from_json(described: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(described)))


def _add_missing(session: Session, rows: Sequence[models.Base]) -> None:
    """Add the rows whose keys are not there, in order; thousands of withdrawals in as few statements as they need."""
    for kind, neighbours in groupby(rows, key=type):
        key: Column[Any] = inspect(kind).primary_key[0]  # the catalog's keys are single columns
        by_key: dict[Any, models.Base] = {}
        for row in neighbours:
            by_key.setdefault(getattr(row, key.name), row)
        there: set[Any] = set()
        for start in range(0, len(by_key), _KEYS_AT_ONCE):
            some = list(by_key)[start : start + _KEYS_AT_ONCE]
            there.update(session.scalars(select(key).where(key.in_(some))))
        session.add_all(row for name, row in by_key.items() if name not in there)
        session.flush()


def _ends_with_key(step: dict[str, Any]) -> bool:
    """Return whether the last of a step's transactions carries the publication's key: all but deletions do."""
    return bool(step["fragments"]) or "schema" in step


def _result(dataset: lance.LanceDataset, step: dict[str, Any], key: str) -> int | None:
    """Return the first version that is a step's result and nothing else besides, None if there is none.

    Upwards: had a holder that was held for dead carried out the same publication late, the first one counts.
    """
    is_own = True
    for version in range(step["base"] + 1, dataset.version + 1):
        transaction = dataset.read_transaction(version)
        operation = transaction and transaction.operation
        if isinstance(operation, lance.LanceOperation.Restore):
            is_own = operation.version == step["base"]
        elif transaction is not None and (transaction.transaction_properties or {}).get(_KEY) == key:
            if is_own:
                return version
        elif not _is_deletion_of(step, operation):
            is_own = False
    return int(dataset.version) if is_own and not _ends_with_key(step) else None


def _is_deletion_of(step: dict[str, Any], operation: Any) -> bool:
    wanted = [*step["delete"], *(["false"] if step.get("drop") else [])]
    return isinstance(operation, lance.LanceOperation.Delete) and operation.predicate in wanted


def _rows_of(dataset: lance.LanceDataset) -> set[tuple[str, str | None]]:
    """Return the files of rows that a version of a table names, with those of what is deleted in them."""
    return {
        (file.path, fragment.deletion_file()) for fragment in dataset.get_fragments() for file in fragment.data_files()
    }
