"""`proponent report`: an attribution report that can be read without proponent."""

from pathlib import Path

import click

from .options import lake_argument, quiet_option
from .output import printable, remark


@click.command()
@lake_argument
@click.argument("traces", nargs=-1, metavar="[TRACE]...")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="What to write: a .html, .md or .json file, or a folder, named with a slash: an index and a page for each.",
)
@click.option("--title", help="Title of the report; by default it is made of the question.")
@click.option(
    "--set",
    "query_set",
    metavar="NAME",
    help="All traces of a query set, or of an answer in segments, besides those that are named.",
)
@click.option("--compare", is_flag=True, help="Two traces side by side, joined by passage, with what moved.")
@click.option(
    "--tokens",
    type=int,
    default=0,
    show_default=True,
    metavar="N",
    help="Shade the tokens of the first N hits of each side by what they add to the score; loads the model.",
)
@click.option(
    "--groups/--no-groups",
    default=True,
    show_default=True,
    help="Say where the influence comes from, by source and by time, over the whole corpus.",
)
@click.option(
    "--words",
    type=int,
    default=5,
    show_default=True,
    metavar="N",
    help="So many passages that share the question's words, beside those that pushed the model.",
)
@click.option(
    "--templates",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Templates of your own, in place of those of the same names.",
)
@click.option(
    "--verify",
    type=click.Path(path_type=Path, exists=True),
    metavar="FILE",
    help="Make a report again and say what changed in it, or was withdrawn since; exits with 1 if anything did.",
)
@quiet_option
@click.pass_context
def report(
    context: click.Context,
    lake: Path,
    traces: tuple[str, ...],
    output: str | None,
    title: str | None,
    query_set: str | None,
    compare: bool,
    tokens: int,
    groups: bool,
    words: int,
    templates: Path | None,
    verify: Path | None,
    quiet: bool,
) -> None:
    """Write a report of one or more traces that can be read without proponent.

    A trace is named by its id, or by the beginning of it; `last` is the newest one. The file says what it was made of,
    and with --verify whether that still holds.

    \b
    Examples:
      proponent report mylake last -o report.html
      proponent report mylake 4r4iu2se svezyucb --compare -o comparison.html
      proponent report mylake --set facts -o facts/
      proponent report mylake --verify report.html
    """
    if verify is not None:
        _require_nothing_else(context)
        _verify(context, lake, verify, templates, quiet=quiet)
        return
    if not traces and query_set is None:
        raise click.UsageError("name a trace, or a query set with --set; `last` is the newest trace")
    if output is None:
        raise click.UsageError("name what to write with -o: a .html, .md or .json file, or a folder with a slash")
    from proponent.lake import open as open_lake

    from .progress import progress

    with open_lake(lake) as opened:
        ids = [*traces, *(opened.traces_of_set(query_set) if query_set is not None else [])]
        with progress("collecting", quiet=quiet, total=len(ids)) as advance:
            opened.report(
                ids,
                output,
                templates=templates,
                progress=advance,
                title=title,
                compare=compare,
                tokens=tokens,
                groups=groups,
                words=words,
            )
    remark(f"wrote {output}", quiet=quiet)


def _require_nothing_else(context: click.Context) -> None:
    """Refuse options that say otherwise what the file says of itself."""
    said = ("traces", "output", "title", "query_set", "compare", "tokens", "groups", "words")
    given = [name for name in said if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if given:
        names = {"traces": "the traces", "query_set": "--set", "output": "-o"}
        told = ", ".join(names.get(name, f"--{name}") for name in given)
        raise click.UsageError(f"--verify takes everything from the file; leave out {told}")


def _verify(context: click.Context, lake: Path, file: Path, templates: Path | None, *, quiet: bool) -> None:
    from proponent.lake import open as open_lake

    with open_lake(lake) as opened:
        found = opened.verify_report(file, templates=templates)
    for line in found.differences:
        click.echo(printable(line))
    for line in found.remarks:
        remark(line, quiet=quiet)
    what = f"{found.traces:,} trace{'s' * (found.traces != 1)} and {found.passages:,} passages"
    if found.differences:
        context.exit(1)
    remark(f"{file} holds: {what} are what they were", quiet=quiet)
