"""Approximate search: a Lance vector index over an encoder's unit vectors, with its recall measured on this lake.

Notable: codes with scales cannot be indexed, so the index has a table of its own with the vectors in float16; rows
that were encoded after the index was built are candidates of every search until it is brought up to date.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.errors import NotFoundError
from proponent.schema.ids import fresh_id
from proponent.schema.tables import code_columns, encodings_table, index_table

from .codes import dequantise, fixed_size_column, read_codes
from .commit import Change, Changes, committing, write_batch
from .lake import LakeStore
from .leases import Lease
from .runs import recorded_run
from .scan import exact_scan, in_list
from .snapshots import Snapshot, latest_snapshot
from .stale import encoded_texts

KIND: Final = "IVF_RQ"
_BITS = 3
"""Bits a component keeps in the index; with 1 the candidates had to be ten times as many for the same recall."""
_COPY_ROWS = 1024
_PROPOSED = 10
"""Candidates proposed for each hit asked for; all of them are scored exactly."""
_MEASURED_K = 10


@dataclass(frozen=True)
class UsableIndex:
    """An index build that covers an encoder's encodings, or most of them."""

    encoder: str
    recall: float
    """Measured recall@10, the lower of the two sides."""


def find_index(lake: LakeStore, encoder: str) -> UsableIndex:
    """Return the newest index of an encoder. Raises NotFoundError when there is none."""
    newest = (
        select(models.IndexBuild)
        .where(models.IndexBuild.encoder == encoder)
        .order_by(models.IndexBuild.created_at.desc())
        .limit(1)
    )
    with lake.catalog.read() as session:
        row = session.scalars(newest).first()
    if row is None:
        raise NotFoundError(f"encoder {encoder!r} has no index; build one with `proponent index`")
    return UsableIndex(encoder, min(row.recall["proponents"], row.recall["opponents"]))


def propose(
    lake: LakeStore, at: Snapshot, index: UsableIndex, *, query: np.ndarray, allowed: pa.Array, k: int
) -> pa.Array:
    """Return text hashes that may be among the k highest or lowest of `allowed` for a query (d,), from the index.

    Encodings that the index does not have are always among them.
    """
    dataset = lake.table(index_table(index.encoder), at=at)
    indexed = dataset.to_table(columns=["text_hash"])["text_hash"].combine_chunks()
    unindexed = allowed.filter(pc.invert(pc.is_in(allowed, value_set=indexed)))
    near = [_nearest(dataset, vector, _PROPOSED * k) for vector in (query, -query)]
    proposed = pc.unique(pa.concat_arrays([*near, unindexed]))
    return proposed.filter(pc.is_in(proposed, value_set=allowed))


def _nearest(dataset: lance.LanceDataset, query: np.ndarray, k: int) -> pa.Array:
    nearest = {
        "column": "vector",
        "q": query.astype(np.float16),
        "k": k,
        "metric": "dot",
        "minimum_nprobes": 1 << 16,
        "refine_factor": 2,
    }
    return dataset.to_table(columns=["text_hash"], nearest=nearest)["text_hash"].combine_chunks()


