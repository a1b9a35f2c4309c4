"""What several commands ask with: the options that make a question, and those that say how it is scored."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from proponent.query.questions import Ask

F = TypeVar("F", bound=Callable[..., Any])

_QUESTION: Final = (
    click.option("--prompt", help="What the model was given."),
    click.option(
        "--target",
        "targets",
        multiple=True,
        help="What it said; without it the model completes the prompt. Several are one query: the mean of their "
        "losses.",
    ),
    click.option("--instead", metavar="TARGET", help="Ask why it said the target and not this one."),
    click.option("--chat", is_flag=True, help="Put prompts into the model's chat template, as a user's turn."),
    click.option(
        "--queries",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Many queries: JSON Lines with prompt or messages, target or targets, instead, chat.",
    ),
    click.option("--average", is_flag=True, help="Make one trace of the queries: a score is the mean of their scores."),
)
_ENCODED: Final = (
    click.option("--curvature", metavar="NAME", help="Curvature of a task; by default the encoder's own."),
    click.option("--encoder", help="Encoder; by default the only one that the method can use."),
)


def question_options(command: F) -> F:
    """Add `--prompt`, `--target`, `--instead`, `--chat`, `--queries` and `--average`; `asked_for` reads them."""
    for option in reversed(_QUESTION):
        command = option(command)
    return command


def score_options(methods: Sequence[str], told: str = "Attribution method.") -> Callable[[F], F]:
    """Return a decorator that adds `--method`, one of some, `--curvature` and `--encoder`."""
    method = click.option("--method", type=click.Choice(methods), default="trackstar", show_default=True, help=told)

    def add(command: F) -> F:
        for option in reversed((method, *_ENCODED)):
            command = option(command)
        return command

    return add


def asked_for(
    prompt: str | None,
    targets: tuple[str, ...],
    instead: str | None,
    *,
    chat: bool,
    queries: Path | None,
    average: bool,
) -> list["Ask"]:
    """Return what the options of `question_options` ask. Raises UsageError for those that do not go together."""
    from proponent.query.questions import read_ask

    if (prompt is None) == (queries is None):
        raise click.UsageError("give either --prompt or --queries FILE")
    if queries is not None:
        if targets or instead is not None:
            raise click.UsageError("with --queries the targets are in the file")
        return read_queries(queries, chat=chat)
    if average:
        raise click.UsageError("--average is for --queries FILE")
    return [read_ask({"prompt": prompt, "targets": targets or None, "instead": instead}, chat=chat)]


def read_queries(path: Path, *, chat: bool = False) -> list["Ask"]:
    """Return the questions of a file; `chat` holds for rows that do not say.

    Raises InputError, which names file and row, for a row that is no question, and for a file without any.
    """
    from proponent.ingest.readers import read_file
    from proponent.query.questions import read_ask
    from proponent.schema.errors import InputError

    asked = []
    for row in read_file(path):
        origin = f"{path}:{row.row}"
        if row.fields is None:
            raise InputError(f"{origin}: {row.error}")
        asked.append(read_ask(row.fields, chat=chat, origin=origin))
    if not asked:
        raise InputError(f"{path} has no queries; write one JSON object a line, with prompt and target")
    return asked
