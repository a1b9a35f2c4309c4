"""Near-duplicates: documents of which another one says nearly the same, marked and not dropped.

Two documents are as similar as the share of their shingles that both have (Jaccard, `shingles.py`). They are gone
through in a stable order, whatever the order of their ingests (`document_texts.py`: the earliest published first,
those without a date last, then by corpus and the corpus's own id). A document that is at least as similar as the
threshold to one before it that has no mark is marked as a near-duplicate of that: of the most similar if there are
several, of the first of those that are equally so. Any other document has no mark. Hence

- whoever is marked is really that similar to the document that the mark names;
- of the documents without a mark no two are that similar, save pairs that LSH misses (`minhash.MISSED`);
- similarity is not passed on: where b is like a, and c is like b but not like a, b is marked and c is not.

Notable: what is sorted and compared lies in files of the lake's folder while this runs, so memory does not grow with
the texts. It does with the documents: some hundred bytes for each, and up to some kilobytes where others are alike.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from proponent.schema.settings import NearDuplicateSettings
from proponent.schema.tables import NEAR_DUPLICATES
from proponent.store.commit import Change, committing, finish_interrupted, write_batch
from proponent.store.lake import LakeStore
from proponent.store.leases import Lease
from proponent.store.runs import recorded_run
from proponent.store.snapshots import Snapshot, latest_snapshot

from .document_texts import ordered_texts
from .locks import holding_corpora
from .minhash import PERMUTATIONS, Bands
from .shingles import SHINGLE_WORDS, jaccard_with, shingles

TABLE: Final = "near_duplicates"
WAIT_S = 5.0
"""Seconds to wait for an ingest to end."""
_BATCH_DOCUMENTS: Final = 1024
_BATCH_SHINGLES: Final = 1 << 20


@dataclass(frozen=True)
class NearDuplicateCounts:
    """What was found."""

    documents: int
    near_duplicates: int
    originals: int
    """Documents that have near-duplicates."""


class _Mark(NamedTuple):
    """A near-duplicate and its original, by their numbers in the stable order."""

    number: int
    original: int
    similarity: float


class _Sketched(NamedTuple):
    """The documents' shingles and band keys, in files that memory is only lent to."""

    sizes: np.ndarray
    """How many shingles each document has: (documents,)."""
    shingles: np.ndarray
    """Those of all documents, one after the other."""
    keys: np.ndarray
    """(documents, bands)."""


def mark_near_duplicates(
    lake: LakeStore,
    settings: NearDuplicateSettings,
    *,
    progress: Callable[[int], object] = lambda _n: None,
) -> NearDuplicateCounts:
    """Find the near-duplicates among all documents; their marks take the place of those that there were.

    Raises LakeBusyError while a corpus is being ingested.
    """
    bands = Bands.for_threshold(settings.threshold)
    described = asdict(settings) | bands._asdict()
    described |= {"permutations": PERMUTATIONS, "shingle_words": SHINGLE_WORDS}
    with (
        recorded_run(lake.catalog, "near-duplicates", described) as run,
        holding_corpora(lake, "near-duplicates", wait_s=WAIT_S) as leases,
    ):
        finish_interrupted(lake)
        at = latest_snapshot(lake.catalog)
        with lake.scratch("near-duplicates") as scratch:
            with ordered_texts(lake, at, scratch) as (documents, texts):
                sketched = _sketch(texts, bands, scratch, progress)
            rows = _rows(documents, list(_marks(sketched, settings.threshold)))
        if not _are_there(lake, at, rows):
            _publish(lake, run.run_id, rows, leases)
        counts = NearDuplicateCounts(documents.num_rows, rows.num_rows, len(rows["of_doc_id"].unique()))
        run.counts = asdict(counts)
    return counts


def _sketch(texts: Iterator[str], bands: Bands, scratch: Path, progress: Callable[[int], object]) -> _Sketched:
    sizes: list[np.ndarray] = [np.zeros(0, np.int64)]
    paths = scratch / "shingles", scratch / "keys"
    with paths[0].open("wb") as shingles_file, paths[1].open("wb") as keys_file:
        for sets in _batches(texts):
            sizes.append(np.array([len(one) for one in sets]))
            shingles_file.write(np.concatenate(sets).tobytes())
            keys_file.write(bands.keys(sets).tobytes())
            progress(len(sets))
    return _Sketched(np.concatenate(sizes), _mapped(paths[0]), _mapped(paths[1]).reshape(-1, bands.bands))


