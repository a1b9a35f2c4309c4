"""What was read and joined for one search, kept for the next one over the same versions of the tables.

Notable: functions in SQL run on several threads, so a result is made by one of them while the others wait.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Protocol, TypeVar

MOST_BYTES: Final = 256 << 20
"""Bytes that are kept: the candidates of some four million passages."""


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=_Sized)


class Memo:
    """The latest results, by everything that decides them."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Hashable, _Sized] = OrderedDict()
        self._making = threading.RLock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what is kept under a key, or make it and keep it where there is room."""
        with self._making:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]  # type: ignore[return-value]  # what a key stands for has one type
            made = make()
            self._kept[key] = made
            while sum(one.nbytes for one in self._kept.values()) > self._most_bytes:
                self._kept.popitem(last=False)
            return made
