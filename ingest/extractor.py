"""What finds entities in texts: one small class for a gazetteer, a model, or whatever else finds them.

Notable: an extractor knows nothing of lakes. `ingest/entities.py` gives it the passages that it has not read yet, and
keeps what it finds.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple


class Entity(NamedTuple):
    """A canonical name, and its kind if the extractor tells."""

    name: str
    type: str | None


class Mention(NamedTuple):
    """A place in a text where an entity is named."""

    entity: Entity
    char_start: int
    char_end: int


class Extractor(ABC):
    """Finds entities in texts. What it finds in a text must not depend on the texts beside it."""

    kind: ClassVar[str]
    """First word of the origin of its mentions: `gazetteer`, `spacy`."""
    version: str
    """Hash of everything that decides what it finds; under another version, all passages are read anew."""
    about: dict[str, Any]
    """What else the record of a run says of it, for people."""

    @abstractmethod
    def find_all(self, texts: Sequence[str]) -> Iterable[Sequence[Mention]]:
        """Return the mentions in every text, one sequence for each, in the order of the texts."""
