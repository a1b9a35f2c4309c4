"""Compaction: small fragments into large ones, files away that no snapshot names, and withdrawn documents forgotten.

How withdrawn documents are forgotten:

1. Tables whose newest version names a file with their rows are written anew, in one published snapshot; their
   indexes are built anew after it.
2. Snapshots that name such a file are marked as erased. From here on nobody opens them.
3. Worklists, group sums and reports that quote the documents go, then the files, then their keys in the catalog, which
   is itself written anew.

Every step looks at what is there and does what is left to do, so a run that was killed is finished by the next. Nobody
else holds a lock of the lake meanwhile (`ALONE`), or a file that its writer has not published yet would be taken for a
dead one's.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import lance
import pyarrow as pa
from sqlalchemy import select, update

from proponent.schema import catalog as models
from proponent.schema.errors import DamagedLakeError
from proponent.schema.tables import index_table

from .column_indexes import build_column_indexes, had_column_indexes
from .commit import Change, WrittenBatch, committing, write_batch
from .files import Named, files_on_disk, named_files, tables_on_disk
from .forgetting import forget_keys, unforgotten
from .full_text import build_full_text, had_full_text, has_full_text
from .group_sums import remove_sums
from .indexes import build_index
from .lake import LakeStore
from .leases import ALONE, Lease, lease
from .place import LakePath, chunks_of, remove, sizes_below
from .remains import Remains, Staying, find_remains, tainted_files
from .runs import recorded_run
from .snapshots import Snapshot, latest_snapshot, readable_snapshots
from .stale import encoded_texts
from .tags import set_tags
from .units import remove_all_units, require_no_workers

Progress = Callable[[int], object]

WAIT_S = 5.0
"""Seconds to wait for whoever writes to the lake."""
_FEW: Final = 8
"""So many small fragments are not worth writing a table anew."""
_FRAGMENT_BYTES: Final = 128 << 20
_READ_ROWS: Final = 8192
_IDS = re.compile(rb"[a-z2-7]{26}")


@dataclass(frozen=True)
class Compacted:
    """What a compaction did, or would do."""

    documents: int
    """Withdrawn documents that were not forgotten yet."""
    rejects: int
    """Rejected rows of their corpora."""
    tables: tuple[str, ...]
    """Tables that are written anew."""
    snapshots: tuple[int, ...]
    """Snapshots that cannot be read any more."""
    reports: tuple[str, ...]
    """Files in `reports/` that quote the documents."""
    bytes: int
    """Size of the files that go; what stays of their rows is written anew."""


@dataclass(frozen=True)
class _Plan:
    """What there is to do at a snapshot."""

    at: Snapshot
    named: Mapping[str, Named]
    remains: Remains
    tainted: Mapping[str, frozenset[str]]
    rewrite: tuple[str, ...]
    erase: tuple[int, ...]

    def kept_versions(self, table: str, snapshots: list[Snapshot]) -> set[int]:
        """Return the versions of a table that snapshots which stay name."""
        return {one.versions[table] for one in snapshots if one.has(table) and one.snapshot_id not in self.erase}


def compact(
    lake: LakeStore, *, forget: bool = False, dry_run: bool = False, progress: Progress = lambda _n: None
) -> Compacted:
    """Compact a lake and, with `forget`, erase what is left of withdrawn documents; return what that does.

    A dry run only says what it would do. Raises LakeBusyError while anybody writes to the lake, CatalogError while
    somebody reads the catalog for long, DamagedLakeError for a data file that cannot be read.
    """
    if dry_run:
        return _told(lake, _plan(lake, forget=forget))
    with lease(lake.catalog, ALONE, wait_s=WAIT_S) as held:
        require_no_workers(lake.catalog)
        with recorded_run(lake.catalog, "compact", {"forget": forget}) as run:
            done = _rewrite(lake, run, held, forget=forget, progress=progress)
            rebuild_indexes(lake, held)
            plan = _plan(lake, forget=forget)
            _erase_snapshots(lake, held, plan)
            _remove_work(lake)
            remove_sums(lake, finished=forget and unforgotten(lake.catalog) > 0)
            for report in _reports(lake, plan.remains):
                remove(report)
            for table in plan.named:
                held.renew()  # who lost the lock meanwhile must not remove what others are writing
                _clean(lake, plan, table)
            _require_clean(lake, plan)
            if forget:
                forget_keys(lake, held)
                lake.catalog.vacuum()
            run.counts = {name: value for name, value in asdict(done).items() if not isinstance(value, tuple)}
            run.counts |= {"tables": list(done.tables), "snapshots": list(done.snapshots)}
    return done


def _plan(lake: LakeStore, *, forget: bool) -> _Plan:
    at = latest_snapshot(lake.catalog)
    named = {table: named_files(lake, table) for table in tables_on_disk(lake)}
    remains = find_remains(lake, at, named) if forget else Remains({}, frozenset())
    tainted = {
        table: tainted_files(lake, table, remains.staying[table], named[table])
        for table in named
        if table in remains.staying
    }

    def is_tainted(table: str, version: int) -> bool:
        return bool(named.get(table, {}).get(version, frozenset()) & tainted.get(table, frozenset()))

    versions = sorted(at.versions.items())
    rewrite = [table for table, version in versions if is_tainted(table, version) or _is_in_pieces(lake, table, at)]
    erase = [
        one.snapshot_id
        for one in readable_snapshots(lake.catalog)
        if any(is_tainted(table, version) for table, version in one.versions.items())
    ]
    return _Plan(at, named, remains, tainted, tuple(rewrite), tuple(erase))


def _is_in_pieces(lake: LakeStore, table: str, at: Snapshot) -> bool:
    """Return whether a table has many more fragments than its size needs; an index is not worth losing for that."""
    if table.startswith("index_"):
        return False
    fragments = lake.table(table, at=at).get_fragments()
    sizes = files_on_disk(lake, table)
    size = sum(sizes.get(f"data/{file.path}", 0) for fragment in fragments for file in fragment.data_files())
    return len(fragments) > _FEW + 2 * (size // _FRAGMENT_BYTES)


def _told(lake: LakeStore, plan: _Plan) -> Compacted:
    return Compacted(
        documents=unforgotten(lake.catalog) if plan.remains.staying else 0,
        rejects=_rejects(lake, plan),
        tables=plan.rewrite,
        snapshots=plan.erase,
        reports=tuple(path.name for path in _reports(lake, plan.remains)),
        bytes=_bytes_going(lake, plan),
    )


def _rejects(lake: LakeStore, plan: _Plan) -> int:
    staying = plan.remains.staying.get("rejects")
    if staying is None:
        return 0
    corpora = lake.table("rejects", at=plan.at).to_table(columns=["corpus"])["corpus"]
    return int(len(corpora) - staying.mask(corpora).to_numpy().sum())


def _bytes_going(lake: LakeStore, plan: _Plan) -> int:
    snapshots, going = readable_snapshots(lake.catalog), 0
    for table, versions in plan.named.items():
        kept = plan.kept_versions(table, snapshots)
        if table in plan.at.versions and table not in plan.rewrite:
            kept.add(plan.at.versions[table])
        staying = {name for version in kept for name in versions.get(version, frozenset())}
        going += sum(size for name, size in files_on_disk(lake, table).items() if name not in staying)
    return going


def _rewrite(lake: LakeStore, run: models.Run, held: Lease, *, forget: bool, progress: Progress) -> Compacted:
    """Publish what stays of the tables that have to be written anew, in one snapshot; return what is to be done."""
    with committing(lake, under=[held]) as committer:
        plan = _plan(lake, forget=forget)
        told = _told(lake, plan)
        if plan.rewrite:
            committer.publish(run.run_id, [_rewritten(lake, plan, table, progress) for table in plan.rewrite])
    return told


def _rewritten(lake: LakeStore, plan: _Plan, table: str, progress: Progress) -> Change:
    stored = lake.table(table, at=plan.at)
    if table.startswith("index_"):  # its vectors are copies, and its index knows the withdrawn ones
        return Change(table, schema=stored.schema)
    staying, batches = plan.remains.staying.get(table), list[WrittenBatch]()
    mask = _mask(stored, staying) if staying else None

    def kept() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in stored.scanner(batch_size=_READ_ROWS, scan_in_order=True).to_batches():
            progress(batch.num_rows)
            yield batch if mask is None else batch.filter(mask.slice(start, batch.num_rows))
            start += batch.num_rows

    for rows in _in_fragments(kept()):
        batches.append(write_batch(lake, table, rows, schema=stored.schema))
    return Change(table, tuple(batches), schema=stored.schema)


def _mask(stored: lance.LanceDataset, staying: Staying) -> pa.Array:
    """Return for the rows of a table, in order, whether they stay."""
    column = stored.scanner(columns=[staying.column], scan_in_order=True).to_table()[staying.column]
    return staying.mask(column.combine_chunks())


def _in_fragments(read: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield rows in tables of the size of a fragment."""
    some, n_bytes = list[pa.RecordBatch](), 0
    for batch in read:
        if batch.num_rows:
            some.append(batch)
            n_bytes += batch.nbytes
        if n_bytes >= _FRAGMENT_BYTES:
            yield pa.Table.from_batches(some)
            some, n_bytes = [], 0
    if some:
        yield pa.Table.from_batches(some)


