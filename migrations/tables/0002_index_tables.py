"""Index tables without vectors.

The first release kept an index's vectors beside it, in a column that could not be null. Such an index is not used any
more; its table is emptied here, and the next migration builds it anew.
"""

from proponent.schema.errors import NotFoundError
from proponent.store.commit import Change
from proponent.store.lake import LakeStore
from proponent.store.leases import Lease
from proponent.store.snapshots import Snapshot, latest_snapshot

from .plan import Plan


def plan(lake: LakeStore, _held: Lease) -> Plan:
    """Empty the index tables of the former form."""
    at = latest_snapshot(lake.catalog)
    return Plan(tuple(Change(table, schema=lake.schema(table)) for table in at.versions if _is_former(lake, at, table)))


def _is_former(lake: LakeStore, at: Snapshot, table: str) -> bool:
    if not table.startswith("index_"):
        return False
    try:
        lake.schema(table)
    except NotFoundError:  # nothing in the catalog says what it is for; `check` tells
        return False
    return not lake.table(table, at=at).schema.field("vector").nullable
