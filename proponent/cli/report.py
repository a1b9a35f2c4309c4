"""`proponent report`: an attribution report in one file."""

from pathlib import Path

import click

from .options import lake_argument, quiet_option
from .output import remark


@click.command()
@lake_argument
@click.argument("traces", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write: .html or .md.",
)
@click.option("--title", help="Title of the report.")
@quiet_option
def report(lake: Path, traces: tuple[str, ...], output: Path, title: str | None, quiet: bool) -> None:
    """Write a report of one or more traces that can be read without proponent.

    A trace is named by its id, or by the beginning of it; `last` is the newest one.

    \b
    Example:
      proponent report mylake last -o report.html
    """
    from proponent.lake import open as open_lake

    with open_lake(lake) as opened:
        opened.report(list(traces), output, title=title)
    remark(f"wrote {output}", quiet=quiet)