def rebuild_indexes(lake: LakeStore, held: Lease) -> None:
    """Build the indexes anew that were emptied, by this run or by one that was killed."""
    at = latest_snapshot(lake.catalog)
    with lake.catalog.read() as session:
        encoders = session.scalars(select(models.Encoder).order_by(models.Encoder.name)).all()
    for encoder in encoders:
        table = index_table(encoder.name)
        emptied = at.has(table) and not lake.table(table, at=at).describe_indices()
        if emptied and len(encoded_texts(lake, at, encoder.name)):
            build_index(lake, encoder, under=[held])
    if had_column_indexes(lake):
        build_column_indexes(lake, under=[held])
    if had_full_text(lake) and not has_full_text(lake, at) and lake.table("passages", at=at).count_rows():
        build_full_text(lake, under=[held])


def _erase_snapshots(lake: LakeStore, held: Lease, plan: _Plan) -> None:
    with lake.catalog.write() as session:
        held.confirm(session)
        gone = update(models.Snapshot).where(models.Snapshot.snapshot_id.in_(plan.erase))
        session.execute(gone.values(erased_at=models.now()))


def _remove_work(lake: LakeStore) -> None:
    """Remove what runs laid out for their workers; all of them are over, or they would hold a lock."""
    remove_all_units(lake.catalog)
    remove(lake.work_dir)


