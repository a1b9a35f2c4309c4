"""Going back: documents as the newest snapshot had them whose files are sound, for who has no backup.

Notable: what came later is lost, so nobody does this unasked; and nothing that was withdrawn comes back, so a snapshot
from before a withdrawal is none to go back to.
"""

from typing import Final

from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.errors import DamagedLakeError, InputError
from proponent.store.commit import committing
from proponent.store.files import names_of
from proponent.store.lake import LakeStore
from proponent.store.leases import ALONE, lease
from proponent.store.runs import recorded_run
from proponent.store.snapshots import Snapshot, latest_snapshot, readable_snapshots
from proponent.store.units import require_no_workers

from . import Progress, check
from .findings import Finding

OF_DOCUMENTS: Final = ("documents", "passages", "mentions", "near_duplicates")
"""Tables that go back together, since their rows refer to each other."""
_WAIT_S = 5.0


def go_back(lake: LakeStore, *, progress: Progress = lambda _n: None) -> Finding:
    """Publish the documents, passages and mentions of the newest snapshot whose files of them are sound.

    Raises InputError when those of the newest snapshot are, DamagedLakeError when there is no snapshot to go back to,
    LakeBusyError while anybody writes to the lake.
    """
    found = [one for one in check(lake, deep=True, progress=progress) if one.table in OF_DOCUMENTS]
    damaged = {(one.table, name) for one in found if one.kind in ("rows", "deletions", "version") for name in one.names}
    newest = latest_snapshot(lake.catalog)
    if _is_sound(lake, newest, damaged):
        raise InputError("the files of the newest snapshot's documents are sound; there is nothing to go back from")
    then = next((one for one in reversed(readable_snapshots(lake.catalog)) if _is_sound(lake, one, damaged)), None)
    if then is None or then.snapshot_id == 1:
        raise DamagedLakeError("no snapshot has documents whose files are sound; restore from a backup")
    _require_nothing_withdrawn(lake, then)
    with lease(lake.catalog, ALONE, wait_s=_WAIT_S) as held:
        require_no_workers(lake.catalog)
        described = {"kinds": ["go back"], "snapshot": then.snapshot_id}
        with recorded_run(lake.catalog, "repair", described) as run, committing(lake, under=[held]) as committer:
            tables = [table for table in OF_DOCUMENTS if then.has(table)]
            for table in tables:
                dataset = lake.opened(table, then.versions[table])
                dataset.restore()  # type: ignore[no-untyped-call]
            migration = then.table_migration
            committer.publish(run.run_id, [], adopt=tables, rows_as_at=then, table_migration=migration)
    what = f"documents are as snapshot {then.snapshot_id} had them; ingest again what came later"
    return Finding("mended", "went back", ", ".join(tables), what, "none needed", "documents")


def _is_sound(lake: LakeStore, at: Snapshot, damaged: set[tuple[str, str]]) -> bool:
    for table in OF_DOCUMENTS:
        version = at.versions.get(table)
        if version is None:
            continue
        if (table, str(version)) in damaged:
            return False
        names = names_of(lake.opened(table, version))
        if any((table, name) in damaged for name in names):
            return False
    return True


def _require_nothing_withdrawn(lake: LakeStore, then: Snapshot) -> None:
    later = (
        select(models.Withdrawal.doc_id)
        .join(models.Snapshot, models.Snapshot.run_id == models.Withdrawal.run_id)
        .where(models.Snapshot.snapshot_id > then.snapshot_id)
        .limit(1)
    )
    with lake.catalog.read() as session:
        if session.scalars(later).first() is not None:
            raise DamagedLakeError(
                f"snapshot {then.snapshot_id}, the newest whose documents are sound, has documents that were withdrawn "
                "since; restore from a backup"
            )
