"""Catching up: a catalog that was restored from an older copy learns from the tables what was published since.

What the tables tell, and how:

- Every snapshot since: its number and time, and the version of each table, by the tags in Lance.
- Models, encoders and curvatures, by `known.json`; corpora, and ids of runs, by the rows.
- What was withdrawn: documents that one snapshot has and the next has not. They stay withdrawn.
- Hashes of rows and files are taken anew, so later damage is found, and damage from before is not.

What only the old catalog knew, and is lost: questions and traces since, whose hits are removed; reasons of withdrawals;
settings and counts of runs; and which documents were withdrawn in snapshots that `compact --forget` has erased since.

Notable: what makes the catalog newer is one transaction, so that nobody sees a part of it; cut short, it starts over.
What has to be removed from the tables is a publication that the transaction plans.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import lance
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from proponent.schema import catalog as models
from proponent.schema.errors import DamagedLakeError, InputError, NotFoundError
from proponent.schema.ids import fresh_id
from proponent.schema.tables import TABLE_MIGRATION
from proponent.store.commit import Change, Committer, committing
from proponent.store.files import tables_on_disk
from proponent.store.hashes import new_hashes
from proponent.store.lake import LakeStore
from proponent.store.leases import ALONE, lease
from proponent.store.place import remove
from proponent.store.probe import Prober
from proponent.store.published import known_rows, older_than, published
from proponent.store.rows import in_lists
from proponent.store.runs import library_versions
from proponent.store.snapshots import Snapshot, latest_snapshot
from proponent.store.tags import tagged
from proponent.store.units import require_no_workers

from .findings import Finding

_WAIT_S: Final = 5.0
_RUN: Final = "repair"
_REASON: Final = "withdrawn after the copy of the catalog was made"


@dataclass
class _Later:
    """A snapshot that the catalog does not know."""

    snapshot_id: int
    run_id: str
    created_at: datetime
    versions: dict[str, int]
    is_readable: bool = True
    withdrawn: pa.Table | None = None
    """doc_id, doc_key and corpus of the documents that went with it."""


@dataclass
class _Found:
    """What the tables tell beyond the catalog."""

    before: Snapshot
    later: list[_Later]
    corpora: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    """Tables of encoders that nobody knows any more."""
    is_blind: bool = False
    """Whether documents of some snapshot cannot be read any more, so that withdrawals cannot be seen."""


def catch_up(lake: LakeStore) -> list[Finding]:
    """Bring a catalog that is older than the tables up to them; return what it has learnt.

    Raises InputError when it is not older, LakeBusyError while anybody works on the lake.
    """
    told = published(lake)
    if older_than(lake, told) is None:
        raise InputError("the catalog knows all that the tables have; there is nothing to catch up with")
    with lease(lake.catalog, ALONE, wait_s=_WAIT_S) as held:
        require_no_workers(lake.catalog)
        with lease(lake.catalog, "commit", under=[held]) as commit:
            committer = Committer(lake, [commit, held])
            run_id = fresh_id()
            with lake.catalog.write() as session:  # a part of the same, for schemas that follow from it
                committer.confirm(session)
                for row in known_rows(lake):
                    session.merge(row)
            found = _look(lake, told.snapshot)
            with lake.catalog.write() as session:
                committer.confirm(session)
                _write(lake, session, found, run_id)
                _plan_removals(lake, session, committer, found, run_id)
        with committing(lake, under=[held]):
            pass  # carries out the removals
        for table in found.unknown:
            held.renew()
            remove(lake.table_dir(table))  # or an encoder that is fitted under the same name would get its vectors
    return _told(found)


# What the tables tell


def _look(lake: LakeStore, newest_snapshot: int) -> _Found:
    found = _Found(latest_snapshot(lake.catalog), [])
    here = tables_on_disk(lake)
    found.unknown = [name for name in here if not _is_known(lake, name)]
    versions = dict(found.before.versions)
    newest = {name: lake.table(name) for name in sorted({*here, *versions} - {*found.unknown})}
    tags = {name: tagged(dataset) for name, dataset in newest.items()}
    times = {newest_snapshot: models.now()}  # a snapshot that changed no table has no tag
    times |= {number: time for dataset in newest.values() for number, time in _times(dataset)}
    for number in sorted(number for number in times if number > found.before.snapshot_id):
        if number < newest_snapshot and _came_to_nothing(number, tags):
            continue
        versions |= {name: of_table[number] for name, of_table in tags.items() if number in of_table}
        later = _Later(number, fresh_id(), times[number], dict(versions))
        later.is_readable = all(_opened(newest[name], version) is not None for name, version in versions.items())
        found.later.append(later)
    last = found.later[-1]
    if not last.is_readable:
        raise DamagedLakeError(f"snapshot {last.snapshot_id}, the newest, has lost files; restore from a backup")
    _find_withdrawn(newest["documents"], found)
    for table in ("documents", "rejects"):
        dataset = newest[table].checkout_version(last.versions[table])
        found.corpora |= set(_values(dataset, "corpus"))
        found.runs |= set(_values(dataset, "run_id"))
    return found


def _is_known(lake: LakeStore, table: str) -> bool:
    """Return whether the catalog says what a table is for."""
    try:
        lake.schema(table)
    except NotFoundError:
        return False
    return True


def _times(dataset: lance.LanceDataset) -> Iterator[tuple[int, datetime]]:
    """Yield when each snapshot's tag was set."""
    of_tag = {f"snapshot-{number}": number for number in tagged(dataset)}
    for name, entry in dataset.tags.list().items():
        if name in of_tag:
            yield of_tag[name], entry["created_at"] or models.now()


