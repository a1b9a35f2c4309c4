"""Tags in Lance: which version of a table a snapshot names, for tools that do not know the catalog.

Notable: a publication tags the tables that it changes, before its snapshot is visible, so that no snapshot is without
its tags and a publication that is carried out again sets the same ones. Lance keeps tagged versions when it cleans up.
"""

import re
from collections.abc import Sequence

import lance

from .lake import LakeStore
from .snapshots import Snapshot

_NAME = re.compile(r"snapshot-(\d+)")


def tag(dataset: lance.LanceDataset, *, snapshot_id: int, version: int) -> None:
    """Tag a version of a table with a snapshot's number, whatever that tagged before."""
    tags, name = dataset.tags, f"snapshot-{snapshot_id}"
    try:
        tags.create(name, version)
    except ValueError:  # it is there: a publication that was cut short got the same number
        tags.update(name, version)


def tagged(dataset: lance.LanceDataset) -> dict[int, int]:
    """Return the version of a table that each snapshot's tag names, by the snapshot's number."""
    found = {_NAME.fullmatch(name): entry["version"] for name, entry in dataset.tags.list().items()}
    return {int(match[1]): int(version) for match, version in found.items() if match}


def wanted_tags(snapshots: Sequence[Snapshot], table: str) -> dict[int, int]:
    """Return the version that each snapshot's tag has to name, for the first snapshot with each version.

    The very first snapshot, of a lake that was just made, has none.
    """
    wanted, before = dict[int, int](), None
    for snapshot in snapshots:
        version = snapshot.versions.get(table)
        if version is not None and version != before and snapshot.snapshot_id > 1:
            wanted[snapshot.snapshot_id] = version
        before = version
    return wanted


def set_tags(lake: LakeStore, table: str, snapshots: Sequence[Snapshot]) -> None:
    """Make the tags of a table those of the snapshots that can be read."""
    dataset, wanted = lake.table(table), wanted_tags(snapshots, table)
    found, right = tagged(dataset), {one.snapshot_id: one.versions.get(table) for one in snapshots}
    for snapshot_id, version in found.items():
        if right.get(snapshot_id) != version:
            dataset.tags.delete(f"snapshot-{snapshot_id}")
    for snapshot_id, version in wanted.items():
        if found.get(snapshot_id) != version:
            tag(dataset, snapshot_id=snapshot_id, version=version)
