"""Which texts an encoder sees: each distinct text of the passages once, however many passages have it."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.tables import encodings_table
from proponent.store.lake import LakeStore
from proponent.store.scan import in_list
from proponent.store.snapshots import Snapshot

from .sorting import sorting_session
from .worklist import list_writer

_BATCH_ROWS = 4096
_TEXTS = pa.schema([pa.field("text_hash", pa.string()), pa.field("text", pa.string())])


def any_missing_text(lake: LakeStore, encoder: str, at: Snapshot, *, only: pa.Array | None = None) -> bool:
    """Return whether there is a text, of some hashes or of all, that an encoder has not encoded."""
    hashes = _hashes(lake, "passages", at)
    if only is not None:
        hashes = hashes.filter(pc.is_in(hashes, value_set=only))
    if not at.has(encodings_table(encoder)):
        return len(hashes) > 0
    return not pc.all(pc.is_in(hashes, value_set=_hashes(lake, encodings_table(encoder), at)), min_count=0).as_py()


def _hashes(lake: LakeStore, table: str, at: Snapshot) -> pa.Array:
    return lake.table(table, at=at).to_table(columns=["text_hash"])["text_hash"].unique()


def list_missing_texts(
    lake: LakeStore, encoder: str, at: Snapshot, folder: Path, *, only: pa.Array | None = None
) -> int:
    """Write the distinct texts that an encoder has not encoded into a run's folder, ordered by hash.

    `only` restricts them to some hashes. Return how many there are. Memory does not grow with the texts.
    """
    with sorting_session(folder) as session:
        session.register("passages", _scan(lake, "passages", at, ["text_hash", "text"]))
        wanted = ["true"]
        if at.has(encodings_table(encoder)):
            session.register("encoded", _scan(lake, encodings_table(encoder), at, ["text_hash"]))
            wanted.append("text_hash NOT IN (SELECT text_hash FROM encoded)")
        if only is not None:
            session.register("allowed", pa.table({"text_hash": only}))
            wanted.append("text_hash IN (SELECT text_hash FROM allowed)")
        distinct = session.sql(
            f"SELECT text_hash, min(text) AS text FROM passages WHERE {' AND '.join(wanted)} "  # noqa: S608 (no input)
            "GROUP BY text_hash ORDER BY text_hash"
        )
        n_texts = 0
        with list_writer(folder, "texts", _TEXTS) as writer:
            for batch in distinct.to_arrow_reader(_BATCH_ROWS):
                writer.write_batch(batch.cast(_TEXTS))
                n_texts += batch.num_rows
    return n_texts


def _scan(lake: LakeStore, table: str, at: Snapshot, columns: list[str]) -> pa.RecordBatchReader:
    return lake.table(table, at=at).scanner(columns=columns, batch_size=_BATCH_ROWS).to_reader()


def sample_texts(lake: LakeStore, at: Snapshot, *, size: int, seed: int) -> list[str]:
    """Return a random sample of the distinct texts.

    Drawn by a hash of seed and text, it depends on nothing but the corpus's content.
    """
    hashes = _hashes(lake, "passages", at).to_pylist()
    chosen = sorted(hashes, key=lambda key: (_draw(seed, key), key))[:size]
    found: dict[str, str] = {}
    for start in range(0, len(chosen), _BATCH_ROWS):
        some = in_list("text_hash", pa.array(chosen[start : start + _BATCH_ROWS]))
        rows = lake.table("passages", at=at).to_table(columns=["text_hash", "text"], filter=some)
        found |= zip(rows["text_hash"].to_pylist(), rows["text"].to_pylist(), strict=True)
    return [found[key] for key in chosen]


def _draw(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()
