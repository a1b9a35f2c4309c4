"""Tags in Lance: which version of a table a snapshot names, for tools that do not know the catalog.

Notable: a publication tags the tables that it changes, before its snapshot is visible, so that no snapshot is without
its tags and a publication that is carried out again sets the same ones. Lance keeps tagged versions when it cleans up.
"""

import re
from collections.abc import Collection

import lance

from .lake import LakeStore

_NAME = re.compile(r"snapshot-(\d+)")


def tag(lake: LakeStore, table: str, *, snapshot_id: int, version: int) -> None:
    """Tag a version of a table with a snapshot's number, whatever that tagged before."""
    tags, name = lake.table(table).tags, f"snapshot-{snapshot_id}"
    try:
        tags.create(name, version)
    except ValueError:  # it is there: a publication that was cut short got the same number
        tags.update(name, version)


def tagged(dataset: lance.LanceDataset) -> dict[int, int]:
    """Return the version of a table that each snapshot's tag names, by the snapshot's number."""
    found = {_NAME.fullmatch(name): entry["version"] for name, entry in dataset.tags.list().items()}
    return {int(match[1]): int(version) for match, version in found.items() if match}


def remove_tags(dataset: lance.LanceDataset, *, kept: Collection[int]) -> None:
    """Remove the tags of snapshots other than some."""
    for snapshot_id in tagged(dataset).keys() - set(kept):
        dataset.tags.delete(f"snapshot-{snapshot_id}")
