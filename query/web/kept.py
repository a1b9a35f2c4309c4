"""What is kept so as not to be made again for every reader: made once for all who ask at one time."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

from .waiting import for_everybody

T = TypeVar("T")


class Kept:
    """Values by what they depend on, as many as `most`; of more, those that nobody asked for longest are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, Future[Any]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made under a key, or make it. Who comes while it is made waits for it and nothing else."""
        with self._lock:
            known = self._values.get(key)
            future: Future[T] = known or Future()
            self._values[key] = future
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        if known is None:
            try:
                with for_everybody():
                    future.set_result(make())
            except BaseException as error:
                with self._lock:
                    self._values.pop(key, None)
                future.set_exception(error)
        return future.result()
