"""`proponent explain`: which tokens of a passage carry its influence."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import lake_argument, output_options
from .output import emit, printable, remark

if TYPE_CHECKING:
    from rich.text import Text

    from proponent.query.explain import Explanation

_STRONGEST = 10


@click.command()
@lake_argument
@click.argument("trace")
@click.argument("passage")
@output_options
def explain(lake: Path, trace: str, passage: str, form: str | None, output: Path | None, quiet: bool) -> None:
    """Show which tokens of a passage carry its influence on a traced query.

    TRACE is an id, the beginning of one, or `last`. PASSAGE is an id, or the rank of a proponent. In a terminal the
    passage is coloured: green tokens push towards the target, red ones away. The tokens' shares add up to the score.

    \b
    Example:
      proponent explain mylake last 1
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    with open_lake(lake) as opened:
        found = opened.explain(trace, passage)
    if form or output:
        emit(pa.Table.from_pylist([token._asdict() for token in found.tokens]), form=form, output=output)
    else:
        _print(found)
    remark(
        f"score {found.score:.6g}, which the shares add up to; {found.stored_score:.6g} as stored "
        f"({found.gap:+.2g} from rounding)",
        quiet=quiet,
    )


def _print(found: "Explanation") -> None:
    import sys

    import pyarrow as pa
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(_coloured(found, few_colours=console.color_system == "standard"))
    strongest = sorted(found.tokens, key=lambda token: -abs(token.share))[:_STRONGEST]
    rows = [{"share": token.share, "token": token.token, "at": token.char_start} for token in strongest]
    emit(pa.Table.from_pylist(rows), form="table", output=None)


def _coloured(found: "Explanation", *, few_colours: bool) -> "Text":
    from rich.text import Text

    shown = Text()
    largest = max((abs(token.share) for token in found.tokens), default=0.0) or 1.0
    end = 0
    for token in found.tokens:
        if token.char_end <= token.char_start:
            continue  # it stands for no text
        shown.append(printable(found.text[end : token.char_start]))
        style = _style(token.share / largest, few_colours=few_colours)
        shown.append(printable(found.text[max(end, token.char_start) : token.char_end]), style=style)
        end = max(end, token.char_end)
    shown.append(printable(found.text[end:]))
    return shown


def _style(strength: float, *, few_colours: bool) -> str:
    """Return the style of a token whose share is `strength` (-1 to 1) times the largest one."""
    if few_colours:  # sixteen have no pale green: white would stand for both signs
        return "" if abs(strength) < 0.25 else f"black on {'green' if strength > 0 else 'red'}"
    level = round(235 - 150 * abs(strength))
    colour = f"rgb({level},255,{level})" if strength > 0 else f"rgb(255,{level},{level})"
    return f"black on {colour}" if abs(strength) >= 0.1 else ""
