"""An answer that was traced in segments, as a terminal shows it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from .output import emit, printable
from .scores import shown_scores, told_orders

SENTENCES: Final = "sentences"
_LEADING: Final = 3


def require_one_answer(targets: Sequence[str], *, instead: str | None, chat: bool, queries: Path | None) -> None:
    """Raise UsageError for options that ask something else than how one answer came about."""
    others = {"--queries": queries is not None, "--chat": chat, "--instead": instead is not None}
    if given := [name for name, there in others.items() if there]:
        raise click.UsageError(f"--segments is for one plain prompt and its answer; leave out {', '.join(given)}")
    if len(targets) > 1:
        raise click.UsageError("--segments is for one answer; give --target once")


def print_segments(
    facts: Sequence[Mapping[str, Any]],
    hits: Sequence[Mapping[str, Any]],
    orders: Mapping[str, Sequence[Mapping[str, Any]]],
) -> None:
    """Print an answer segment by segment, with the leading passages of each."""
    import math

    click.echo(printable(facts[0]["prompt"]))
    for number, fact in enumerate(facts, start=1):
        loss = fact["target_loss"]
        likely = "" if loss is None else f"  (probability {math.exp(-loss):.3g} after all before it)"
        click.echo(f"\n[{number}]{printable(fact['target'])}{likely}")
        _print_leading([hit for hit in hits if hit["trace_id"] == fact["trace_id"] and hit["side"] == "proponent"])
        for line in told_orders(orders.get(fact["trace_id"], [])):
            click.echo(line)


def _print_leading(hits: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa

    rows = [
        {
            "rank": hit["rank"],
            "score": hit["score"],
            **shown_scores(hit),
            "source": hit["source"],
            "title": hit["title"],
        }
        for hit in hits[:_LEADING]
    ]
    if rows:
        emit(pa.Table.from_pylist(rows), form="table", output=None)
    else:
        click.echo("  none")
