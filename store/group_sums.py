"""Sums of stored vectors over groups of passages, in one file for each encoder, format of codes and scale.

Notable: a file of sums is made of a snapshot and part of none. Nobody asks for sums as they once were kept, so tables
that snapshots name would pin 8 d bytes a group at every update, and an answer would have to publish something. The
file names the versions of the tables that it was made from, is replaced as a whole, and whoever finds none or a damaged
one makes it anew: it can be lost, and never be wrong.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import lance
import numpy as np
import pyarrow as pa

from proponent.schema.errors import StorageError
from proponent.schema.settings import GROUP_KINDS
from proponent.schema.tables import SUMS, code_columns, rows_hash

from .codes import dequantise, read_codes
from .differences import files_of
from .lake import LakeStore
from .objects import ObjectPath
from .place import LakePath, make_folder, names_in, remove, writing

SIZES: Final = pa.schema([SUMS.field(name) for name in ("kind", "name", "n_passages")])
"""Columns of how many passages the groups have."""
_AT_ONCE: Final = 1 << 22
"""Components that are decoded at a time: 32 MiB as float64."""
_SETTINGS: Final = b"proponent"
_SIZES: Final = "sizes"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summed:
    """What is summed: an encoder's stored unit vectors, on one of three scales.

    They count as they are, divided by their norms under a curvature, or multiplied by the lengths that they had.
    """

    encoder: str
    dim: int
    """Components of its vectors."""
    curvature_id: str | None = None
    """Curvature whose stored norms divide them."""
    with_lengths: bool = False

    def file_name(self, codes: str) -> str:
        """Return the name of the file of sums over vectors in a format of codes."""
        scale = "lengths" if self.with_lengths else self.curvature_id or "unit"
        return f"{self.encoder}_{codes}_{scale}.arrow"


class KindSums(NamedTuple):
    """Sums of the groups of one kind, those of most passages first."""

    names: Sequence[str | None]
    n_passages: np.ndarray
    """(groups,) int64."""
    n_summed: np.ndarray
    """Passages that were added to a sum, or taken off it, since it was made from nothing, (groups,) int64."""
    sums: np.ndarray
    """(groups, d) float64."""


@dataclass(frozen=True)
class GroupSums:
    """Sums of the groups of every kind, and what they are made of."""

    kinds: Mapping[str, KindSums]
    n_groups: Mapping[str, int]
    """Groups that there are of each kind, with a sum or without."""
    versions: Mapping[str, int]
    """Versions of the tables that decided them."""
    most: int
    """Groups of a kind that could get a sum."""
    sizes: pa.Table
    """Passages of every group, with a sum or without, in rows of SIZES; empty when only some kinds were loaded."""


def save_sums(lake: LakeStore, summed: Summed, codes: str, made: GroupSums) -> None:
    """Keep sums, in the place of those that are kept."""
    batches = {kind: _with_sums(kind, made.kinds[kind]) for kind in GROUP_KINDS} | {_SIZES: _without_sums(made.sizes)}
    described = {
        "versions": dict(made.versions),
        "n_groups": dict(made.n_groups),
        "most": made.most,
        "hashes": {name: rows_hash(pa.Table.from_batches([batch])) for name, batch in batches.items()},
    }
    schema = SUMS.with_metadata({_SETTINGS: json.dumps(described).encode()})
    make_folder(lake.sums_dir)
    with (
        writing(lake.sums_dir / summed.file_name(codes)) as file,
        pa.OSFile(str(file), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for batch in batches.values():
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))


def _with_sums(kind: str, of_kind: KindSums) -> pa.RecordBatch:
    n, dim = of_kind.sums.shape
    starts = np.arange(n + 1, dtype=np.int32) * dim
    columns = [
        pa.array([kind] * n, pa.string()),
        pa.array(of_kind.names, pa.string()),
        pa.array(of_kind.n_passages),
        pa.array(of_kind.n_summed),
        pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(of_kind.sums.reshape(-1))),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SUMS)


def _without_sums(sizes: pa.Table) -> pa.RecordBatch:
    columns = [sizes[name].combine_chunks() for name in SIZES.names]
    return pa.RecordBatch.from_arrays(
        [*columns, *(pa.nulls(len(sizes), SUMS.field(name).type) for name in ("n_summed", "sum"))], schema=SUMS
    )


def load_sums(lake: LakeStore, summed: Summed, codes: str, *, kinds: Sequence[str] = GROUP_KINDS) -> GroupSums | None:
    """Return the sums that are kept, those of some kinds alone, or None where there are none that can be trusted."""
    path = lake.sums_dir / summed.file_name(codes)
    try:
        reader = pa.ipc.open_file(_source(path))
        settings = json.loads(reader.schema.metadata[_SETTINGS])
        hashes = settings.pop("hashes")

        def rows(name: str) -> pa.RecordBatch:
            batch = reader.get_batch([*GROUP_KINDS, _SIZES].index(name))
            if rows_hash(pa.Table.from_batches([batch])) != hashes[name]:
                raise ValueError("its rows are not what they were")
            return batch

        found = {kind: _read(rows(kind), summed.dim) for kind in kinds}
        whole = set(kinds) == set(GROUP_KINDS)
        sizes = pa.table(rows(_SIZES).select(SIZES.names)) if whole else SIZES.empty_table()
        return GroupSums(kinds=found, sizes=sizes, **settings)
    except FileNotFoundError:
        return None
    except StorageError:
        raise
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        _log.warning("%s cannot be read (%s); the sums are made anew", path, str(error).partition("\n")[0])
        return None


def _source(path: LakePath) -> pa.NativeFile:
    """Return a file for reading: mapped, so that only what is asked for is read, where that is possible."""
    return pa.BufferReader(path.read_bytes()) if isinstance(path, ObjectPath) else pa.memory_map(str(path))


def _read(rows: pa.RecordBatch, dim: int) -> KindSums:
    sums = rows["sum"].flatten().to_numpy().reshape(len(rows), dim)  # a view of the file, and no copy
    return KindSums(rows["name"].to_pylist(), rows["n_passages"].to_numpy(), rows["n_summed"].to_numpy(), sums)


def remove_sums(lake: LakeStore, *, finished: bool = True) -> None:
    """Remove all sums, which are made anew when they are needed, or only those that nobody finished writing."""
    for name in names_in(lake.sums_dir):
        if finished or name.endswith(".partial"):
            remove(lake.sums_dir / name)


def stored_vectors(encodings: lance.LanceDataset, files: dict[str, int]) -> pa.RecordBatchReader:
    """Return which vectors a version of an encodings table has, as a stream.

    Columns are `text_hash`, `norm`, `vector_id`, by which two versions that name the same stored vector agree, and
    `position` in this version. `files` numbers the data files and is added to; two versions have to share it.
    """
    fragments = encodings.get_fragments()
    of_fragment = np.zeros(max((one.fragment_id for one in fragments), default=-1) + 1, np.int64)
    for fragment in fragments:
        of_fragment[fragment.fragment_id] = files.setdefault(files_of(fragment), len(files))
    places = [(name, pa.int64()) for name in ("vector_id", "position")]
    schema = pa.schema([("text_hash", pa.string()), ("norm", pa.float32()), *places])

    def batches() -> Iterator[pa.RecordBatch]:
        scanner = encodings.scanner(columns=["text_hash", "norm"], with_row_address=True, scan_in_order=True)
        start = 0
        for batch in scanner.to_batches():
            address = batch["_rowaddr"].to_numpy().astype(np.int64)
            vector_id = of_fragment[address >> 32] << 32 | address & 0xFFFFFFFF
            position = np.arange(start, start + len(address))
            start += len(address)
            yield pa.record_batch([batch["text_hash"], batch["norm"], vector_id, position], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def add_vectors(
    sums: np.ndarray,
    encodings: lance.LanceDataset,
    *,
    numbers: np.ndarray,
    positions: np.ndarray,
    factors: np.ndarray,
    progress: Callable[[int], object] = lambda _n: None,
) -> None:
    """Add stored vectors, times factors, to sums (groups, d) float64, in place.

    All three are (n,): the group's number, the vector's position in this version of the table, and float64. A vector
    is read once, however many groups it is added to; what is summed is the dequantised float32, in float64.
    """
    order = np.argsort(positions, kind="stable")
    numbers, positions, factors = numbers[order], positions[order], factors[order]
    vectors, starts = np.unique(positions, return_index=True)
    ends = np.append(starts[1:], len(positions))
    columns, step = code_columns(encodings.schema), max(1, _AT_ONCE // sums.shape[1])
    for first in range(0, len(vectors), step):
        some = vectors[first : first + step]
        unit = dequantise(read_codes(encodings.take(some, columns=columns))).astype(np.float64)
        of = slice(starts[first], ends[first + len(some) - 1])
        _add(sums, unit, numbers[of], np.searchsorted(some, positions[of]), factors[of])
        progress(len(some))


def _add(sums: np.ndarray, unit: np.ndarray, numbers: np.ndarray, rows: np.ndarray, factors: np.ndarray) -> None:
    order = np.argsort(numbers, kind="stable")
    groups, starts = np.unique(numbers[order], return_index=True)
    for group, of in zip(groups, np.split(order, starts[1:]), strict=True):
        sums[group] += factors[of] @ unit[rows[of]]
