"""Norms of stored encodings under a curvature: one number for every text, in a table of each curvature's own.

Notable: a curvature's id is a hash of all that it was fitted from, the encoder's fitted state included, and a text's
encoding by one encoder in one format of codes never changes. So a norm, once computed, is right at every snapshot,
older ones too, and none is ever stale: norms are read at the newest snapshot whatever snapshot is searched, and only
missing ones are computed. Vectors that are stored anew in another format get norms of their own.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.tables import NORMS, codes_of, encodings_table, norms_table

from .commit import Changes, committing, finish_interrupted, write_batch
from .lake import LakeStore
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
    encodings = lake.table(encodings_table(encoder), at=at)
    keys = encodings.to_table(columns=["text_hash"])["text_hash"].combine_chunks()
    table = norms_table(curvature_id, codes_of(encodings.schema))
    known = _stored(lake, table)["text_hash"].combine_chunks()
    missing = keys.filter(pc.invert(pc.is_in(keys, value_set=known)))
    found: list[pa.Table] = []
    for hashes, unit in unit_vectors(encodings, allowed=missing):
        found.append(pa.table([hashes, norms_of(unit)], schema=NORMS))
        progress(len(hashes))
        if sum(part.num_rows for part in found) >= PUBLISH_EVERY:
            _publish(lake, encoder, table, pa.concat_tables(found))
            found = []
    if found:
        _publish(lake, encoder, table, pa.concat_tables(found))
    return len(missing)


def stored_norms(lake: LakeStore, at: Snapshot, *, encoder: str, curvature_id: str, allowed: pa.Array) -> pa.Table:
    """Return the norms of the allowed texts' encodings as a snapshot has them: text_hash and norm, in any order."""
    rows = _stored(lake, norms_table(curvature_id, codes_of(lake.table(encodings_table(encoder), at=at).schema)))
    return rows.filter(pc.is_in(rows["text_hash"], value_set=allowed))


def known_norms(
    lake: LakeStore, at: Snapshot, *, encoder: str, curvature_id: str, allowed: pa.Array, norms_of: NormsOf
) -> pa.Table:
    """Return the same as `stored_norms`; norms that are missing are computed, and not kept."""
    stored = stored_norms(lake, at, encoder=encoder, curvature_id=curvature_id, allowed=allowed)
    missing = allowed.filter(pc.invert(pc.is_in(allowed, value_set=stored["text_hash"].combine_chunks())))
    if not len(missing):
        return stored
    encodings = lake.table(encodings_table(encoder), at=at)
    made = [
        pa.table([hashes, norms_of(unit)], schema=NORMS) for hashes, unit in unit_vectors(encodings, allowed=missing)
    ]
    return pa.concat_tables([stored, *made])


def _stored(lake: LakeStore, table: str) -> pa.Table:
    newest = latest_snapshot(lake.catalog)
    return lake.table(table, at=newest).to_table() if newest.has(table) else NORMS.empty_table()


def _publish(lake: LakeStore, encoder: str, table: str, found: pa.Table) -> None:
    with (
        recorded_run(lake.catalog, "norms", {"encoder": encoder, "table": table}) as run,
        committing(lake) as committer,
    ):
        # Somebody else may have published some of them while they were computed here.
        known = _stored(lake, table)["text_hash"].combine_chunks()
        found = found.filter(pc.invert(pc.is_in(found["text_hash"], value_set=known)))
        run.counts = {"norms": found.num_rows}
        if found.num_rows:
            lake.create_table(table)
            changes = Changes()
            changes.append(write_batch(lake, table, found))
            committer.publish(run.run_id, changes.take())
