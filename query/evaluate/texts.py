"""The texts that all methods of an evaluation search: the same ones, or their numbers could not be compared."""

import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ahocorasick_rs import AhoCorasick

from proponent.query.search import passing
from proponent.query.session import Session
from proponent.schema.errors import NotFoundError
from proponent.schema.ids import stream_id
from proponent.schema.tables import encodings_table
from proponent.store.lake import LakeStore
from proponent.store.rows import rows_with
from proponent.store.snapshots import Snapshot

_BATCH: Final = 1024


@dataclass(frozen=True)
class Texts:
    """Passages that pass the filter and that every encoder has encoded, and their distinct texts."""

    passage_ids: pa.Array
    text_hashes: pa.Array
    """The text of each of them."""

    @cached_property
    def keys(self) -> list[str]:
        """Text hashes, each once, in the order of the alphabet."""
        found: list[str] = self._distinct.sort().to_pylist()
        return found

    @cached_property
    def n_passages(self) -> dict[str, int]:
        """How many passages have a text."""
        counts = pc.value_counts(self.text_hashes)
        return {one["values"]: one["counts"] for one in counts.to_pylist()}

    def have(self, keys: pa.Array) -> np.ndarray:
        """Return which of some text hashes (n,) are among them, (n,) bool."""
        found: np.ndarray = pc.is_in(keys, value_set=self._distinct).to_numpy(zero_copy_only=False)
        return found

    @cached_property
    def _distinct(self) -> pa.Array:
        return pc.unique(self.text_hashes)

    @cached_property
    def digest(self) -> str:
        """Hash of the passages and their texts."""
        order = pc.sort_indices(self.passage_ids)
        columns = (self.passage_ids.take(order), self.text_hashes.take(order))
        return stream_id("texts", ("\n".join(column.to_pylist()).encode() for column in columns))


def find_texts(
    lake: LakeStore, session: Session, at: Snapshot, *, encoders: Collection[str], where: str | None
) -> Texts:
    """Return the texts to be searched. Raises FilterError, and NotFoundError when there are none."""
    rows = passing(session, where)
    for encoder in sorted(encoders):
        table = encodings_table(encoder)
        if not at.has(table):
            raise NotFoundError(f"encoder {encoder!r} has encoded nothing yet; run `proponent encode`")
        encoded = lake.table(table, at=at).to_table(columns=["text_hash"])["text_hash"].combine_chunks()
        rows = rows.filter(pc.is_in(rows["text_hash"], value_set=encoded))
    if not rows.num_rows:
        whose = f" and are encoded by {', '.join(sorted(encoders))}" if encoders else ""
        raise NotFoundError(f"there are no passages that pass the filter{whose}")
    return Texts(rows["passage_id"].combine_chunks(), rows["text_hash"].combine_chunks())


def read_texts(lake: LakeStore, at: Snapshot, keys: Sequence[str]) -> dict[str, str]:
    """Return texts by their hashes."""
    ids = pa.array(sorted(set(keys)), pa.string())
    rows = rows_with(lake.table("passages", at=at), "text_hash", ids, columns=["text_hash", "text"])
    return dict(zip(rows["text_hash"].to_pylist(), rows["text"].to_pylist(), strict=True))


def each_text(lake: LakeStore, at: Snapshot, keys: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the hash and the text of each of some texts once, in one pass over the passages."""
    left = set(keys)
    for batch in lake.table("passages", at=at).to_batches(columns=["text_hash", "text"], batch_size=_BATCH):
        for key, text in zip(batch.column("text_hash").to_pylist(), batch.column("text").to_pylist(), strict=True):
            if key in left:
                left.remove(key)
                yield key, text


class Names:
    """Finds which of some names a text has, as whole words, whatever their case and however accents are composed."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = sorted({folded for name in names if (folded := fold(name))})
        self._finder = AhoCorasick(self._names) if self._names else None

    def within(self, text: str) -> set[str]:
        """Return the names in a text, as `fold` writes them."""
        if self._finder is None:
            return set()
        folded = fold(text)
        found = self._finder.find_matches_as_indexes(folded, overlapping=True)
        return {self._names[which] for which, start, end in found if _is_word(folded, start, end)}


def fold(text: str) -> str:
    """Return a text without case, with composed accents and single spaces."""
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(composed.split())


def _is_word(text: str, start: int, end: int) -> bool:
    return _is_bound(text, start) and _is_bound(text, end)


def _is_bound(text: str, place: int) -> bool:
    """Whether a word may begin or end at a place; scripts without spaces between words have no bounds."""
    if place in (0, len(text)):
        return True
    return not (_in_word(text[place - 1]) and _in_word(text[place]))


def _in_word(character: str) -> bool:
    spaced = unicodedata.category(character) != "Lo" or not _is_unspaced(character)
    return spaced and (character.isalnum() or bool(unicodedata.combining(character)))


def _is_unspaced(character: str) -> bool:
    """Whether a letter is of a script that puts no spaces between words: Thai, Lao, Burmese, Khmer, kana, Chinese."""
    return unicodedata.name(character, "").startswith(
        ("THAI", "LAO", "MYANMAR", "KHMER", "HIRAGANA", "KATAKANA", "CJK")
    )
