"""Progress, on stderr and never with `-q`: bars on a terminal, and for long runs a line a minute elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from .output import remark

if TYPE_CHECKING:
    from proponent.ingest.progress import Progress as RunProgress
    from proponent.ingest.progress import Tell

_LINE_EVERY_S: Final = 60.0


@contextmanager
def progress(label: str, *, quiet: bool, total: int | None = None) -> Iterator[Callable[[int], object]]:
    """Give a function that is told how much was done since the last call."""
    if quiet or not sys.stderr.isatty():
        yield lambda _n: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    with _bars(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bars:
        task = bars.add_task(label, total=total)
        yield lambda n: bars.advance(task, n)


@contextmanager
def run_progress(*, quiet: bool) -> Iterator["Tell"]:
    """Give a function that is told how far the workers of a run are."""
    if quiet:
        yield lambda _progress: None
    elif not sys.stderr.isatty():
        yield _Lines()
    else:
        with _bars_and_counts() as show:
            yield show


@contextmanager
def _bars_and_counts() -> Iterator["Tell"]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    rates = _Rates()

    class Bars(Progress):
        told = ""

        def get_renderables(self) -> Any:
            yield from super().get_renderables()
            yield Text(self.told, overflow="ellipsis", no_wrap=True)

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with _bars(*columns, kind=Bars) as bars:
        task = bars.add_task("starting", total=None)

        def show(now: "RunProgress") -> None:
            bars.told = rates.told(now)
            bars.update(task, description=now.stage, completed=now.done, total=now.total or None)

        yield show


def _bars(*columns: Any, kind: Any = None) -> Any:
    from rich.console import Console
    from rich.progress import Progress

    return (kind or Progress)(*columns, console=Console(stderr=True), transient=True)


class _Rates:
    """Puts a moment of a run into words, with tokens by the second since the stage began."""

    def __init__(self) -> None:
        self._stage = ""
        self._began = 0.0
        self._tokens = 0

    def told(self, now: "RunProgress") -> str:
        """Return what came of a stage so far."""
        tokens = now.counts.get("tokens", 0)
        if now.stage != self._stage:
            self._stage, self._began, self._tokens = now.stage, time.monotonic(), tokens
        counts = [f"{number:,} {name}" for name, number in now.counts.items() if number and name != "tokens"]
        seconds = time.monotonic() - self._began
        if tokens > self._tokens and seconds > 1:
            counts.append(f"{(tokens - self._tokens) / seconds:,.0f} tokens/s")
        return ", ".join(counts)

    def seconds_left(self, now: "RunProgress") -> float | None:
        """Return how long the rest of the stage will take at its speed so far, or None while nobody can know."""
        if not (now.total and now.done):
            return None
        return (time.monotonic() - self._began) * (now.total - now.done) / now.done


class _Lines:
    """Says how far a run is in a line a minute."""

    def __init__(self) -> None:
        self._rates = _Rates()
        self._said_at = time.monotonic()

    def __call__(self, now: "RunProgress") -> None:
        told, left = self._rates.told(now), self._rates.seconds_left(now)
        if time.monotonic() - self._said_at < _LINE_EVERY_S:
            return
        self._said_at = time.monotonic()
        share = f", {now.done / now.total:.0%}" if now.total else ""
        rest = f", about {left / 60:,.0f} min left" if left is not None else ""
        remark(f"{now.stage}{share}{rest}" + (f": {told}" if told else ""), quiet=False)