def _batches(texts: Iterator[str]) -> Iterator[list[np.ndarray]]:
    sets: list[np.ndarray] = []
    n_shingles = 0
    for text in texts:
        sets.append(shingles(text))
        n_shingles += len(sets[-1])
        if len(sets) == _BATCH_DOCUMENTS or n_shingles > _BATCH_SHINGLES:
            yield sets
            sets, n_shingles = [], 0
    if sets:
        yield sets


def _mapped(path: Path) -> np.ndarray:
    """Return the numbers in a file without reading them; an empty file cannot be mapped."""
    # As a plain array, since slicing a memmap is slow.
    return np.asarray(np.memmap(path, np.uint64, mode="r")) if path.stat().st_size else np.zeros(0, np.uint64)


def _marks(sketched: _Sketched, threshold: float) -> Iterator[_Mark]:
    """Yield the marks in the order of the documents."""
    shared = _shared(sketched.keys) & (sketched.sizes > 0)[:, None]
    nearest = _Nearest(sketched, threshold)
    unmarked: dict[int, list[int]] = defaultdict(list)  # documents without a mark, by band key
    for number in np.flatnonzero(shared.any(axis=1)).tolist():
        keys = sketched.keys[number][shared[number]].tolist()
        mark = nearest.of(number, np.unique(np.array([one for key in keys for one in unmarked.get(key, ())], np.int64)))
        if mark is not None:
            yield mark
            continue
        for key in keys:
            unmarked[key].append(number)


class _Nearest:
    """Finds the most similar of some documents."""

    def __init__(self, sketched: _Sketched, threshold: float) -> None:
        self._sizes = sketched.sizes
        self._shingles = sketched.shingles
        self._ends = np.cumsum(sketched.sizes)
        self._threshold = threshold

    def of(self, number: int, candidates: np.ndarray) -> _Mark | None:
        """Return the mark with the most similar candidate, the first of equals; None where none is similar enough."""
        size, sizes = self._sizes[number], self._sizes[candidates]
        # What two sets have in common is no more than the smaller has.
        candidates = candidates[np.minimum(sizes, size) / np.maximum(sizes, size) >= self._threshold]
        found = None
        for some in self._portions(candidates):
            similarities = jaccard_with(self._set(number), [self._set(one) for one in some.tolist()])
            best = int(similarities.argmax())
            if similarities[best] >= self._threshold and (found is None or similarities[best] > found.similarity):
                found = _Mark(number, int(some[best]), float(similarities[best]))
        return found

    def _portions(self, candidates: np.ndarray) -> Iterator[np.ndarray]:
        """Yield candidates in their order, as many at a time as memory should hold."""
        portions = np.cumsum(self._sizes[candidates]) // _BATCH_SHINGLES
        for portion in np.unique(portions):
            yield candidates[portions == portion]

    def _set(self, number: int) -> np.ndarray:
        end = self._ends[number]
        return self._shingles[end - self._sizes[number] : end]


def _shared(keys: np.ndarray) -> np.ndarray:
    """Return which band keys (documents, bands) another document has too."""
    shared = np.zeros(keys.shape, bool)
    for band in range(keys.shape[1]):
        _keys, places, counts = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        shared[:, band] = counts[places] > 1
    return shared


def _rows(documents: pa.Table, marks: Sequence[_Mark]) -> pa.Table:
    """Return the rows of table `near_duplicates`."""
    marked = documents.take(pa.array([mark.number for mark in marks], pa.int64()))
    originals = documents.take(pa.array([mark.original for mark in marks], pa.int64()))
    columns = [
        marked["doc_id"],
        originals["doc_id"],
        pa.array([mark.similarity for mark in marks], pa.float64()),
        marked["content_hash"],
        originals["content_hash"],
    ]
    return pa.table(columns, schema=NEAR_DUPLICATES)


def _are_there(lake: LakeStore, at: Snapshot, rows: pa.Table) -> bool:
    return at.has(TABLE) and bool(lake.table(TABLE, at=at).to_table().equals(rows))


def _publish(lake: LakeStore, run_id: str, rows: pa.Table, leases: Sequence[Lease]) -> None:
    with committing(lake, under=leases) as committer:
        lake.create_table(TABLE)  # lakes that were made before there was this table have none
        written = write_batch(lake, TABLE, rows, schema=NEAR_DUPLICATES)
        committer.publish(run_id, [Change(TABLE, (written,), schema=NEAR_DUPLICATES)])
