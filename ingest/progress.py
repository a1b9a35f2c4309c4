"""How far a long run is, over all of its workers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """A moment of a run."""

    stage: str
    """What is being done: reading, fitting, encoding."""
    done: int
    """Bytes or texts that are done."""
    total: int
    """Bytes or texts that there are; 0 where nobody can know."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What came of it so far, such as documents, passages and tokens."""


Tell = Callable[[Progress], object]
"""Takes a moment of a run, as often as there is one."""


def tell_nobody(_progress: Progress) -> None:
    """Take no notice."""
