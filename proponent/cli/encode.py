"""`proponent encode`, `requantise` and `index`: vectors for passages, their codes, and an index over them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proponent.schema.settings import CODES, DEFAULT_CODES, DEFAULT_INDEX, INDEX_KINDS, MOMENTS, PRECISIONS

from .options import device_map_option, engine_options, lake_argument, metrics_option, output_options, serving_metrics
from .output import emit, remark, told_fidelity
from .progress import progress, run_progress

if TYPE_CHECKING:
    from proponent.lake import Lake
    from proponent.schema.settings import MetricsSettings


@click.command()
@lake_argument
@click.option("--model", help="Registered model; by default the only one.")
@click.option("--encoder", help="Name of the encoder; by default the model's name.")
@click.option(
    "--moments",
    type=click.Choice(MOMENTS),
    default="auto",
    show_default=True,
    help="Second moments that correct the gradients: the optimizer's file by rows and columns, or (adam) weight by "
    "weight, an estimate from the corpus, or none.",
)
@click.option(
    "--blocks", type=int, default=0, help="Groups of neighbouring layers (B); by default a layer each, up to 8."
)
@click.option(
    "--side",
    type=int,
    default=0,
    help="Side of a projected gradient (s); d = 2 B s^2. By default 40, or 32 with 7 blocks and more.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the projections and of the sample.")
@click.option("--sample", type=int, help="Passages to fit on; by default 4 s^2.")
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True, help="Of the model's passes."
)
@click.option(
    "--codes",
    type=click.Choice(CODES),
    help=f"Format that a new encoder's vectors are stored in; by default {DEFAULT_CODES}.",
)
@click.option("--only", metavar="FILTER", help="Encode only passages that pass a filter.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes that encode, each of which loads the model; by default 1, on Ray one for each GPU, or CPU.",
)
@engine_options
@device_map_option
@click.option("--truncate", is_flag=True, help="Cut passages that are longer than the model's context.")
@metrics_option
@output_options
def encode(
    lake: Path,
    model: str | None,
    encoder: str | None,
    moments: str,
    blocks: int,
    side: int,
    seed: int,
    sample: int | None,
    precision: str,
    codes: str | None,
    only: str | None,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    device_map: Any,
    truncate: bool,
    metrics: "MetricsSettings | None",
    form: str | None,
    output: Path | None,
    quiet: bool,
) -> None:
    """Fit an encoder where there is none yet, then encode every passage that it has not encoded.

    \b
    Example:
      proponent encode mylake --model mymodel --blocks 4 --side 64
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake
    from proponent.schema.settings import EncoderSettings

    settings = EncoderSettings(moments=moments, blocks=blocks, side=side, seed=seed, sample=sample, precision=precision)
    with (
        open_lake(lake, engine=engine, ray_address=ray_address, device_map=device_map) as opened,
        serving_metrics(opened.store, metrics, quiet=quiet),
        run_progress(quiet=quiet) as tell,
    ):
        counts = opened.encode(
            model,
            encoder=encoder,
            settings=settings,
            codes=codes,
            truncate=truncate,
            only=only,
            workers=workers,
            progress=tell,
        )
    left = f"; left out: {counts.too_long} too long" if counts.too_long else ""
    left += f", {counts.without_loss} without a loss" if counts.without_loss else ""
    left += f", {counts.not_finite} not finite" if counts.not_finite else ""
    remark(f"encoded {counts.encoded} new texts{left}", quiet=quiet)
    if counts.fidelity:
        remark(told_fidelity(counts.fidelity), quiet=quiet)
    if form or output:
        emit(pa.Table.from_pylist([vars(counts)]), form=form, output=output)


@click.command()
@lake_argument
@click.option("--encoder", help="Encoder whose vectors to store anew; by default the only one.")
@click.option("--codes", type=click.Choice(CODES), required=True, help="Format to store them in.")
@output_options
def requantise(lake: Path, encoder: str | None, codes: str, form: str | None, output: Path | None, quiet: bool) -> None:
    """Store an encoder's vectors in a coarser format, without the model, and measure what that loses.

    From float16 to int8 or int4, or from int8 to int4. Earlier snapshots keep the finer vectors.

    \b
    Example:
      proponent requantise mylake --encoder mymodel --codes int4
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    with open_lake(lake) as opened, progress("requantising", quiet=quiet) as advance:
        made = opened.requantise(encoder, codes=codes, progress=advance)
    remark(f"encoder {made['encoder']}: {told_fidelity(made['fidelity'])}", quiet=quiet)
    if form or output:
        emit(pa.Table.from_pylist([made]), form=form, output=output)


@click.command()
@lake_argument
@click.option("--encoder", help="Encoder to index; by default every one that has encoded something.")
@click.option(
    "--full-text/--no-full-text",
    default=True,
    show_default=True,
    help="Index the passages' texts, too, for `trace --method bm25` and `--method hybrid`.",
)
@click.option(
    "--kind",
    type=click.Choice(INDEX_KINDS),
    help="rq3 keeps 3 bits a component; rq2 keeps 2 and scores more candidates. By default the present index's kind, "
    f"or {DEFAULT_INDEX}.",
)
@output_options
def index(
    lake: Path,
    encoder: str | None,
    full_text: bool,
    kind: str | None,
    form: str | None,
    output: Path | None,
    quiet: bool,
) -> None:
    """Build or update the indexes of texts, of looked-up columns, and of an encoder's vectors with its measured recall.

    The vector index is used by `trace --approximate` alone; every other trace is exact. Its recall is measured against
    the exact scan, with stored queries where there are some, for every method that the encoder allows, every fitted
    curvature, and 10 and 100 hits; `proposed` is how many candidates for each hit are scored exactly. A lake that has
    no encoder yet gets the other indexes.

    \b
    Example:
      proponent index mylake --encoder mymodel
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    with open_lake(lake) as opened, progress("indexing", quiet=quiet) as advance:
        # A wrong name is told before anything is built.
        encoders = opened.encoders() if encoder is None else [opened.require_encoder(encoder)]
        if not encoders and not full_text:
            encoders = [opened.require_encoder()]
        opened.index_columns()
        if full_text:
            text = opened.index_text()
            remark(f"full-text index: {text['rows']:,} passages, {text['added']:,} of them new", quiet=quiet)
        measured = [row for name in encoders for row in _index_of(opened, name, kind, advance, quiet)]
    if measured:
        emit(pa.Table.from_pylist(measured), form=form, output=output)


def _index_of(
    lake: "Lake", encoder: str, kind: str | None, advance: Callable[[int], object], quiet: bool
) -> list[dict[str, Any]]:
    """Index an encoder's vectors; return a row for every recall that was measured."""
    built = lake.index(encoder, kind=kind, progress=advance)
    remark(
        f"index {built['kind']} of encoder {built['encoder']}: {built['rows']:,} texts, "
        f"{built['bytes'] / built['rows']:,.0f} bytes each; "
        f"recall measured with {built['queries']} {built['measured_with']}",
        quiet=quiet,
    )
    about = {name: built[name] for name in ("encoder", "kind", "rows", "bytes")}
    how = {name: built[name] for name in ("queries", "measured_with")}
    return [about | one | how for one in built["measured"]]
