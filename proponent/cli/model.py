"""`proponent model`: registered checkpoints."""

from pathlib import Path

import click

from .options import lake_argument, output_options, quiet_option
from .output import emit, remark


@click.group()
def model() -> None:
    """Register and list model checkpoints.

    \b
    Example:
      proponent model add mylake ./checkpoint --name mymodel
    """


@model.command()
@lake_argument
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the model in this lake: lower-case letters, digits and _.")
@click.option(
    "--moments",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Optimizer state; by default second_moments.safetensors or optimizer.pt beside the weights.",
)
@click.option(
    "--context",
    type=click.IntRange(min=2),
    metavar="TOKENS",
    help="Most tokens that the model reads at once, where its configuration does not say.",
)
@quiet_option
def add(lake: Path, path: Path, name: str, moments: Path | None, context: int | None, quiet: bool) -> None:
    """Register a checkpoint of transformers, with its optimizer state if there is one.

    PATH is a folder of weights and tokenizer, a folder of adapters that peft saved, or a GGUF file.

    \b
    Example:
      proponent model add mylake ./checkpoint --name mymodel
    """
    from proponent.lake import open as open_lake

    with open_lake(lake) as opened:
        facts = opened.add_model(path, name=name, moments=moments, context_length=context)
    state = f"second moments from {facts['moments']}" if facts["moments"] else "no optimizer state"
    remark(f"registered {name}: {facts['architecture']}, {facts['parameters']:,} parameters, {state}", quiet=quiet)


@model.command("list")
@lake_argument
@output_options
def list_models(lake: Path, form: str | None, output: Path | None, quiet: bool) -> None:
    """List the registered checkpoints.

    \b
    Example:
      proponent model list mylake --format json
    """
    from proponent.lake import open as open_lake

    with open_lake(lake) as opened:
        rows = opened.sql(
            "SELECT name, architecture, n_parameters, n_layers, context_length, weights_hash, moments_path, path "
            "FROM models ORDER BY name"
        )
    emit(rows.to_arrow(), form=form, output=output)


@model.command()
@lake_argument
@click.argument("name", required=False)
@output_options
def show(lake: Path, name: str | None, form: str | None, output: Path | None, quiet: bool) -> None:
    """Show which of a model's parameters an encoder sees, and which it does not.

    \b
    Example:
      proponent model show mylake mymodel
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    with open_lake(lake) as opened:
        rows = opened.coverage(name)
    emit(pa.Table.from_pylist(rows), form=form, output=output)
    covered = sum(row["share"] for row in rows if row["covered"])
    warning = "; less than half: influence through the rest is not seen" if covered < 0.5 else ""
    remark(f"an encoder sees {covered:.1%} of the trained parameters{warning}", quiet=quiet)
