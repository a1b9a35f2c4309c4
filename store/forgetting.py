"""What the catalog says of withdrawn documents, taken back to what keeps them out: the hash of their key.

What people typed stays: prompts, targets, filters, and the reasons for withdrawals.
"""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from proponent.schema import catalog as models

from .catalog import Catalog
from .files import files_on_disk, tables_on_disk
from .lake import LakeStore
from .leases import Lease
from .place import sizes_below

_QUOTING = ("reject_reasons", "first_unread_date")
"""Counts of an ingest that quote rows."""


def unforgotten(catalog: Catalog) -> int:
    """Return how many withdrawn documents the catalog still names."""
    named = select(func.count(models.Withdrawal.doc_id.distinct())).where(models.Withdrawal.doc_key.is_not(None))
    with catalog.read() as session:
        return session.scalar(named) or 0


def forget_keys(lake: LakeStore, held: Lease) -> None:
    """Remove the keys of withdrawn documents from the catalog, and what it quotes of rejected rows of their corpora."""
    with lake.catalog.write() as session:
        held.confirm(session)
        withdrawn = session.scalars(select(models.Withdrawal)).all()
        _forget_rejects(session, {one.corpus for one in withdrawn})
        of_runs = select(models.Publication).where(models.Publication.run_id.in_({one.run_id for one in withdrawn}))
        for publication in session.scalars(of_runs):  # it is published, and its rows are in their tables
            publication.plan = publication.plan | {"rows": [], "amend": []}
        session.execute(update(models.Withdrawal).values(doc_key=None))
        _forget_batches(lake, session)


def _forget_rejects(session: Session, corpora: set[str]) -> None:
    for run in session.scalars(select(models.Run).where(models.Run.kind == "ingest")):
        if run.settings.get("corpus") in corpora:
            run.counts = {name: value for name, value in run.counts.items() if name not in _QUOTING}
            run.error = run.error and run.error.partition(":")[0]


def _forget_batches(lake: LakeStore, session: Session) -> None:
    """Remove the hashes of files that are gone, which nobody can compare with them any more."""
    left = {table: files_on_disk(lake, table).keys() for table in tables_on_disk(lake)}
    for batch in session.scalars(select(models.Batch)):
        if not any(f"data/{file}" in left.get(batch.table_name, ()) for file in batch.files):
            session.delete(batch)
    here = {table: sizes_below(lake.table_dir(table)).keys() for table in left}
    for stored in session.scalars(select(models.StoredFile)):
        if stored.path not in here.get(stored.table_name, ()):
            session.delete(stored)
