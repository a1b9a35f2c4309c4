"""What asks the model: handed in by the command line, since encoders are loaded above this layer."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from proponent.query.explain import Explanation
from proponent.query.search import SoFar

Progress = Callable[[int], object]


class Asker(Protocol):
    """An open lake that asks its models; it is used by one thread at a time."""

    def trace_all(
        self,
        questions: Iterable[Mapping[str, Any]],
        *,
        encoder: str | None = None,
        progress: Progress = ...,
        scanned: Progress = ...,
        so_far: SoFar | None = None,
        **settings: Any,
    ) -> list[str]:
        """Trace questions and store the answers; return the traces' ids.

        `progress` is told questions that were encoded, `scanned` texts that were scored; what they raise ends it.
        `so_far` is handed what gives the hits so far while texts are scored.
        """

    def complete(self, prompt: str, *, encoder: str | None = None, chat: bool = False) -> str:
        """Return how the model goes on after a prompt."""

    def explain(self, trace: str, passage: str) -> Explanation:
        """Split the score of a passage under a trace into shares of its tokens."""
