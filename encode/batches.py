"""Examples in batches: of like lengths, under a budget of tokens that gives way when memory runs out."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import torch

from proponent.schema.errors import EncodingError

from .gradients import Example

BATCH_TOKENS: Final = 768
"""Padded tokens of the first batches, about where a CPU is fastest: less is padding, more stays in its cache."""
MOST_BATCH_TOKENS: Final = 1 << 18
_ROOM_TO_GROW: Final = 0.4
"""Share of a GPU's memory in use up to which the budget is doubled."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class TokenBudget:
    """How many padded tokens one batch may have: found by trying, and remembered from one call to the next."""

    def __init__(self, tokens: int = BATCH_TOKENS) -> None:
        self.tokens = tokens

    def halve(self) -> None:
        """Make batches smaller, after memory ran out."""
        self.tokens = max(1, self.tokens // 2)
        _log.warning("memory ran out; going on with batches of %d tokens", self.tokens)

    def consider_growing(self) -> None:
        """Double the budget while most of a GPU's memory is free, of other processes, too.

        A CPU gains nothing from larger batches.
        """
        if not torch.cuda.is_available() or self.tokens >= MOST_BATCH_TOKENS:
            return
        free, total = torch.cuda.mem_get_info()
        peak = torch.cuda.max_memory_allocated()
        if peak < min(_ROOM_TO_GROW * total, free):
            self.tokens *= 2


def in_batches(
    examples: Sequence[Example], work: Callable[[list[Example]], T], *, budget: TokenBudget, one_by_one: bool = False
) -> Iterator[tuple[list[int], T]]:
    """Do some work on every example that has a loss; yield the examples' places with what came of each batch.

    Examples of like lengths share a batch. When memory runs out the budget is halved and the batch is done again in
    smaller ones. Raises EncodingError when it does not suffice for a single example.
    """
    order = sorted(
        (place for place, example in enumerate(examples) if example.n_loss > 0),
        key=lambda place: len(examples[place].token_ids),
    )
    lengths = [len(examples[place].token_ids) for place in order]
    start = 0
    while start < len(order):
        end = start + 1 if one_by_one else _end_of_batch(lengths, start, budget.tokens)
        places = order[start:end]
        result = _unless_out_of_memory(work, [examples[place] for place in places])
        if result is None:
            if len(places) == 1:
                raise EncodingError(f"memory runs out on one passage of {lengths[start]} tokens")
            budget.tokens = min(budget.tokens, len(places) * lengths[end - 1])
            budget.halve()
            continue
        start = end
        budget.consider_growing()
        yield places, result[0]


def _end_of_batch(lengths: Sequence[int], start: int, tokens: int) -> int:
    """Return the end of the longest batch from `start` whose padded size is at most `tokens`; lengths ascend."""
    end = start + 1
    while end < len(lengths) and lengths[end] * (end + 1 - start) <= tokens:
        end += 1
    return end


def _unless_out_of_memory(work: Callable[[list[Example]], T], examples: list[Example]) -> tuple[T] | None:
    try:
        return (work(examples),)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether an error says that memory ran out; torch has no class of its own for that on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "not enough memory" in str(error) or "can't allocate memory" in str(error)
