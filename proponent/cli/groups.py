"""`proponent groups`: how much whole sources, months, entities or corpora moved the model towards a target."""

from pathlib import Path
from typing import Any

import click

from proponent.schema.settings import GROUPINGS, METHODS

from .options import lake_argument, output_options
from .output import emit, printable
from .progress import progress
from .questions import asked_for, question_options, score_options


@click.command()
@lake_argument
@question_options
@click.option("--trace", metavar="TRACE", help="Ask what a stored trace asked, with its method and curvature.")
@click.option(
    "--by", type=click.Choice(GROUPINGS), default="source", show_default=True, help="What passages are grouped by."
)
@click.option("--name", "names", multiple=True, help="Only this group, whether or not it has a sum; may be repeated.")
@click.option("-k", type=int, default=10, show_default=True, help="Groups of highest and of lowest influence.")
@click.option("--at", type=int, metavar="SNAPSHOT", help="Count the passages that the lake had at a snapshot.")
@score_options(METHODS)
@output_options
@click.pass_context
def groups(
    context: click.Context,
    lake: Path,
    prompt: str | None,
    targets: tuple[str, ...],
    instead: str | None,
    chat: bool,
    queries: Path | None,
    average: bool,
    trace: str | None,
    by: str,
    names: tuple[str, ...],
    k: int,
    at: int | None,
    method: str,
    curvature: str | None,
    encoder: str | None,
    form: str | None,
    output: Path | None,
    quiet: bool,
) -> None:
    """Tell how much whole groups of passages pushed the model towards a target: every passage, not only the hits.

    A group's influence is the sum of its passages' scores. Its share is that by the influences of all groups, without
    their signs; entities overlap, so they have none. Nothing is stored.

    \b
    Examples:
      proponent groups mylake --prompt "The capital of France is" --target " Paris" --by source
      proponent groups mylake --trace last --by entity --name France
    """
    from proponent.lake import open as open_lake

    wanted: dict[str, Any] = {"by": by, "names": names or None, "k": k, "at": at}
    if trace is not None:
        _require_nothing_else(context)
        with open_lake(lake) as opened:
            found = opened.group_influence_of(trace, **wanted)
    else:
        asked = asked_for(prompt, targets, instead, chat=chat, queries=queries, average=average)
        with (
            open_lake(lake) as opened,
            progress("encoding queries", quiet=quiet, total=sum(ask.n_parts for ask in asked)) as advance,
        ):
            found = opened.group_influence_all(
                asked, average=average, encoder=encoder, method=method, curvature=curvature, progress=advance, **wanted
            )
    if form not in (None, "table") or output is not None:
        emit(found.to_arrow(), form=form, output=output)
        return
    rows = found.to_dicts()
    for prompt_shown, target in dict.fromkeys((row["prompt"], row["target"]) for row in rows):
        click.echo(printable(f"{prompt_shown}|{target}"))
        _print_groups([row for row in rows if (row["prompt"], row["target"]) == (prompt_shown, target)])


def _require_nothing_else(context: click.Context) -> None:
    """Refuse options that say otherwise what a stored trace says."""
    said = ("prompt", "targets", "instead", "chat", "queries", "average", "method", "curvature", "encoder")
    given = [name for name in said if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if given:
        names = ", ".join(f"--{name.removesuffix('s') if name == 'targets' else name}" for name in given)
        raise click.UsageError(f"--trace says what is asked and how; leave out {names}")


def _print_groups(rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    overlap = all(row["share"] is None for row in rows)
    shown = [
        {
            row["kind"]: f"{row['others']:,} without a sum" if row["others"] else row["name"] or "(none)",
            "passages": row["n_passages"],
            "of all": _percent(row["passage_share"]),
            "influence": row["influence"],
            **({} if overlap else {"share": _percent(row["share"])}),
            "mean": row["mean"],
        }
        for row in rows
    ]
    emit(pa.Table.from_pylist(shown), form="table", output=None)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"
