"""Entities found by a gazetteer: a list of names, each with the spellings that stand for it.

Notable: names are found whatever their case and however their accents are composed, the longest first, and only as
whole words; the offsets are those of the passage as it is. Scripts that put no spaces between words have no such
bounds.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
from ahocorasick_rs import AhoCorasick, MatchKind

from proponent.schema.errors import CorpusError
from proponent.schema.tables import MENTIONS
from proponent.store.commit import Changes, committing, finish_interrupted, write_batch
from proponent.store.lake import LakeStore
from proponent.store.runs import recorded_run
from proponent.store.snapshots import latest_snapshot

from .locks import holding_corpora
from .models import require_name
from .readers import read_file

WAIT_S = 5.0
"""Seconds to wait for an ingest to end."""
_BATCH_PASSAGES: Final = 4096
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters."""


class Entity(NamedTuple):
    """A canonical name, and its kind if the gazetteer tells."""

    name: str
    type: str | None


class Mention(NamedTuple):
    """A place in a text where an entity is named."""

    entity: Entity
    char_start: int
    char_end: int


@dataclass(frozen=True)
class ExtractionCounts:
    """What an extraction did."""

    passages: int
    mentions: int
    entities: int
    """Entities that were found at least once."""
    replaced: int
    """Mentions that the gazetteer of this name had found before."""


class Gazetteer:
    """Finds names in texts."""

    def __init__(self, spellings: Mapping[str, tuple[Entity, ...]]) -> None:
        """Take the entities of every spelling. Raises CorpusError when there is none."""
        folded: dict[str, dict[Entity, None]] = defaultdict(dict)
        for spelling, entities in spellings.items():
            key = _folded(spelling.strip())[0]
            if key:
                folded[key] |= dict.fromkeys(entities)
        if not folded:
            raise CorpusError("the gazetteer has no names")
        self._entities = [tuple(found) for found in folded.values()]
        self._finder = AhoCorasick(list(folded), matchkind=MatchKind.Standard)

    def find(self, text: str) -> list[Mention]:
        """Return the mentions in a text in their order, the longest where several overlap."""
        folded, places = _folded(text)
        found = self._finder.find_matches_as_indexes(folded, overlapping=True)
        whole = [(start, end, which) for which, start, end in found if _is_word(folded, start, end)]
        mentions, reached = [], 0
        for start, end, which in sorted(whole, key=lambda match: (match[0], -match[1])):
            if start >= reached:
                reached = end
                span = (places[start], places[end])
                mentions += [Mention(entity, *span) for entity in self._entities[which]]
        return mentions


def _folded(text: str) -> tuple[str, list[int]]:
    """Return a text without case and with composed accents, and the place in the text of each of its characters.

    The places have one more at the end, that of the end of the text.
    """
    if text.isascii():
        return text.lower(), list(range(len(text) + 1))
    pieces, places, start = [], [], 0
    while start < len(text):
        end = start + 1
        while end < len(text) and unicodedata.combining(text[end]):
            end += 1
        piece = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text[start:end]).casefold())
        pieces.append(piece)
        places += [start] * len(piece)
        start = end
    return "".join(pieces), [*places, len(text)]


def _is_word(text: str, start: int, end: int) -> bool:
    return _is_bound(text, start, text[start]) and _is_bound(text, end, text[end - 1])


def _is_bound(text: str, place: int, edge: str) -> bool:
    """Whether a word may begin or end at a place, beside a name's character `edge`."""
    if place in (0, len(text)) or not _in_word(edge) or _UNSPACED.match(edge):
        return True
    return not (_in_word(text[place - 1]) and _in_word(text[place]))


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_" or bool(unicodedata.combining(character))


def read_gazetteer(path: Path) -> Gazetteer:
    """Read a gazetteer: rows with `entity` and, if there are any, `aliases` (a list, or a text) and `type`.

    Raises CorpusError, which names the row that cannot be used.
    """
    spellings: dict[str, dict[Entity, None]] = defaultdict(dict)
    for row in read_file(path):
        fields: dict[str, Any] = row.fields or {}
        name: Any = fields.get("entity")
        kind, aliases = fields.get("type"), fields.get("aliases") or []
        aliases = [aliases] if isinstance(aliases, str) else aliases
        sound = isinstance(name, str) and name.strip() and isinstance(kind, str | None) and isinstance(aliases, list)
        if not sound or not all(isinstance(alias, str) for alias in aliases):
            problem = row.error or "needs a text `entity`, and `aliases` and `type`, if any, as texts"
            raise CorpusError(f"{path}:{row.row}: {problem}")
        for spelling in [name, *aliases]:
            spellings[spelling][Entity(name, kind)] = None
    try:
        return Gazetteer({spelling: tuple(entities) for spelling, entities in spellings.items()})
    except CorpusError as error:
        raise CorpusError(f"{path}: {error}") from error


def extract_entities(lake: LakeStore, path: Path, *, name: str) -> ExtractionCounts:
    """Find a gazetteer's entities in all passages; what the gazetteer of this name found before is replaced.

    Raises CorpusError for a file that is no gazetteer, LakeBusyError while a corpus is being ingested.
    """
    require_name(name, what="the gazetteer's name")
    gazetteer = read_gazetteer(path)
    origin = f"gazetteer {name}"
    with (
        recorded_run(lake.catalog, "entities", {"name": name, "file": str(path)}) as run,
        holding_corpora(lake, "entities", wait_s=WAIT_S) as leases,
    ):
        finish_interrupted(lake)
        at = latest_snapshot(lake.catalog)
        changes = Changes()
        replaced = lake.table("mentions", at=at).count_rows(filter=f"origin = '{origin}'")
        if replaced:
            changes.delete("mentions", f"origin = '{origin}'")
        n_passages, n_mentions, seen = 0, 0, set[str]()
        passages = lake.table("passages", at=at).scanner(
            columns=["passage_id", "doc_id", "text"], batch_size=_BATCH_PASSAGES
        )
        for batch in passages.to_batches():
            rows = list(_mentions(gazetteer, batch, origin))
            n_passages += batch.num_rows
            n_mentions += len(rows)
            seen |= {row["entity"] for row in rows}
            if rows:
                changes.append(write_batch(lake, "mentions", pa.Table.from_pylist(rows, MENTIONS)))
        if taken := changes.take():
            with committing(lake, under=leases) as committer:
                committer.publish(run.run_id, taken)
        counts = ExtractionCounts(n_passages, n_mentions, len(seen), replaced)
        run.counts = vars(counts)
    return counts


def _mentions(gazetteer: Gazetteer, batch: pa.RecordBatch, origin: str) -> Iterator[dict[str, Any]]:
    for passage in batch.to_pylist():
        for entity, start, end in gazetteer.find(passage["text"]):
            yield {
                "passage_id": passage["passage_id"],
                "doc_id": passage["doc_id"],
                "entity": entity.name,
                "surface": passage["text"][start:end],
                "type": entity.type,
                "origin": origin,
                "char_start": start,
                "char_end": end,
            }
