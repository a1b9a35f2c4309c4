"""How corpus files become documents and passages."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Final

from proponent.schema.selectors import Selector, parse_selector

from .requiring import require

SIMILAR: Final = 0.8
"""Least similarity of near-duplicates, unless another is given."""


@dataclass(frozen=True, kw_only=True)
class FieldMapping:
    """Which field of a corpus's rows is which column; the names are those of the ingest options.

    Each is the name of a field, a constant or a template, as `selectors` reads them.
    """

    id: str = "id"
    text: str = "text"
    source: str | None = "source"
    date: str | None = "date"
    title: str | None = "title"
    url: str | None = "url"
    author: str | None = "author"
    language: str | None = "language"
    license: str | None = "license"
    entities: str | None = "entities"
    trained_on: str | None = "trained_on"

    def __post_init__(self) -> None:
        _ = self.selectors

    @cached_property
    def selectors(self) -> dict[str, Selector]:
        """How the value of every column is picked from a row."""
        specs = {name: spec for name, spec in asdict(self).items() if spec is not None}
        return {name: parse_selector(spec, option=name.replace("_", "-")) for name, spec in specs.items()}

    @cached_property
    def taken(self) -> frozenset[str]:
        """Names of the fields that become columns as a whole, or part of the text."""
        whole = (one for name, one in self.selectors.items() if one.is_field or name == "text")
        return frozenset(name for one in whole for name in one.names)

    @cached_property
    def nested(self) -> tuple[str, ...]:
        """Those of them that may be fields of fields."""
        return tuple(sorted(name for name in self.taken if "." in name))


@dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """How corpus files become rows."""

    reader: str | None = None
    """Name of the reader; by default the files' names and contents say it."""
    separator: str | None = None
    """Line between two documents of a text file; by default a file is a document."""
    max_row_bytes: int = 1 << 26
    """Size above which a row is rejected; no reader need hold more of one."""

    def __post_init__(self) -> None:
        require(1 <= self.max_row_bytes <= 1 << 30, "max_row_bytes must be between 1 and 2^30")
        require(self.separator is None or "\n" not in self.separator, "separator must be one line")


@dataclass(frozen=True, kw_only=True)
class IngestSettings(ReadSettings):
    """How a corpus becomes documents and passages."""

    corpus: str
    fields: FieldMapping = field(default_factory=FieldMapping)
    explicit_fields: frozenset[str] = frozenset()
    """Names in `fields` that the user gave, and that every row set must therefore have."""
    split_entities: str | None = None
    """What stands between two entities in one text; by default a text is one entity."""
    max_tokens: int | None = None
    """Longest passage in tokens; by default the tokenizer's model's context."""
    max_chars: int = 1000
    """Longest passage in characters, used only when there is no tokenizer."""
    overlap: int = 0
    """Most tokens, or characters, of whole sentences that a passage repeats of the one before."""
    max_reject_share: float = 0.1
    """Share of rejected rows above which a run stops and publishes nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.split_entities != "", "split_entities must not be empty")
        require(
            bool(self.corpus.strip()) and len(self.corpus) <= 128 and self.corpus.isprintable(),
            "a corpus needs a name of at most 128 printable characters",
        )
        require(self.max_tokens is None or self.max_tokens >= 8, "max_tokens must be at least 8")
        require(self.max_chars >= 40, "max_chars must be at least 40")
        require(0 <= self.max_reject_share <= 1, "max_reject_share must be between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class NearDuplicateSettings:
    """When two documents are near-duplicates."""

    threshold: float = SIMILAR
    """Least share of their shingles that both have."""

    def __post_init__(self) -> None:
        # Below a half, LSH would have to compare texts that have next to nothing in common.
        require(0.5 <= self.threshold <= 1, f"threshold must be between 0.5 and 1, not {self.threshold}")
