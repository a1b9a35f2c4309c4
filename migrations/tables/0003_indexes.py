"""Indexes for the tables that were emptied, and tags for the snapshots from before there were any."""

from proponent.store.compaction import rebuild_indexes
from proponent.store.lake import LakeStore
from proponent.store.leases import Lease
from proponent.store.snapshots import latest_snapshot, readable_snapshots
from proponent.store.tags import set_tags

from .plan import Plan


def plan(lake: LakeStore, held: Lease) -> Plan:
    """Build the indexes, which are published one by one, and set the tags."""
    rebuild_indexes(lake, held)
    snapshots = readable_snapshots(lake.catalog)
    for table in latest_snapshot(lake.catalog).versions:
        set_tags(lake, table, snapshots)
    return Plan()