def build_index(
    lake: LakeStore,
    encoder: models.Encoder,
    *,
    n_queries: int = 32,
    under: Sequence[Lease] = (),
    progress: Callable[[int], object] = lambda _n: None,
) -> models.IndexBuild:
    """Index an encoder's encodings, or those that the index does not have yet, and measure its recall.

    The recall is measured with the encoder's stored queries, and with its own encodings where it has none. `under` are
    locks that are held already. Raises NotFoundError when nothing is encoded.
    """
    table = index_table(encoder.name)
    if not len(encoded_texts(lake, latest_snapshot(lake.catalog), encoder.name)):
        raise NotFoundError(f"encoder {encoder.name!r} has encoded nothing yet; run `proponent encode`")
    with recorded_run(lake.catalog, "index", {"encoder": encoder.name, "kind": KIND}) as run:
        with committing(lake, under=under) as committer:
            before = latest_snapshot(lake.catalog)
            encodings = lake.table(encodings_table(encoder.name), at=before)
            lake.create_table(table)
            changes = _missing_vectors(lake, encoder.name, encodings, before, progress)
            if changes:
                committer.publish(run.run_id, changes)
            dataset = lake.table(table)
            partitions = max(1, min(256, dataset.count_rows() // 1024))
            dataset.create_index("vector", KIND, metric="dot", num_partitions=partitions, num_bits=_BITS, replace=True)
            after = committer.publish(run.run_id, [], adopt=[table])
        recall = _measure_recall(lake, encoder.name, after, n_queries)
        build = models.IndexBuild(
            index_id=fresh_id(),
            encoder=encoder.name,
            kind=KIND,
            settings={"partitions": partitions, "bits": _BITS, "proposed_per_hit": _PROPOSED},
            encodings_version=before.versions[encodings_table(encoder.name)],
            n_rows=lake.table(table, at=after).count_rows(),
            recall=recall,
        )
        run.counts = {"rows": build.n_rows}
        with lake.catalog.write() as session:
            session.add(build)
    return build


def _missing_vectors(
    lake: LakeStore,
    encoder: str,
    encodings: lance.LanceDataset,
    before: Snapshot,
    progress: Callable[[int], object],
) -> list[Change]:
    changes, table = Changes(), index_table(encoder)
    done = pa.array([], pa.string())
    if before.has(table):
        done = lake.table(table, at=before).to_table(columns=["text_hash"])["text_hash"].combine_chunks()
    wanted = encoded_texts(lake, before, encoder)
    wanted = wanted.filter(pc.invert(pc.is_in(wanted, value_set=done)))
    keys = encodings.scanner(columns=["text_hash"], scan_in_order=True).to_table()["text_hash"].combine_chunks()
    missing = pc.is_in(keys, value_set=wanted)
    columns, start = ["text_hash", *code_columns(encodings.schema)], 0
    for read in encodings.scanner(columns=columns, batch_size=_COPY_ROWS, scan_in_order=True).to_batches():
        batch = read.filter(missing.slice(start, read.num_rows))
        start += read.num_rows
        progress(read.num_rows)
        if batch.num_rows:
            unit = dequantise(read_codes(batch))
            rows = {"text_hash": batch.column("text_hash"), "vector": fixed_size_column(unit.astype(np.float16))}
            changes.append(write_batch(lake, table, pa.table(rows)))
    return changes.take()


def _measure_recall(lake: LakeStore, encoder: str, at: Snapshot, n_queries: int) -> dict[str, Any]:
    encodings = lake.table(encodings_table(encoder), at=at)
    allowed = encoded_texts(lake, at, encoder)
    queries, origin = _sample_queries(lake, encoder, at, allowed, n_queries)
    index = UsableIndex(encoder, 1.0)
    exact = exact_scan(encodings, queries, allowed=allowed, k=_MEASURED_K, unit_norm=True)
    shares: dict[str, list[float]] = {"proponents": [], "opponents": []}
    for query, truth in zip(queries, exact, strict=True):
        within = set(propose(lake, at, index, query=query, allowed=allowed, k=_MEASURED_K).to_pylist())
        for side, ranked in (("proponents", truth.top), ("opponents", truth.bottom)):
            shares[side].append(sum(key in within for key in ranked.keys) / len(ranked.keys))
    return {side: float(np.mean(values)) for side, values in shares.items()} | {
        "k": _MEASURED_K,
        "queries": len(queries),
        "measured_with": origin,
    }


def _sample_queries(
    lake: LakeStore, encoder: str, at: Snapshot, allowed: pa.Array, n_queries: int
) -> tuple[np.ndarray, str]:
    stored = lake.table("queries", at=at).to_table(columns=["vector"], filter=f"encoder = '{encoder}'", limit=n_queries)
    if stored.num_rows:
        vectors = np.stack(stored["vector"].to_numpy()).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), "stored queries"
    encodings, first = lake.table(encodings_table(encoder), at=at), in_list("text_hash", allowed.slice(0, n_queries))
    rows = encodings.to_table(columns=code_columns(encodings.schema), filter=first)
    return dequantise(read_codes(rows)), "stored encodings"
