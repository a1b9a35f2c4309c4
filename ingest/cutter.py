"""How passages are measured: in tokens of a named tokenizer, or in characters."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from proponent.encode.checkpoint import load_tokenizer, tokenizer_hash
from proponent.schema.errors import ModelMismatchError, SettingsError

from .passages import RULE, Measure, Passages, cut_passages, measure_characters
from .sentences import Array

_MEASURED_AT_ONCE: Final = 4096


@dataclass(frozen=True)
class Cutter:
    """Cuts documents by a measure, a budget and an overlap. Raises SettingsError for an overlap beyond half of it."""

    name: str
    """Hash of the tokenizer, or `characters`."""
    measure: Measure
    budget: int
    overlap: int = 0
    tokenizer: Path | None = None
    """Checkpoint whose tokenizer it is."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= self.budget // 2:
            raise SettingsError(f"overlap must be between 0 and {self.budget // 2}, half a passage, not {self.overlap}")

    @property
    def counts_tokens(self) -> bool:
        """Whether sizes are tokens."""
        return self.tokenizer is not None

    @property
    def rule(self) -> str:
        """What a passage's boundaries depend on, besides the text."""
        return f"{RULE} {self.name} {self.budget}" + (f" overlap {self.overlap}" if self.overlap else "")

    def cut(self, texts: Sequence[str]) -> Passages:
        """Cut every document's text into passages."""
        return cut_passages(texts, measure=self.measure, budget=self.budget, overlap=self.overlap)

    def to_json(self) -> dict[str, Any]:
        """Return what makes the same cutter in another process."""
        tokenizer = str(self.tokenizer.resolve()) if self.tokenizer else None
        return {"name": self.name, "budget": self.budget, "overlap": self.overlap, "tokenizer": tokenizer}


def character_cutter(budget: int, *, overlap: int = 0) -> Cutter:
    """Return a cutter for lakes that know no tokenizer."""
    return Cutter("characters", measure_characters, budget, overlap)


def token_cutter(path: Path, *, budget: int, overlap: int = 0) -> Cutter:
    """Return a cutter that counts the tokens of a checkpoint's tokenizer, its special tokens included.

    Raises ModelError when the checkpoint has no usable tokenizer.
    """
    tokenizer = load_tokenizer(path)

    def measure(text: str, starts: Array, stops: Array) -> Array:
        sizes = np.zeros(len(starts), np.int64)
        for begin in range(0, len(starts), _MEASURED_AT_ONCE):
            some = slice(begin, begin + _MEASURED_AT_ONCE)
            runs = [text[start:stop] for start, stop in zip(starts[some].tolist(), stops[some].tolist(), strict=True)]
            encoded = tokenizer(runs, add_special_tokens=True, return_attention_mask=False, verbose=False)
            sizes[some] = [len(ids) for ids in encoded["input_ids"]]
        return sizes

    return Cutter(tokenizer_hash(path), measure, budget, overlap, path)


def cutter_from_json(described: dict[str, Any]) -> Cutter:
    """Make the cutter that was described. Raises ModelMismatchError when its tokenizer has changed since."""
    sizes = {name: described[name] for name in ("budget", "overlap")}
    if described["tokenizer"] is None:
        return character_cutter(**sizes)
    cutter = token_cutter(Path(described["tokenizer"]), **sizes)
    if cutter.name != described["name"]:
        raise ModelMismatchError(f"the tokenizer in {described['tokenizer']} has changed; start again")
    return cutter
