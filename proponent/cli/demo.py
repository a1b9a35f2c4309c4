"""`proponent demo`: the whole job on real text."""

from pathlib import Path
from typing import Any

import click

from .options import LakeName, engine_options, quiet_option
from .output import remark
from .progress import progress, run_progress


@click.command()
@click.argument("folder", default="proponent-demo", type=click.Path(path_type=Path, file_okay=False))
@click.option("--train", is_flag=True, help="Train the model again instead of using the one that is installed.")
@click.option(
    "--lake",
    type=LakeName(),
    metavar="LAKE",
    help="Where the lake is to lie, a folder or a URL; by default FOLDER/lake.",
)
@click.option("--catalog", metavar="URL", help="SQLAlchemy URL of the catalog; by default SQLite inside the lake.")
@engine_options
@quiet_option
def demo(
    folder: Path,
    train: bool,
    lake: Any,
    catalog: str | None,
    engine: str,
    ray_address: str | None,
    quiet: bool,
) -> None:
    """Trace what a small language model knows to the passages that taught it, and write a report.

    Makes a lake of some 2,400 short documents about countries, encodes them, traces some 300 facts, asks three
    questions in SQL and writes FOLDER/report.html. Started again, it goes on where it was stopped. Needs the
    extra `demo`.

    \b
    Examples:
      proponent demo proponent-demo
      proponent demo proponent-demo --lake s3://bucket/demo/lake --catalog "$PROPONENT_CATALOG" --engine ray
    """
    from proponent.demo.run import run

    run(
        folder,
        lake=lake,
        catalog=catalog,
        engine=engine,
        ray_address=ray_address,
        train=train,
        echo=(lambda _text: None) if quiet else click.echo,
        bar=lambda label: progress(label, quiet=quiet),
        watch=lambda: run_progress(quiet=quiet),
    )
    remark(f"open {folder / 'report.html'} in a browser", quiet=quiet)
