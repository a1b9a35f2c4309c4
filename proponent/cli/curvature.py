"""`proponent curvature`: what all queries of a task share, fitted so that traces can discount it."""

from pathlib import Path

import click

from .options import lake_argument, output_options
from .output import emit
from .progress import progress
from .questions import read_queries


@click.command()
@lake_argument
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    help="The task's queries: JSON Lines as for `trace`, each with its target.",
)
@click.option("--name", required=True, help="Name of the curvature, for `trace --curvature`.")
@click.option("--encoder", help="Encoder that it belongs to; by default the only one.")
@click.option(
    "--mixing", type=float, metavar="LAMBDA", help="Weight of the queries' curvature, 0 to 0.99; by default by a rule."
)
@output_options
def curvature(
    lake: Path,
    queries: Path,
    name: str,
    encoder: str | None,
    mixing: float | None,
    form: str | None,
    output: Path | None,
    quiet: bool,
) -> None:
    """Fit the curvature of a task, which takes down what all of its queries share: the template, not the fact.

    The targets are the true ones, never the model's own. No passage is encoded again: one scan of the encodings
    keeps one number for each. `trace --curvature NAME` then scores under it.

    \b
    Example:
      proponent curvature mylake --queries capitals.jsonl --name capitals
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake
    from proponent.schema.errors import InputError

    asked = read_queries(queries)
    without = sum(not ask.targets for ask in asked)
    if without:
        raise InputError(f"{queries}: {without} of {len(asked)} queries have no target; give each its true one")
    with (
        open_lake(lake) as opened,
        progress("encoding queries", quiet=quiet, total=sum(ask.n_parts for ask in asked)) as advance,
    ):
        fitted = opened.fit_curvature(
            asked, name=name, encoder=encoder, mixing=mixing, query_set=queries.stem, progress=advance
        )
    emit(pa.Table.from_pylist([fitted]), form=form, output=output)
