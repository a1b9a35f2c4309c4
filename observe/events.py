"""What happens, told to whoever listens: log records with fields, spans, and counts.

Notable: who tells knows nobody who listens. Without a watcher a span is one look at an empty list, and a record that
nobody wants is not made. Nothing that is told may quote a document, a question or a secret: fields are ids, names,
numbers.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final, Protocol

Value = str | int | float | bool | None
Fields = Mapping[str, Value]

SPANS: Final = {
    "run": "Runs: commands that change the lake.",
    "unit": "Units of work, from their lease to what was handed in.",
    "commit": "Publications, from their plan to the snapshot.",
    "model": "Calls of the model: gradients of a batch of texts or questions.",
    "scan": "Scans of encodings, or of the candidates of an index.",
    "trace": "Traces, each of one question or of several.",
    "report": "Reports.",
}
"""What takes time, with what a span of it covers."""
COUNTS: Final = {
    "documents": ("Documents that workers have read, by what became of them.", ("outcome",)),
    "passages": ("Passages that workers have cut.", ()),
    "tokens": ("Tokens that workers have counted (ingest) or encoded (encode).", ("work",)),
    "rejects": ("Rows that workers could not take.", ()),
    "texts": ("Texts that workers have encoded, or not, and why.", ("outcome",)),
    "units": ("Units that workers have let go of, by how.", ("outcome",)),
    "takeovers": ("Locks and units taken over from holders that died or fell silent.", ("what",)),
    "refusals": ("What came late, from a holder that was held for dead, and was refused.", ("what",)),
    "storage_failures": ("Object-store requests that failed after all retries.", ()),
    "snapshots": ("Snapshots published.", ()),
    "scanned_rows": ("Encodings scored in scans.", ()),
    "scanned_bytes": ("Bytes of encodings read in scans.", ()),
    "traces": ("Questions traced and stored.", ()),
}
"""What is counted, with its meaning and its labels."""


class Watcher(Protocol):
    """Who wants to know."""

    def span(self, name: str, fields: Fields) -> AbstractContextManager[object]:
        """Watch something of SPANS for the length of a with block."""
        ...

    def count(self, name: str, n: float, labels: Mapping[str, str]) -> None:
        """Take a count of COUNTS."""
        ...


_watchers: list[Watcher] = []
_around: ContextVar[Fields | None] = ContextVar("around", default=None)
_always: dict[str, Value] = {}
_UNWATCHED: Final = nullcontext()


def watch(watcher: Watcher) -> None:
    """Let somebody know from now on."""
    _watchers.append(watcher)


def unwatch(watcher: Watcher) -> None:
    """Let somebody know no more."""
    _watchers.remove(watcher)


def always(**fields: Value) -> None:
    """Say what holds for all that this process tells: the lake, the worker."""
    _always.update(fields)


@contextmanager
def around(**fields: Value) -> Iterator[None]:
    """Say what holds for all that this thread tells in a with block: the run."""
    before = _around.set({**(_around.get() or {}), **fields})
    try:
        yield
    finally:
        _around.reset(before)


def tell(log: logging.Logger, message: str, *, level: int = logging.INFO, **fields: Value) -> None:
    """Log what has happened, with fields."""
    if log.isEnabledFor(level):
        log.log(level, message, extra={"fields": _with_context(fields)})


def span(name: str, **fields: Value) -> AbstractContextManager[object]:
    """Return a with block for something of SPANS, whose time and fields watchers are told."""
    return _watched(name, _with_context(fields)) if _watchers else _UNWATCHED


def count(name: str, n: float = 1, **labels: str) -> None:
    """Count something of COUNTS."""
    for watcher in _watchers:
        watcher.count(name, n, labels)


def _with_context(fields: Fields) -> Fields:
    return {**_always, **(_around.get() or {}), **fields}


@contextmanager
def _watched(name: str, fields: Fields) -> Iterator[None]:
    with ExitStack() as stack:
        for watcher in list(_watchers):
            stack.enter_context(watcher.span(name, fields))
        yield
