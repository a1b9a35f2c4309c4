"""Documents that were withdrawn: hidden in every snapshot from before, whatever its files still hold."""

import pyarrow as pa
from sqlalchemy import select

from proponent.schema import catalog as models

from .catalog import Catalog
from .snapshots import Snapshot


def hidden_documents(catalog: Catalog, at: Snapshot) -> pa.Array:
    """Return the ids of the documents that a snapshot has and nobody may see any more."""
    later = (
        select(models.Withdrawal.doc_id)
        .join(models.Snapshot, models.Snapshot.run_id == models.Withdrawal.run_id)
        .where(models.Snapshot.snapshot_id > at.snapshot_id)
        .distinct()
    )
    with catalog.read() as session:
        return pa.array(session.scalars(later).all(), pa.string())


def withdrawn_documents(catalog: Catalog, corpus: str) -> set[str]:
    """Return the ids of a corpus's documents that were withdrawn."""
    with catalog.read() as session:
        return set(session.scalars(select(models.Withdrawal.doc_id).where(models.Withdrawal.corpus == corpus)))