def _came_to_nothing(number: int, tags: dict[str, dict[int, int]]) -> bool:
    """Return whether a snapshot was tagged and cut short, and its publication had another number later."""
    mine = [(of_table[number], of_table) for of_table in tags.values() if number in of_table]
    return all(any(other > number and version == own for other, version in of_table.items()) for own, of_table in mine)


def _opened(dataset: lance.LanceDataset, version: int) -> lance.LanceDataset | None:
    """Return a version of a table, None where it was removed."""
    try:
        return dataset.checkout_version(version)
    except (ValueError, OSError):
        return None


def _values(dataset: lance.LanceDataset, column: str) -> list[str]:
    return [str(value) for value in pc.unique(dataset.to_table(columns=[column])[column].combine_chunks()).to_pylist()]


def _find_withdrawn(newest: lance.LanceDataset, found: _Found) -> None:
    """Find the documents that each snapshot has not any more, and that did not come back."""
    columns = ["doc_id", "doc_key", "corpus"]
    last = newest.checkout_version(found.later[-1].versions["documents"])
    staying = last.to_table(columns=["doc_id"])["doc_id"].combine_chunks()
    version = found.before.versions["documents"]
    earlier = _opened(newest, version)
    for later in found.later:
        if later.versions["documents"] == version:
            continue
        version = later.versions["documents"]
        dataset = _opened(newest, version)
        if earlier is None or dataset is None:
            found.is_blind = True
        elif not _was_put_back(dataset):
            rows = earlier.to_table(columns=columns)
            ids = dataset.to_table(columns=["doc_id"])["doc_id"].combine_chunks()
            is_gone = pc.invert(
                pc.or_(pc.is_in(rows["doc_id"], value_set=ids), pc.is_in(rows["doc_id"], value_set=staying))
            )
            gone = rows.filter(is_gone)
            later.withdrawn = gone if gone.num_rows else None
        earlier = dataset


def _was_put_back(dataset: lance.LanceDataset) -> bool:
    """Return whether a version is an earlier one that was restored: going back withdraws nothing."""
    transaction = dataset.read_transaction(dataset.version)
    return transaction is not None and isinstance(transaction.operation, lance.LanceOperation.Restore)


# What the catalog learns


def _write(lake: LakeStore, session: Session, found: _Found, run_id: str) -> None:
    session.execute(delete(models.Unit))
    for stale in session.scalars(select(models.Run).where(models.Run.status == "running")):
        stale.status, stale.error, stale.finished_at = "failed", "the catalog was restored", models.now()
    known = set(session.scalars(select(models.Run.run_id)))
    settings = {"kinds": ["catch up"], "from": found.before.snapshot_id, "to": found.later[-1].snapshot_id}
    session.add(_run(_RUN, run_id, settings))
    session.add_all(_run("ingest", one, {"found by": run_id}) for one in sorted(found.runs - known))
    session.add_all(_run(_RUN, one.run_id, {"kinds": ["catch up"], "snapshot": one.snapshot_id}) for one in found.later)
    session.flush()
    there = set(session.scalars(select(models.Corpus.name)))
    session.add_all(models.Corpus(name=name) for name in sorted(found.corpora - there))
    erased = models.now()
    for later in found.later:
        session.add(
            models.Snapshot(
                snapshot_id=later.snapshot_id,
                run_id=later.run_id,
                versions=later.versions,
                created_at=later.created_at,
                erased_at=None if later.is_readable else erased,
                table_migration=TABLE_MIGRATION,
            )
        )
        for document in later.withdrawn.to_pylist() if later.withdrawn is not None else ():
            session.add(models.Withdrawal(withdrawal_id=fresh_id(), run_id=later.run_id, reason=_REASON, **document))
    session.flush()
    _erase_lost(lake, session)
    _close_publications(session, found)
    _hash_anew(lake, session, found, run_id)
    if session.connection().dialect.name == "postgresql":  # the next snapshot is the one after the newest
        newest = select(func.max(models.Snapshot.snapshot_id)).scalar_subquery()
        session.execute(select(func.setval(func.pg_get_serial_sequence("snapshots", "snapshot_id"), newest)))


