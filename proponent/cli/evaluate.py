"""`proponent evaluate`: whether methods find the passages that state facts, and whether these move the model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from proponent.schema.settings import OPTIMIZERS, EvaluationSettings

from .options import lake_argument, quiet_option
from .output import emit, printable, remark
from .progress import progress

_DEFAULTS: Final = EvaluationSettings()


@click.command()
@lake_argument
@click.argument("facts", type=click.Path(path_type=Path))
@click.option(
    "--methods",
    multiple=True,
    default=["all"],
    show_default=True,
    metavar="METHOD,...",
    help="[ENCODER:]METHOD[@CURVATURE], bm25, [ENCODER:]hybrid, random, run:NAME=FILE (a TREC run), "
    "dense:[NAME=]FOLDER (an encoder of sentences); all is every method that the lake's encoders and indexes allow.",
)
@click.option("--filter", "where", metavar="FILTER", help="SQL predicate on the passages that are searched.")
@click.option("--at", type=int, metavar="SNAPSHOT", help="Evaluate on the lake as it was at a snapshot.")
@click.option(
    "--depth", type=int, default=_DEFAULTS.depth, show_default=True, help="Texts that a method lists for a fact."
)
@click.option(
    "--tail-patch",
    type=int,
    default=0,
    show_default=True,
    metavar="N",
    help="Measure influence on N facts drawn at random: some thirty training steps for each fact and method.",
)
@click.option(
    "--optimizer",
    type=click.Choice(OPTIMIZERS),
    default="auto",
    show_default=True,
    help="Optimizer of these steps; auto is adam where the model has an optimizer state, else sgd.",
)
@click.option("--lr", type=float, help="Learning rate of these steps; by default 1e-4 with adam and 1e-2 with sgd.")
@click.option("--model", help="Model that takes these steps; by default that of the encoders.")
@click.option(
    "--resamples",
    type=int,
    default=_DEFAULTS.resamples,
    show_default=True,
    help="Resamples of the facts for each interval; a test flips signs ten times as often.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything that is drawn.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for results.json, results.md and results.html; what it has already is not computed again.",
)
@quiet_option
def evaluate(
    lake: Path,
    facts: Path,
    methods: tuple[str, ...],
    where: str | None,
    at: int | None,
    depth: int,
    tail_patch: int,
    optimizer: str,
    lr: float | None,
    model: str | None,
    resamples: int,
    seed: int,
    output: Path | None,
    quiet: bool,
) -> None:
    """Measure on facts whether methods find the passages that state them, and whether these move the model.

    FACTS is JSON Lines or Parquet: prompt, target, and who knows them, doc_keys or passage_ids of what states the
    fact, relation, subject, object, aliases. Started again with the same folder, it computes what is missing.

    \b
    Example:
      proponent evaluate mylake facts.jsonl --methods trackstar,bm25,random --tail-patch 50 -o results
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake
    from proponent.schema.settings import TailPatchSettings

    names = [name for one in methods for name in one.split(",") if name.strip()]
    patching = TailPatchSettings(facts=tail_patch, optimizer=optimizer, lr=lr, model=model)
    with open_lake(lake) as opened, _stages(quiet=quiet) as tell:
        found = opened.evaluate(
            facts,
            methods=tuple(names),
            filter=where,
            at=at,
            depth=depth,
            tail_patch=patching,
            resamples=resamples,
            seed=seed,
            output=output,
            tell=tell,
        )
    for line in found.told:
        click.echo(printable(line))
    for section in found.sections:
        click.echo(f"\n{printable(section.title)}\n{printable(section.note)}")
        emit(pa.Table.from_pylist(section.rows), form="table", output=None)
    if output is not None:
        remark(f"wrote {output / 'results.html'}, results.md and results.json", quiet=quiet)


@contextmanager
def _stages(*, quiet: bool) -> Iterator[Callable[[str, int], Any]]:
    """Give a function that begins a stage and returns what is told how much of it was done."""
    from contextlib import ExitStack

    with ExitStack() as bars:

        def begin(stage: str, total: int) -> Callable[[int], object]:
            bars.close()
            return bars.enter_context(progress(printable(stage), quiet=quiet, total=total or None))

        yield begin
