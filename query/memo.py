"""What was made and is kept for whoever asks next: made once for all who ask at one time.

Notable: functions in SQL run on several threads, and so do readers of pages; so what one of them makes the others wait
for, and nobody waits for what somebody else makes under another key.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, Final, TypeVar, cast

MOST_BYTES: Final = 256 << 20
"""Bytes that are kept: candidates are a bit for each encoding, and scores of all passages are among it."""

T = TypeVar("T")


def _bytes(value: Any) -> int:
    return int(value.nbytes)


class Memo:
    """The latest results, by everything that decides them: as many as together weigh no more than `most`.

    A result weighs its bytes, `nbytes`, unless `weigh` says otherwise; those that nobody asked for longest go first.
    """

    def __init__(self, most: int = MOST_BYTES, *, weigh: Callable[[Any], int] = _bytes) -> None:
        self._most, self._weigh = most, weigh
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Future[Any]] = OrderedDict()
        self._weights: dict[Hashable, int] = {}

    def get(self, key: Hashable, make: Callable[[], T], *, fail_together: bool = False) -> T:
        """Return what is kept under a key, or make it and keep it where there is room.

        Where making it fails, who waited makes it anew, since somebody else may only have been stopped; with
        `fail_together` all fail.
        """
        while True:
            with self._lock:
                known = self._kept.get(key)
                if known is None:
                    mine: Future[T] = Future()
                    self._kept[key] = mine
                    break
                self._kept.move_to_end(key)
            try:
                return cast("T", known.result())
            except BaseException:
                if fail_together or not known.done():  # not done: who waits here was interrupted
                    raise
        return self._made(key, mine, make)

    def _made(self, key: Hashable, future: "Future[T]", make: Callable[[], T]) -> T:
        try:
            made = make()
        except BaseException as error:
            with self._lock:
                del self._kept[key]
            future.set_exception(error)
            raise
        with self._lock:
            self._weights[key] = self._weigh(made)
            self._forget()
        future.set_result(made)
        return made

    def _forget(self) -> None:
        """Forget what is too much; what is still being made weighs nothing yet."""
        while sum(self._weights.values()) > self._most:
            oldest = next(key for key in self._kept if key in self._weights)
            del self._kept[oldest], self._weights[oldest]
