"""What is kept so as not to be made again for every reader."""

from collections.abc import Callable, Hashable
from typing import TypeVar

from proponent.query.memo import Memo

from .waiting import for_everybody

T = TypeVar("T")


class Kept:
    """Values by what they depend on, as many as `most`; of more, those that nobody asked for longest are forgotten."""

    def __init__(self, most: int) -> None:
        self._memo = Memo(most, weigh=lambda _value: 1)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made under a key, or make it. Who comes while it is made waits for it and nothing else."""

        def made() -> T:
            with for_everybody():
                return make()

        return self._memo.get(key, made, fail_together=True)
