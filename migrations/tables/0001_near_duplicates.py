"""The table of near-duplicates, which lakes of the first release do not have."""

from proponent.store.lake import LakeStore
from proponent.store.leases import Lease
from proponent.store.snapshots import latest_snapshot

from .plan import Plan

_TABLE = "near_duplicates"


def plan(lake: LakeStore, _held: Lease) -> Plan:
    """Make the table."""
    if latest_snapshot(lake.catalog).has(_TABLE):
        return Plan()
    lake.create_table(_TABLE)
    return Plan(adopt=(_TABLE,))
