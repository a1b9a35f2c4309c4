"""Mending what a check has found, as far as nothing has to be guessed.

Notable: what can be made again (encodings, norms, indexes) is removed where it is damaged; documents, passages and what
people asked cannot, and stay as they are. Files are removed by who holds the lake alone, and only those that a check
finds anew then.
"""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from proponent.schema import catalog as models
from proponent.store.commit import Change, committing
from proponent.store.compaction import rebuild_indexes
from proponent.store.lake import LakeStore
from proponent.store.leases import ALONE, Lease, is_alive, lease
from proponent.store.place import names_in, remove
from proponent.store.rows import in_lists
from proponent.store.runs import recorded_run
from proponent.store.snapshots import latest_snapshot, readable_snapshots
from proponent.store.tags import set_tags
from proponent.store.units import require_no_workers

from . import Progress, check
from .artifacts import artifact_names
from .facts import read_facts
from .findings import Finding, is_derived
from .tables import orphans

_WAIT_S = 5.0
_MOST_ROUNDS = 3


def repair(lake: LakeStore, *, deep: bool = False, progress: Progress = lambda _n: None) -> list[Finding]:
    """Mend what can be mended; return what was done, as findings of grade `mended`, and what is still wrong.

    Raises LakeBusyError while anybody writes to the lake.
    """
    mended = list[Finding]()
    for _ in range(_MOST_ROUNDS):  # without damaged encodings, the vectors that an index has of them are too many
        found = check(lake, deep=deep, progress=progress)
        done = _round(lake, [finding for finding in found if _can_mend(finding)])
        if not done:
            return mended + found
        mended += done
    return mended + check(lake, deep=deep, progress=progress)


def _can_mend(finding: Finding) -> bool:
    return finding.kind in _MENDS and (finding.kind not in _OF_ROWS or is_derived(finding.table))


def _round(lake: LakeStore, mendable: Sequence[Finding]) -> list[Finding]:
    if not mendable:
        return []
    mended = list[Finding]()
    with lease(lake.catalog, ALONE, wait_s=_WAIT_S) as held:
        require_no_workers(lake.catalog)
        with recorded_run(lake.catalog, "repair", {"kinds": sorted({finding.kind for finding in mendable})}) as run:
            with committing(lake, under=[held]):
                pass  # finishes what was being published
            for kind, mend in _MENDS.items():
                some = [finding for finding in mendable if finding.kind == kind]
                mended += mend(lake, run, held, some) if some else []
            if any(finding.table.startswith("index_") for finding in mended):
                rebuild_indexes(lake, held)
            run.counts = {"mended": len(mended)}
    return mended


def _mended(finding: Finding, what: str) -> Finding:
    return Finding("mended", finding.kind, finding.where, what, "none needed", finding.table, finding.names)


Mend = Callable[[LakeStore, models.Run, Lease, Sequence[Finding]], Iterator[Finding]]


def _finished(lake: LakeStore, _run: models.Run, _held: Lease, found: Sequence[Finding]) -> Iterator[Finding]:
    with lake.catalog.read() as session:
        for finding in found:
            done = session.get_one(models.Publication, finding.names[0]).snapshot_id
            if done is not None:
                yield _mended(finding, f"finished: it is snapshot {done}")


def _unlocked(lake: LakeStore, _run: models.Run, _held: Lease, found: Sequence[Finding]) -> Iterator[Finding]:
    for finding in found:
        with lake.catalog.write() as session:
            lock = session.get(models.Lock, finding.names[0])
            if lock is not None and not is_alive(lock):
                session.delete(lock)
        yield _mended(finding, "removed")


def _tagged(lake: LakeStore, _run: models.Run, _held: Lease, found: Sequence[Finding]) -> Iterator[Finding]:
    snapshots = readable_snapshots(lake.catalog)
    for finding in found:
        tags = lake.table_dir(finding.table) / "_refs" / "tags"
        for name in names_in(tags):
            if name.startswith("snapshot-"):
                remove(tags / name)  # one that cannot be read keeps the others from being listed
        set_tags(lake, finding.table, snapshots)
        yield _mended(finding, "set again")


