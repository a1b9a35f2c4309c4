"""`proponent evaluate`: whether methods find the passages that state facts, and whether these move the model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from proponent.schema.settings import (
    OPTIMIZERS,
    EvaluationSettings,
    RetrainingSettings,
    TailPatchSettings,
    TrainingSettings,
)

from .options import engine_options, lake_argument, quiet_option
from .output import emit, printable, remark
from .progress import progress

_DEFAULTS: Final = EvaluationSettings()
_RETRAINING: Final = _DEFAULTS.retraining


@click.command()
@lake_argument
@click.argument("facts", nargs=-1, required=True)
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
    help="Measure influence on N facts of each kind: some thirty training steps for each fact and method.",
)
@click.option(
    "--optimizer",
    type=click.Choice(OPTIMIZERS),
    default="auto",
    show_default=True,
    help="Optimizer of these steps; auto is adam where the model has an optimizer state, else sgd.",
)
@click.option("--lr", type=float, help="Learning rate of these steps; by default 1e-4 with adam and 1e-2 with sgd.")
@click.option("--model", help="Model that is evaluated; by default that of the encoders.")
@click.option(
    "--lds",
    type=int,
    default=0,
    show_default=True,
    metavar="N",
    help="Train models on N random subsets of the texts, 64 say, and compare what they say with the methods' scores.",
)
@click.option(
    "--lds-fraction",
    type=float,
    default=_RETRAINING.fraction,
    show_default=True,
    help="Share of the texts that a subset has.",
)
@click.option(
    "--counterfactual",
    type=int,
    default=0,
    show_default=True,
    metavar="N",
    help="For N facts of each kind, train a model without the texts that each method lists first: what changes?",
)
@click.option(
    "--without",
    type=int,
    default=_RETRAINING.without,
    show_default=True,
    metavar="K",
    help="Texts that --counterfactual leaves out.",
)
@click.option(
    "--draws",
    type=int,
    default=_RETRAINING.draws,
    show_default=True,
    help="How often --counterfactual leaves out random texts, to compare with.",
)
@click.option("--opponents", is_flag=True, help="--counterfactual leaves out opponents, too.")
@click.option(
    "--retrain-seeds",
    type=int,
    default=_RETRAINING.seeds,
    show_default=True,
    help="Models that are trained on the same texts, to average out what training leaves to chance.",
)
@click.option(
    "--retrain-epochs", type=int, default=_RETRAINING.training.epochs, show_default=True, help="Passes over the texts."
)
@click.option(
    "--retrain-batch", type=int, default=_RETRAINING.training.batch_size, show_default=True, help="Texts in a step."
)
@click.option(
    "--retrain-lr",
    type=float,
    default=_RETRAINING.training.learning_rate,
    show_default=True,
    help="Highest learning rate of training.",
)
@click.option(
    "--retrain-command",
    metavar="COMMAND",
    help="Command that trains instead, such as 'python train.py {passages} {output} --seed {seed}': a file of JSON "
    "Lines with `text` in, a folder with a checkpoint out. It is split like a shell's words, and no shell runs it.",
)
@click.option(
    "--processes", type=int, help="Models that this machine trains at once, a thread each; by default one a core."
)
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
@engine_options
@quiet_option
def evaluate(
    lake: Path,
    facts: tuple[str, ...],
    methods: tuple[str, ...],
    where: str | None,
    at: int | None,
    depth: int,
    tail_patch: int,
    optimizer: str,
    lr: float | None,
    model: str | None,
    lds: int,
    lds_fraction: float,
    counterfactual: int,
    without: int,
    draws: int,
    opponents: bool,
    retrain_seeds: int,
    retrain_epochs: int,
    retrain_batch: int,
    retrain_lr: float,
    retrain_command: str | None,
    processes: int | None,
    resamples: int,
    seed: int,
    output: Path | None,
    engine: str,
    ray_address: str | None,
    quiet: bool,
) -> None:
    """Measure on facts whether methods find the passages that state them, and whether these move the model.

    FACTS are files of JSON Lines or Parquet: prompt, target, and who knows them, doc_keys or passage_ids of what states
    the fact, relation, subject, object, aliases; kind (fact, arithmetic, choice, generation), choices. Sets that come
    with proponent are builtin:facts, builtin:arithmetic, builtin:choice and builtin:generation. Started again with the
    same folder, it computes what is missing.

    \b
    Examples:
      proponent evaluate mylake facts.jsonl --methods trackstar,bm25,random --tail-patch 50 -o results
      proponent evaluate mylake builtin:arithmetic builtin:choice --tail-patch 20 -o results
      proponent evaluate mylake facts.jsonl --lds 64 --retrain-epochs 20 -o results
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    names = [name for one in methods for name in one.split(",") if name.strip()]
    patching = TailPatchSettings(facts=tail_patch, optimizer=optimizer, lr=lr, model=model)
    retraining = RetrainingSettings(
        subsets=lds,
        fraction=lds_fraction,
        counterfactuals=counterfactual,
        without=without,
        draws=draws,
        opponents=opponents,
        seeds=retrain_seeds,
        training=TrainingSettings(epochs=retrain_epochs, batch_size=retrain_batch, learning_rate=retrain_lr),
        command=retrain_command,
        processes=processes,
    )
    with open_lake(lake, engine=engine, ray_address=ray_address) as opened, _stages(quiet=quiet) as tell:
        found = opened.evaluate(
            facts,
            methods=tuple(names),
            filter=where,
            at=at,
            depth=depth,
            tail_patch=patching,
            retraining=retraining,
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
