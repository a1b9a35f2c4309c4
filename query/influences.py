"""Scores of any passages for stored queries, some at a time: the same numbers as in a trace of all of them.

Notable: SQL asks for at most 2,048 passages at once, often for a few. What is asked for is scored by the rows that it
needs until that has cost as much as a scan of everything; then everything is scored once and kept for the session.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.errors import NotFoundError
from proponent.schema.tables import encodings_table
from proponent.store.lake import LakeStore
from proponent.store.scan import all_scores, scores_at
from proponent.store.snapshots import Snapshot
from proponent.store.withdrawn import hidden_documents

from .memo import Memo
from .scored import Scored

Progress = Callable[[int], object]

_ID: Final = np.dtype("S26")
_ODD: Final = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
_CALL: Final = 1000
"""Rows that a scan reads in the time that it takes to look rows up at all, and ..."""
_ROW: Final = 3
"""... those in the time that each of them takes."""


@dataclass(frozen=True)
class _Places:
    """Where the encodings of a snapshot's passages are."""

    numbers: np.ndarray
    """Numbers made of the ids of all passages, ascending (n,) uint64: they are found faster than texts."""
    passages: np.ndarray
    """The ids, in the order of their numbers (n,) S26."""
    most_alike: int
    """Most ids that have one number."""
    places: np.ndarray
    """Place of each one's encoding, in stored order, -1 for those without, (n,) int64."""
    n_texts: int
    """Encoded texts."""

    @property
    def nbytes(self) -> int:
        return int(self.numbers.nbytes + self.passages.nbytes + self.places.nbytes)

    def of(self, passage_ids: pa.Array, at: Snapshot) -> np.ndarray:
        """Return the places of some passages, none of them null. Raises NotFoundError for an unknown one."""
        whole = pc.equal(pc.binary_length(passage_ids), _ID.itemsize)
        if not pc.all(whole).as_py() and len(passage_ids):
            raise _unknown(passage_ids.filter(pc.invert(whole))[0].as_py(), at)
        wanted = _fixed(passage_ids)
        first = np.searchsorted(self.numbers, _numbers(wanted))
        found = np.full(len(wanted), -1)
        for step in range(self.most_alike):
            here = np.minimum(first + step, len(self.numbers) - 1)
            found = np.where(self.passages[here] == wanted, here, found)
        if (found < 0).any():
            raise _unknown(passage_ids[int(np.argmin(found))].as_py(), at)
        places: np.ndarray = self.places[found]
        return places


@dataclass
class _Known:
    """The scores of a query that are known."""

    scores: np.ndarray
    """(texts,) float32."""
    is_known: np.ndarray
    """(texts,) bool."""
    norms: np.ndarray | None
    """What divides the scores, (texts,) float32."""
    spent: int = 0
    """What looking rows up has cost, in rows that a scan would have read."""

    @property
    def nbytes(self) -> int:
        return int(self.scores.nbytes + self.is_known.nbytes + (0 if self.norms is None else self.norms.nbytes))


def scores_of(
    lake: LakeStore, at: Snapshot, asked: Scored, passage_ids: pa.Array, *, memo: Memo, progress: Progress
) -> np.ndarray:
    """Return the scores of passages (n,) float64; NaN for those that the query's encoder has not encoded.

    For one thread at a time. Raises NotFoundError for a passage that the snapshot does not have, and when nothing is
    encoded.
    """
    table = encodings_table(asked.encoder_row.name)
    if not at.has(table):
        raise NotFoundError(f"encoder {asked.encoder_row.name!r} has encoded nothing yet; run `proponent encode`")
    versions = (table, at.versions["passages"], at.versions[table])
    places = memo.get(("places", *versions), lambda: _read_places(lake, at, table))
    key = ("scores", *versions, asked.query_id, asked.method.name, asked.curvature.curvature_id)
    known = memo.get(key, lambda: _nothing_known(lake, at, asked, places.n_texts))
    of = places.of(passage_ids, at)
    encoded = of >= 0
    wanted = of[encoded]
    if len(missing := np.unique(wanted[~known.is_known[wanted]])):
        _fill(lake, at, asked, known, missing, progress=progress)
    scores = np.full(len(of), np.nan)
    scores[encoded] = known.scores[wanted]
    return scores


def _fill(
    lake: LakeStore,
    at: Snapshot,
    asked: Scored,
    known: _Known,
    missing: np.ndarray,
    *,
    progress: Progress,
) -> None:
    encodings, unit_norm = lake.table(encodings_table(asked.encoder_row.name), at=at), asked.method.unit_norm
    known.spent += _CALL + _ROW * len(missing)
    if known.spent < len(known.scores):
        norms = None if known.norms is None else known.norms[missing]
        found = scores_at(encodings, asked.vector, positions=missing, unit_norm=unit_norm, norms=norms)
        known.scores[missing], known.is_known[missing] = found[:, 0], True
        progress(len(missing))
        return
    found = all_scores(encodings, asked.vector, unit_norm=unit_norm, norms=known.norms, progress=progress)
    known.scores[:], known.is_known[:] = found[:, 0], True


def _nothing_known(lake: LakeStore, at: Snapshot, asked: Scored, n: int) -> _Known:
    norms = asked.curvature.known_norms(lake, at) if asked.method.unit_norm else None
    return _Known(np.zeros(n, np.float32), np.zeros(n, bool), norms)


def _read_places(lake: LakeStore, at: Snapshot, table: str) -> _Places:
    stored = lake.table(table, at=at).scanner(columns=["text_hash"], scan_in_order=True).to_table()
    texts = stored["text_hash"].combine_chunks()
    passages = lake.table("passages", at=at).to_table(columns=["passage_id", "doc_id", "text_hash"])
    if len(hidden := hidden_documents(lake.catalog, at)):
        passages = passages.filter(pc.invert(pc.is_in(passages["doc_id"], value_set=hidden)))
    places = pc.fill_null(pc.index_in(passages["text_hash"].combine_chunks(), value_set=texts), -1)
    ids = _fixed(passages["passage_id"].combine_chunks())
    numbers = _numbers(ids)
    order = np.argsort(numbers)
    numbers = numbers[order]
    most_alike = int(
        np.diff(np.flatnonzero(np.diff(numbers, prepend=~numbers[:1], append=~numbers[-1:]))).max(initial=0)
    )
    return _Places(numbers, ids[order], most_alike, places.to_numpy()[order].astype(np.int64), len(texts))


def _numbers(ids: np.ndarray) -> np.ndarray:
    """Return a number (n,) uint64 for each id (n,) S26, nearly always one of its own."""
    words = np.ascontiguousarray(ids.view(np.uint8).reshape(len(ids), _ID.itemsize)[:, -24:]).view(np.uint64)
    numbers: np.ndarray = (words * _ODD).sum(1, dtype=np.uint64)
    return numbers


def _fixed(ids: pa.Array) -> np.ndarray:
    """Return ids, all of them whole, as an array (n,) S26."""
    width = _ID.itemsize
    fixed = ids.cast(pa.binary()).cast(pa.binary(width))
    return np.frombuffer(fixed.buffers()[1] or b"", _ID, len(ids), fixed.offset * width)


def _unknown(passage_id: str, at: Snapshot) -> NotFoundError:
    return NotFoundError(
        f"no passage {passage_id!r} at snapshot {at.snapshot_id}; it went with an update or a withdrawal of its "
        "document, or this is no whole passage_id: take them from relation passages"
    )