def _reports(lake: LakeStore, remains: Remains) -> list[LakePath]:
    """Return the files in `reports/` that name a withdrawn passage; a report names every passage that it quotes."""
    if not remains.passage_ids:
        return []
    files = [lake.reports_dir / name for name in sorted(sizes_below(lake.reports_dir))]

    def quoted(file: LakePath) -> set[str]:
        return {found.decode() for found in _IDS.findall(b"".join(chunks_of(file)))}

    return [file for file in files if remains.passage_ids & quoted(file)]


def _clean(lake: LakeStore, plan: _Plan, table: str) -> None:
    """Remove the versions of a table that no snapshot names, and every file that no other version names."""
    dataset = lake.table(table)
    published = plan.at.versions.get(table)
    if published is not None and dataset.version != published:  # an index that was built and never published, say
        dataset.checkout_version(published).restore()  # type: ignore[no-untyped-call]
        dataset = lake.table(table)
    snapshots = readable_snapshots(lake.catalog)
    set_tags(lake, table, snapshots)  # first, since no tagged version may be removed
    kept = plan.kept_versions(table, snapshots) | {dataset.version}
    versions = [one["version"] for one in dataset.versions()]
    gone = [version for version in versions if version not in kept]
    which: dict[str, Any] = {"versions": gone} if gone else {"retain_versions": len(versions)}
    dataset.cleanup_old_versions(delete_unverified=True, **which)


def _require_clean(lake: LakeStore, plan: _Plan) -> None:
    """Raise DamagedLakeError when a file is left that should have gone."""
    for table in plan.named:
        named = {name for names in named_files(lake, table).values() for name in names}
        left = (files_on_disk(lake, table).keys() - named) | (named & plan.tainted.get(table, frozenset()))
        if left:
            raise DamagedLakeError(f"{lake.table_dir(table) / min(left)} could not be removed; start again")
