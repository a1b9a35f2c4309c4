"""Examples share batches with their like, and a batch that does not fit into memory is cut."""

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proponent.encode.batches import TokenBudget, in_batches
from proponent.encode.gradients import Example
from proponent.schema.errors import EncodingError


def example(length: int) -> Example:
    return Example(tuple(range(length)))


@given(st.lists(st.integers(0, 64), max_size=30), st.integers(1, 300), st.booleans())
def test_batches_hold_every_example_with_a_loss_once_and_keep_the_budget(
    lengths: list[int], tokens: int, one_by_one: bool
) -> None:
    taken = [
        places
        for places, _ in in_batches(
            [example(length) for length in lengths], len, budget=TokenBudget(tokens), one_by_one=one_by_one
        )
    ]
    assert sorted(place for batch in taken for place in batch) == [n for n, length in enumerate(lengths) if length > 1]
    assert all(len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= tokens for batch in taken)
    assert not one_by_one or all(len(batch) == 1 for batch in taken)


OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["python", "gpu", "linux", "windows"])
def test_running_out_of_memory_halves_the_budget_and_goes_on(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    budget = TokenBudget(1000)

    def work(some: list[Example]) -> int:
        if len(some) > 3:
            raise error
        return len(some)

    with caplog.at_level(logging.WARNING, logger="proponent"):
        found = list(in_batches([example(10)] * 20, work, budget=budget))
    assert sum(count for _, count in found) == 20
    assert sorted(place for places, _ in found for place in places) == list(range(20))
    assert budget.tokens <= 30
    assert "memory ran out; going on with batches of" in caplog.text


def test_what_memory_has_no_room_for_at_all_is_named() -> None:
    def work(some: list[Example]) -> int:
        raise MemoryError

    with pytest.raises(EncodingError, match="one passage of 10 tokens"):
        list(in_batches([example(10)] * 4, work, budget=TokenBudget()))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def work(some: list[Example]) -> int:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        list(in_batches([example(10)] * 4, work, budget=TokenBudget()))
