"""Entities found by a gazetteer: a list of names, each with the spellings that stand for it.

Notable: names are found whatever their case and however their accents are composed, the longest first, and only as
whole words; the offsets are those of the passage as it is. Scripts that put no spaces between words have no such
bounds.
"""

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ahocorasick_rs import AhoCorasick, MatchKind

from proponent.schema.errors import CorpusError
from proponent.schema.ids import content_id

from .extractor import Entity, Extractor, Mention
from .readers import read_file

_RULE: Final = 1
"""Counts up when the same names are found in other places than before."""
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters."""


class Gazetteer(Extractor):
    """Finds names in texts."""

    kind = "gazetteer"

    def __init__(self, spellings: Mapping[str, tuple[Entity, ...]], *, file: str | None = None) -> None:
        """Take the entities of every spelling. Raises CorpusError when there is none."""
        folded: dict[str, dict[Entity, None]] = defaultdict(dict)
        for spelling, entities in spellings.items():
            key = _folded(spelling.strip())[0]
            if key:
                folded[key] |= dict.fromkeys(entities)
        if not folded:
            raise CorpusError("the gazetteer has no names")
        self.about = {"file": file}
        names = json.dumps(sorted((key, *found) for key, found in folded.items()))
        self.version = content_id("gazetteer", _RULE, unicodedata.unidata_version, names)
        self._entities = [tuple(found) for found in folded.values()]
        self._finder = AhoCorasick(list(folded), matchkind=MatchKind.Standard)

    def find_all(self, texts: Sequence[str]) -> Iterator[list[Mention]]:
        """Return the mentions in every text."""
        return map(self.find, texts)

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
        return Gazetteer({name: tuple(entities) for name, entities in spellings.items()}, file=str(path))
    except CorpusError as error:
        raise CorpusError(f"{path}: {error}") from error
