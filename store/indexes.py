"""Vector indexes: compact codes of an encoder's unit vectors, which propose candidates for exact scoring.

Notable: a table of its own says which texts an index has. Its vector column is always null: Lance wants the column to
be there, but the index alone holds the vectors' codes, and the vectors in float16 would take five times the space. They
are written into a scratch table only, whose fragments have the numbers of those that they stand for, and from which the
index's segment is built while nobody waits for a lock. Texts that no segment covers are candidates of every search.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.dataset import serialize_row_addrs
from lance.fragment import write_fragments
from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.errors import NotFoundError, SettingsError
from proponent.schema.ids import fresh_id
from proponent.schema.settings import DEFAULT_INDEX, INDEX_KINDS
from proponent.schema.tables import code_columns, encodings_table, index_schema, index_table

from .codes import dequantise, fixed_size_column, read_codes
from .commit import Change, committing, finish_interrupted, write_batch
from .lake import LakeStore
from .leases import Lease, lease
from .matching import matched, texts_of
from .place import move_in, sizes_below
from .runs import recorded_run
from .snapshots import Snapshot, latest_snapshot
from .stale import encoded_texts

_BITS: Final = {"rq3": 3, "rq2": 2}
"""Bits that a component keeps, by the kind of index, which is also what it is called in Lance."""
_WAIT_S: Final = 5.0
"""Seconds to wait for another process that indexes the same."""
_COPY_ROWS: Final = 1024
_PARTITION_ROWS: Final = 1024
_MOST_PARTITIONS: Final = 256
_ALL_PARTITIONS: Final = 1 << 16
_MOST_SEGMENTS: Final = 8
"""Segments above which an index is built anew: a search goes through each."""
_FRAGMENT_ROWS: Final = 1 << 20
"""Rows of a fragment as Lance writes it, unless it is told otherwise."""

Progress = Callable[[int], object]


@dataclass(frozen=True)
class BuiltIndex:
    """An index as a snapshot has it."""

    encoder: str
    kind: str
    segments: tuple[str, ...]
    n_rows: int
    """Encodings that it covers."""
    n_bytes: int
    """Size of its codes on disk."""


def build_index(
    lake: LakeStore,
    encoder: models.Encoder,
    *,
    kind: str | None = None,
    under: Sequence[Lease] = (),
    progress: Progress = lambda _n: None,
) -> Snapshot:
    """Index an encoder's encodings, or those that the index does not cover yet; return the snapshot that has it.

    `kind` is one of `INDEX_KINDS`, by default that of the present index. An index of another kind, or of many parts, is
    built anew; until then nothing is proposed by it. `under` are locks that are held already; the commit lock is held
    for moments only. Raises NotFoundError when nothing is encoded, LakeBusyError while another process does the same.
    """
    if kind is not None and kind not in INDEX_KINDS:
        raise SettingsError(f"the kind of an index must be one of {', '.join(INDEX_KINDS)}, not {kind!r}")
    with lease(lake.catalog, f"index {encoder.name}", wait_s=_WAIT_S, under=under) as held:
        finish_interrupted(lake)
        at = latest_snapshot(lake.catalog)
        if not len(encoded_texts(lake, at, encoder.name)):
            raise NotFoundError(f"encoder {encoder.name!r} has encoded nothing yet; run `proponent encode`")
        present = (
            _described(lake.table(index_table(encoder.name), at=at)) if at.has(index_table(encoder.name)) else None
        )
        kind = kind or (present.name if present else _last_kind(lake, encoder.name))
        with recorded_run(lake.catalog, "index", {"encoder": encoder.name, "kind": kind}) as run:
            anew = present is None or present.name != kind or not _can_grow(lake, at, encoder.name)
            missing = _missing(lake, at, encoder.name, anew=anew)
            if len(missing):
                locks = [*under, held]
                vectors = _vectors(lake, at, encoder.name, missing, progress)
                at = _publish_rows(lake, encoder, run, missing, anew=anew, under=locks)
                at = _build_segment(lake, at, encoder, run, vectors, kind=kind, under=locks)
            run.counts = {"rows": len(missing)}
    return at


def built_index(lake: LakeStore, at: Snapshot, encoder: str) -> BuiltIndex | None:
    """Return the index that a snapshot has, or None. Indexes of older versions of proponent do not count."""
    table = index_table(encoder)
    if not at.has(table):
        return None
    dataset = lake.table(table, at=at)
    described = _described(dataset)
    if described is None:
        return None
    segments = tuple(sorted(str(segment.uuid) for segment in described.segments))
    folder = lake.table_dir(table) / "_indices"
    n_bytes = sum(size for one in segments for size in sizes_below(folder / one).values())
    return BuiltIndex(encoder, described.name, segments, _rows(_indexed(dataset)), n_bytes)


def record_index(lake: LakeStore, at: Snapshot, index: BuiltIndex, recall: dict[str, Any]) -> models.IndexBuild:
    """Note in the catalog what was measured of an index."""
    build = models.IndexBuild(
        index_id=fresh_id(),
        encoder=index.encoder,
        kind=index.kind,
        settings={"bits": _BITS[index.kind], "segments": list(index.segments), "bytes": index.n_bytes},
        encodings_version=at.versions[encodings_table(index.encoder)],
        n_rows=index.n_rows,
        recall=recall,
    )
    with lake.catalog.write() as session:
        session.add(build)
    return build


def recorded_index(lake: LakeStore, index: BuiltIndex) -> models.IndexBuild | None:
    """Return what was last measured of an index, or None."""
    builds = select(models.IndexBuild).where(models.IndexBuild.encoder == index.encoder)
    with lake.catalog.read() as session:
        for row in session.scalars(builds.order_by(models.IndexBuild.created_at.desc())):
            if row.settings.get("segments") == list(index.segments) and row.kind == index.kind:
                return row
    return None


class Proposer:
    """An index opened for one search among some texts."""

    def __init__(self, lake: LakeStore, at: Snapshot, encoder: str, rows: pa.BooleanArray) -> None:
        """Open the index of an encoder as a snapshot has it; `rows` of the encodings (n,) may be proposed."""
        self._dataset = lake.table(index_table(encoder), at=at)
        encodings, fragments = lake.table(encodings_table(encoder), at=at), _indexed(self._dataset)
        addressed = list[np.ndarray]()
        unindexed = rows.to_numpy(zero_copy_only=False).copy()
        for batch in matched(encodings, _covered(self._dataset, fragments)):
            places = batch.column("place").to_numpy()
            addressed.append(batch.column("_rowaddr").to_numpy()[unindexed[places]])
            unindexed[places] = False
        self._n = sum(map(len, addressed))
        self._unindexed = texts_of(encodings, pa.array(unindexed))
        # Searched among all its rows, the index needs no list of them.
        self._only = None
        if self._n < _rows(fragments):
            self._only = serialize_row_addrs(np.concatenate([*addressed, np.empty(0, np.uint64)]).tolist())

    def propose(self, query: np.ndarray, n: int) -> pa.Array | None:
        """Return n text hashes that may have the highest products with a query (d,), and n that may have the lowest.

        Those that the index does not cover are always among them. None stands for all, where there are no more.
        """
        if self._n <= 2 * n:
            return None
        near = [self._nearest(vector, n) for vector in (query, -query)]
        return pc.unique(pa.concat_arrays([*near, self._unindexed]))

    def _nearest(self, query: np.ndarray, n: int) -> pa.Array:
        # The index knows directions only, and a query in float16 must neither overflow nor vanish.
        unit = query / (np.linalg.norm(query) or 1.0)
        found = self._dataset.scanner(
            columns=["text_hash"],
            nearest={
                "column": "vector",
                "q": unit.astype(np.float16),
                "k": n,
                "metric": "dot",
                "minimum_nprobes": _ALL_PARTITIONS,
            },
            prefilter=self._only is not None,
            row_addr_allowlist=self._only,
            fast_search=True,  # rows without a segment have null vectors, which would come first
            disable_scoring_autoprojection=True,
        )
        return found.to_table()["text_hash"].combine_chunks()


def _described(dataset: lance.LanceDataset) -> Any | None:
    return next((index for index in dataset.describe_indices() if index.name in INDEX_KINDS), None)


def _fragments_of(described: Any | None) -> set[int]:
    return {number for segment in described.segments for number in segment.fragment_ids} if described else set()


def _rows(fragments: Sequence[lance.LanceFragment]) -> int:
    return sum(fragment.count_rows() for fragment in fragments)


def _indexed(dataset: lance.LanceDataset) -> list[lance.LanceFragment]:
    """Return the fragments that an index covers."""
    known = _fragments_of(_described(dataset))
    return [fragment for fragment in dataset.get_fragments() if fragment.fragment_id in known]


def _covered(dataset: lance.LanceDataset, fragments: Sequence[lance.LanceFragment]) -> pa.RecordBatchReader:
    """Read text_hash and row address of some fragments."""
    if not fragments:  # of which Lance makes all
        return pa.table({"text_hash": pa.array([], pa.string()), "_rowaddr": pa.array([], pa.uint64())}).to_reader()
    return dataset.scanner(columns=["text_hash"], fragments=list(fragments), with_row_address=True).to_reader()


def _last_kind(lake: LakeStore, encoder: str) -> str:
    """Return the kind of index that an encoder had, when its table has none any more: compaction empties it."""
    runs = select(models.Run).where(models.Run.kind == "index").order_by(models.Run.started_at.desc())
    with lake.catalog.read() as session:
        kinds = (run.settings.get("kind") for run in session.scalars(runs) if run.settings.get("encoder") == encoder)
        return next((kind for kind in kinds if kind in INDEX_KINDS), DEFAULT_INDEX)


def _can_grow(lake: LakeStore, at: Snapshot, encoder: str) -> bool:
    """Return whether a segment can be added: there are few, and a killed build left no row without one."""
    dataset = lake.table(index_table(encoder), at=at)
    described = _described(dataset)
    assert described is not None
    return len(described.segments) < _MOST_SEGMENTS and _rows(_indexed(dataset)) == dataset.count_rows()


def _missing(lake: LakeStore, at: Snapshot, encoder: str, *, anew: bool) -> pa.Array:
    """Return the texts to add, in the order of their encodings."""
    wanted = encoded_texts(lake, at, encoder)
    if anew:
        return wanted
    there = lake.table(index_table(encoder), at=at).to_table(columns=["text_hash"])["text_hash"].combine_chunks()
    return wanted.filter(pc.invert(pc.is_in(wanted, value_set=there)))


def _publish_rows(
    lake: LakeStore, encoder: models.Encoder, run: models.Run, keys: pa.Array, *, anew: bool, under: Sequence[Lease]
) -> Snapshot:
    """Publish rows, with null vectors, which no segment covers yet; anew they take the place of all others."""
    table, schema = index_table(encoder.name), index_schema(encoder.dim)
    with committing(lake, under=under) as committer:
        lake.create_table(table)
        rows = pa.table([keys, pa.nulls(len(keys), schema.field("vector").type)], schema=schema)
        replacing = schema if anew else None
        batch = write_batch(lake, table, rows, schema=replacing)
        return committer.publish(run.run_id, [Change(table, (batch,), schema=replacing)])


def _build_segment(
    lake: LakeStore,
    at: Snapshot,
    encoder: models.Encoder,
    run: models.Run,
    vectors: Iterator[pa.RecordBatch],
    *,
    kind: str,
    under: Sequence[Lease],
) -> Snapshot:
    """Build a segment over the fragments that have none, from their vectors in order, and publish it."""
    table = index_table(encoder.name)
    dataset = lake.table(table, at=at)
    known = _fragments_of(_described(dataset))
    new = [fragment for fragment in dataset.get_fragments() if fragment.fragment_id not in known]
    with lake.scratch(table) as folder:
        segment = _scratch(folder / "made", dataset.schema, new, vectors).create_index_uncommitted(
            "vector",
            "IVF_RQ",
            name=kind,
            metric="dot",
            num_partitions=max(1, min(_MOST_PARTITIONS, _rows(new) // _PARTITION_ROWS)),
            num_bits=_BITS[kind],
            fragment_ids=[fragment.fragment_id for fragment in new],
        )
        with committing(lake, under=under) as committer:
            newest = committer.as_published(table)
            built = f"_indices/{segment.uuid}"
            move_in(folder / "made" / built, lake.table_dir(table) / built)
            newest.commit_existing_index_segments(kind, "vector", [segment])
            return committer.publish(run.run_id, [], adopt=[table])


def _scratch(
    folder: Path, schema: pa.Schema, new: Sequence[lance.LanceFragment], vectors: Iterator[pa.RecordBatch]
) -> lance.LanceDataset:
    """Write vectors into a table whose fragments have the numbers and the rows of an index's new ones.

    Lance numbers the fragments of a first commit by their place in it, so those before them are a blank row each.
    """
    made = lance.write_dataset(schema.empty_table(), str(folder), schema=schema)
    blank = pa.table([[""], pa.nulls(1, schema.field("vector").type)], schema=schema)
    [filler] = write_fragments(blank, made, schema=schema, mode="overwrite")
    reader = pa.RecordBatchReader.from_batches(schema, vectors)
    limits: dict[str, Any] = {"max_rows_per_file": _FRAGMENT_ROWS, "max_bytes_per_file": 1 << 50}
    written = write_fragments(reader, made, schema=schema, mode="overwrite", **limits)
    numbers = [fragment.fragment_id for fragment in new]
    assert [one.physical_rows for one in written] == [fragment.physical_rows for fragment in new]
    assert numbers == list(range(numbers[0], numbers[0] + len(new)))
    operation = lance.LanceOperation.Overwrite(schema, [filler] * numbers[0] + written)
    return lance.LanceDataset.commit(made, lance.Transaction(read_version=made.version, operation=operation))


def _vectors(
    lake: LakeStore, at: Snapshot, encoder: str, keys: pa.Array, progress: Progress
) -> Iterator[pa.RecordBatch]:
    """Yield rows of an index table with their vectors, in the order of their encodings, which is that of `keys`."""
    encodings = lake.table(encodings_table(encoder), at=at)
    stored = encodings.scanner(columns=["text_hash"], scan_in_order=True).to_table()["text_hash"].combine_chunks()
    wanted, start = pc.is_in(stored, value_set=keys), 0
    columns = ["text_hash", *code_columns(encodings.schema)]
    for read in encodings.scanner(columns=columns, batch_size=_COPY_ROWS, scan_in_order=True).to_batches():
        batch = read.filter(wanted.slice(start, read.num_rows))
        start += read.num_rows
        progress(read.num_rows)
        if batch.num_rows:
            vectors = dequantise(read_codes(batch)).astype(np.float16)
            columns_of = [batch.column("text_hash"), fixed_size_column(vectors)]
            yield pa.RecordBatch.from_arrays(columns_of, schema=index_schema(vectors.shape[1]))