def _without_rows(lake: LakeStore, run: models.Run, held: Lease, found: Sequence[Finding]) -> Iterator[Finding]:
    """Drop the fragments of derived tables whose rows are wrong; an index's vectors go altogether, with their index."""
    at = latest_snapshot(lake.catalog)
    for table in sorted({finding.table for finding in found if at.has(finding.table)}):
        damaged = {name for finding in found if finding.table == table for name in finding.names}
        stored = lake.table(table, at=at)
        if table.startswith("index_"):
            changes, what = [Change(table, schema=stored.schema)], "emptied"
        else:
            drop = [
                fragment.fragment_id
                for fragment in stored.get_fragments()
                if fragment.deletion_file() in damaged
                or any(f"data/{file.path}" in damaged for file in fragment.data_files())
            ]
            rows = sum(fragment.physical_rows for fragment in stored.get_fragments() if fragment.fragment_id in drop)
            changes, what = [Change(table, drop=tuple(drop))] if drop else [], f"removed, {rows:,} rows of it"
        if not changes:
            continue
        with committing(lake, under=[held]) as committer:
            committer.publish(run.run_id, changes)
        for finding in found:
            if finding.table == table:
                yield _mended(finding, what)


def _without_texts(lake: LakeStore, run: models.Run, held: Lease, found: Sequence[Finding]) -> Iterator[Finding]:
    """Delete rows of derived tables that are there twice, or that were made of encodings which are gone."""
    for finding in found:
        column, *ids = finding.names
        predicates = tuple(in_lists(column, pa.array(ids, pa.string())))
        with committing(lake, under=[held]) as committer:
            committer.publish(run.run_id, [Change(finding.table, delete=predicates)])
        yield _mended(finding, f"removed, {len(ids):,} texts of it")


def _without_index(lake: LakeStore, run: models.Run, held: Lease, found: Sequence[Finding]) -> Iterator[Finding]:
    """Drop damaged indexes; one over an encoder's vectors is built again afterwards."""
    at = latest_snapshot(lake.catalog)
    for finding in found:
        if not at.has(finding.table):
            continue
        with committing(lake, under=[held]) as committer:
            dataset = lake.table(finding.table)
            damaged = {name.removeprefix("_indices/") for name in finding.names}
            names = [
                index.name
                for index in dataset.describe_indices()
                if damaged & {str(segment.uuid) for segment in index.segments}
            ]
            for name in names:
                dataset.drop_index(name)
            if names:
                committer.publish(run.run_id, [], adopt=[finding.table])
        if names:
            again = "built again" if finding.table.startswith("index_") else "`proponent index` builds it again"
            yield _mended(finding, f"dropped index {', '.join(names)}; {again}")


def _with_indexes(_lake: LakeStore, _run: models.Run, _held: Lease, found: Sequence[Finding]) -> Iterator[Finding]:
    yield from (_mended(finding, "built again") for finding in found)


def _put_back(lake: LakeStore, _run: models.Run, held: Lease, found: Sequence[Finding]) -> Iterator[Finding]:
    at = latest_snapshot(lake.catalog)
    with committing(lake, under=[held]):
        for finding in found:
            dataset, published = lake.table(finding.table), at.versions.get(finding.table)
            if published is not None and dataset.version != published:
                dataset.checkout_version(published).restore()  # type: ignore[no-untyped-call]
                yield _mended(finding, f"put back to version {published}")


def _without_orphans(lake: LakeStore, _run: models.Run, held: Lease, found: Sequence[Finding]) -> Iterator[Finding]:
    """Remove files that no version names, of those that were found, now that nobody can be writing any."""
    facts = read_facts(lake.catalog)
    for finding in found:
        held.renew()  # who lost the lock meanwhile must not remove what others are writing
        folder = lake.table_dir(finding.table)
        going = [folder / name for name in orphans(lake, facts, finding.table) if name in finding.names]
        for path in going:
            remove(path)
        yield _mended(finding, f"removed, {len(going)} files")


def _without_others(lake: LakeStore, _run: models.Run, held: Lease, found: Sequence[Finding]) -> Iterator[Finding]:
    """Remove artifacts and worklists that nobody names, of those that were found."""
    facts = read_facts(lake.catalog)
    kept = artifact_names(facts) | {unit.run_id for unit in facts.rows["units"]}
    for finding in found:
        held.renew()
        folder = lake.work_dir if finding.kind == "work" else lake.artifacts_dir
        going = [folder / name for name in finding.names if name not in kept]
        for path in going:
            remove(path)
        yield _mended(finding, f"removed, {len(going)} of them")


_MENDS: dict[str, Mend] = {
    "publication": _finished,
    "lock": _unlocked,
    "rows": _without_rows,
    "deletions": _without_rows,
    "repeated": _without_texts,
    "references": _without_texts,
    "index": _without_index,
    "no index": _with_indexes,
    "unpublished": _put_back,
    "orphans": _without_orphans,
    "artifact orphans": _without_others,
    "work": _without_others,
    "tags": _tagged,
}
"""What mends each kind of finding, in this order."""
_OF_ROWS = ("rows", "deletions", "repeated", "references")
"""Kinds that are mended where the rows can be made again."""
