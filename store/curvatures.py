"""Norms of stored encodings under a curvature: one number for every text, in a table of each curvature's own.

Notable: a curvature's id is a hash of all that it was fitted from, the encoder's fitted state included, and a text's
encoding by one encoder in one format of codes never changes. So a norm, once computed, is right at every snapshot,
older ones too, and none is ever stale: norms are read at the newest snapshot whatever snapshot is searched, and only
missing ones are computed. Vectors that are stored anew in another format get norms of their own. In memory they are one
array in the order of the encodings, where NaN stands for what is missing.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.tables import NORMS, codes_of, encodings_table, norms_table

from .commit import Changes, committing, finish_interrupted, write_batch
from .lake import LakeStore
from .matching import matched, which_are_in
from .runs import recorded_run
from .scan import unit_vectors
from .snapshots import Snapshot, latest_snapshot

PUBLISH_EVERY: Final = 1 << 20
"""Norms that are computed before they are published; a fill that is killed loses at most so many."""

NormsOf = Callable[[np.ndarray], np.ndarray]
"""Norms (n,) float32 of unit vectors (n, d) float32 under a curvature."""


def fill_norms(
    lake: LakeStore,
    at: Snapshot,
    *,
    encoder: str,
    curvature_id: str,
    norms_of: NormsOf,
    progress: Callable[[int], object] = lambda _n: None,
) -> int:
    """Compute and publish the norms that a snapshot's encodings lack; return how many were computed.

    Raises LakeBusyError when another process keeps the commit lock.
    """
    if not at.has(encodings_table(encoder)):
        return 0
    finish_interrupted(lake)
    missing = _missing(stored_norms(lake, at, encoder=encoder, curvature_id=curvature_id))
    encodings = lake.table(encodings_table(encoder), at=at)
    table = norms_table(curvature_id, codes_of(encodings.schema))
    found: list[pa.Table] = []
    for hashes, unit in unit_vectors(encodings, rows=missing):
        found.append(pa.table([hashes, norms_of(unit)], schema=NORMS))
        progress(len(hashes))
        if sum(part.num_rows for part in found) >= PUBLISH_EVERY:
            _publish(lake, encoder, table, pa.concat_tables(found))
            found = []
    if found:
        _publish(lake, encoder, table, pa.concat_tables(found))
    return int(missing.true_count)


def stored_norms(lake: LakeStore, at: Snapshot, *, encoder: str, curvature_id: str) -> np.ndarray:
    """Return the norms of a snapshot's encodings that are stored: (n,) float32 in stored order, NaN for others."""
    encodings, newest = lake.table(encodings_table(encoder), at=at), latest_snapshot(lake.catalog)
    table = norms_table(curvature_id, codes_of(encodings.schema))
    norms = np.full(encodings.count_rows(), np.nan, np.float32)
    if newest.has(table):
        reader = lake.table(table, at=newest).scanner(columns=NORMS.names).to_reader()
        for batch in matched(encodings, reader):
            norms[batch.column("place").to_numpy()] = batch.column("norm").to_numpy()
    return norms


def known_norms(
    lake: LakeStore, at: Snapshot, *, encoder: str, curvature_id: str, rows: pa.BooleanArray | None, norms_of: NormsOf
) -> np.ndarray:
    """Return the same as `stored_norms`; of `rows` (n,), or all, those that are missing are computed, and not kept."""
    norms = stored_norms(lake, at, encoder=encoder, curvature_id=curvature_id)
    missing = _missing(norms) if rows is None else pc.and_(_missing(norms), rows)
    encodings = lake.table(encodings_table(encoder), at=at)
    made = [norms_of(unit) for _, unit in unit_vectors(encodings, rows=missing)]
    if made:
        norms[missing.to_numpy(zero_copy_only=False)] = np.concatenate(made)
    return norms


def _missing(norms: np.ndarray) -> pa.BooleanArray:
    return pa.array(np.isnan(norms))


def _publish(lake: LakeStore, encoder: str, table: str, found: pa.Table) -> None:
    with (
        recorded_run(lake.catalog, "norms", {"encoder": encoder, "table": table}) as run,
        committing(lake) as committer,
    ):
        # Somebody else may have published some of them while they were computed here.
        newest = latest_snapshot(lake.catalog)
        if newest.has(table):
            found = found.filter(pc.invert(which_are_in(lake.table(table, at=newest), found["text_hash"])))
        run.counts = {"norms": found.num_rows}
        if found.num_rows:
            lake.create_table(table)
            changes = Changes()
            changes.append(write_batch(lake, table, found))
            committer.publish(run.run_id, changes.take())