def _run(kind: str, run_id: str, settings: dict[str, Any]) -> models.Run:
    return models.Run(
        run_id=run_id, kind=kind, status="done", settings=settings, versions=library_versions(), counts={},
        finished_at=models.now(),
    )  # fmt: skip


def _erase_lost(lake: LakeStore, session: Session) -> None:
    """Mark the snapshots whose versions were removed since, by `compact --forget`."""
    here: dict[str, set[int]] = {}
    for row in session.scalars(select(models.Snapshot).where(models.Snapshot.erased_at.is_(None))):
        for table, version in row.versions.items():
            if table not in here:
                known = _is_there(lake, table)
                here[table] = {one["version"] for one in lake.table(table).versions()} if known else set()
            if version not in here[table]:
                row.erased_at = models.now()


def _is_there(lake: LakeStore, table: str) -> bool:
    return lake.table_dir(table).is_dir()


def _close_publications(session: Session, found: _Found) -> None:
    """Let what was being published when the copy was made be a part of the first snapshot since."""
    still_open = select(models.Publication).where(models.Publication.snapshot_id.is_(None))
    for publication in session.scalars(still_open):
        publication.snapshot_id = found.later[0].snapshot_id


def _hash_anew(lake: LakeStore, session: Session, found: _Found, run_id: str) -> None:
    """Take the hashes of rows and files that nobody has taken, as they lie there now."""
    publication_id, last = fresh_id(), found.later[-1]
    session.add(
        models.Publication(
            publication_id=publication_id, run_id=run_id, snapshot_id=last.snapshot_id, plan={"tables": {}, "rows": []}
        )
    )
    session.flush()
    rows = session.execute(select(models.Batch.table_name, models.Batch.files))
    known = {(table, file) for table, files in rows for file in files}
    done = set[tuple[str, int]]()
    with Prober() as prober:
        for later in (one for one in found.later if one.is_readable):
            for table, version in sorted(later.versions.items() - done):
                done.add((table, version))
                dataset = lake.opened(table, version)
                for fragment in dataset.get_fragments():
                    files = [file.path for file in fragment.data_files()]
                    if not any((table, file) in known for file in files):
                        known |= {(table, file) for file in files}
                        session.add(_batch(lake, prober, fragment, table=table, publication_id=publication_id))
                for file in new_hashes(lake, table, dataset):
                    session.merge(file)
    session.flush()


def _batch(
    lake: LakeStore, prober: Prober, fragment: lance.LanceFragment, *, table: str, publication_id: str
) -> models.Batch:
    files = [file.path for file in fragment.data_files()]
    return models.Batch(
        batch_id=fresh_id(),
        publication_id=publication_id,
        table_name=table,
        files=files,
        n_rows=fragment.physical_rows,
        content_hash=prober.rows_hash(lake.table_dir(table), [f"data/{file}" for file in files]),
    )


# What goes


def _plan_removals(lake: LakeStore, session: Session, committer: Committer, found: _Found, run_id: str) -> None:
    """Plan the removal of what belongs to questions and traces that nobody knows any more."""
    last = found.later[-1]
    at = Snapshot(last.snapshot_id, last.versions, last.run_id, last.created_at)
    traces, queries = (set(session.scalars(select(key))) for key in (models.Trace.trace_id, models.Query.query_id))
    wanted = (("hits", "trace_id", traces), ("queries", "query_id", queries))
    changes = []
    for table, column, there in wanted:
        dataset = lake.opened(table, last.versions[table])
        lost = sorted(set(_values(dataset, column)) - there)
        if lost:
            changes.append(Change(table, delete=tuple(in_lists(column, pa.array(lost, pa.string())))))
    if changes:
        plan = committer.plan(changes, at)
        session.add(models.Publication(publication_id=fresh_id(), run_id=run_id, plan=plan))


def _told(found: _Found) -> list[Finding]:
    first, last = found.later[0].snapshot_id, found.later[-1].snapshot_id
    which = f"snapshot {first} is" if first == last else f"snapshots {first} to {last} are"
    lost = "questions and traces since the copy are lost, ask again"
    told = [Finding("mended", "caught up", "catalog", f"{which} known again; {lost}", "none needed")]
    gone = sum(one.withdrawn.num_rows for one in found.later if one.withdrawn is not None)
    if gone:
        told.append(Finding("mended", "caught up", "documents", f"{gone:,} documents stay withdrawn", "none needed"))
    if found.is_blind:
        what = "documents that were withdrawn and forgotten since the copy are not known to be withdrawn"
        told.append(
            Finding("note", "forgotten", "documents", what, "withdraw them again should they be ingested again")
        )
    told += [
        Finding("mended", "unknown", table, "its encoder is not known any more; removed", "encode again", table)
        for table in found.unknown
    ]
    return told
