"""Indexes on the columns of the lake's tables that single rows are asked for by, in SQL and in filters.

Notable: an index pays where a query names one value and DuckDB hands that on to Lance. On ids that only joins and long
lists name, indexes were measured and did not help; on dates, of which queries name half, they cost more than they gain.
They are built outside the commit lock, and rows that came later are found without them.
"""

from collections.abc import Sequence
from typing import Any, Final

import lance
from sqlalchemy import select

from proponent.schema import catalog as models

from .commit import committing, finish_interrupted
from .lake import LakeStore
from .leases import Lease, lease
from .runs import recorded_run
from .snapshots import Snapshot, latest_snapshot

INDEXED: Final = {"documents": "source", "passages": "passage_id", "mentions": "entity"}
"""The indexed column of each table."""
_KINDS: Final = {"source": "BITMAP"}
"""Lance's kind of index of a column; a B-tree for all others."""
KIND: Final = "columns"
_MOST_SEGMENTS: Final = 8
"""Segments above which an index is built anew: a search goes through each."""
_WAIT_S: Final = 5.0


def build_column_indexes(lake: LakeStore, *, under: Sequence[Lease] = ()) -> dict[str, int]:
    """Index the columns of `INDEXED`, or the rows that are not indexed yet; return how many were added by table.

    `under` are locks that are held already. Publishes nothing when there is nothing to do. Raises LakeBusyError while
    another process does the same.
    """
    added: dict[str, int] = {}
    with lease(lake.catalog, "index columns", wait_s=_WAIT_S, under=under) as held:
        finish_interrupted(lake)
        at = latest_snapshot(lake.catalog)
        work = {table: fragments for table in INDEXED if (fragments := _to_index(lake, at, table))}
        if not work:
            return {}
        with recorded_run(lake.catalog, "index", {"kind": KIND}) as run:
            for table, fragments in work.items():
                dataset, column = lake.table(table, at=at), INDEXED[table]
                segment = dataset.create_index_uncommitted(
                    column, _KINDS.get(column, "BTREE"), name=_name(column), replace=True, fragment_ids=fragments
                )
                with committing(lake, under=[*under, held]) as committer:
                    newest = committer.as_published(table)
                    newest.commit_existing_index_segments(_name(column), column, [segment])
                    committer.publish(run.run_id, [], adopt=[table])
                added[table] = sum(
                    one.count_rows() for one in dataset.get_fragments() if one.fragment_id in set(fragments)
                )
            run.counts = dict(added)
    return added


def had_column_indexes(lake: LakeStore) -> bool:
    """Return whether they were ever built; writing a table anew loses its index."""
    runs = select(models.Run).where(models.Run.kind == "index")
    with lake.catalog.read() as session:
        return any(run.settings.get("kind") == KIND for run in session.scalars(runs))


def _name(column: str) -> str:
    return f"by_{column}"


def _described(dataset: lance.LanceDataset, column: str) -> Any | None:
    return next((index for index in dataset.describe_indices() if index.name == _name(column)), None)


def _to_index(lake: LakeStore, at: Snapshot, table: str) -> list[int]:
    """Return the numbers of the fragments that a new segment has to cover: all, where there are too many segments."""
    dataset = lake.table(table, at=at)
    described = _described(dataset, INDEXED[table])
    there = [fragment.fragment_id for fragment in dataset.get_fragments()]
    segments = described.segments if described else []
    covered = {number for segment in segments for number in segment.fragment_ids}
    new = [number for number in there if number not in covered]
    return there if new and len(segments) >= _MOST_SEGMENTS else new
