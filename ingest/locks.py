"""Locks of work that reads every corpus."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.store.lake import LakeStore
from proponent.store.leases import Lease, lease


@contextmanager
def holding_corpora(lake: LakeStore, *also: str, wait_s: float) -> Iterator[list[Lease]]:
    """Hold the locks of all corpora, and others before them, so that no document comes or goes in a with block.

    Raises LakeBusyError when one of them is still held after `wait_s` seconds.
    """
    with lake.catalog.read() as session:
        corpora = list(session.scalars(select(models.Corpus.name).order_by(models.Corpus.name)))
    names = [*also, *(f"ingest {corpus}" for corpus in corpora)]
    with ExitStack() as held:
        yield [held.enter_context(lease(lake.catalog, name, wait_s=wait_s)) for name in names]
