"""`proponent demo`: the whole job on real text."""

from pathlib import Path

import click

from .options import quiet_option
from .output import remark
from .progress import progress, run_progress


@click.command()
@click.argument("folder", default="proponent-demo", type=click.Path(path_type=Path, file_okay=False))
@click.option("--train", is_flag=True, help="Train the model again instead of using the one that is installed.")
@quiet_option
def demo(folder: Path, train: bool, quiet: bool) -> None:
    """Trace what a small language model knows to the passages that taught it, and write a report.

    Makes a lake of some 2,400 short documents about countries, encodes them, traces some 300 facts, asks three
    questions in SQL and writes FOLDER/report.html. Started again, it goes on where it was stopped. Needs the
    extra `demo`.

    \b
    Example:
      proponent demo proponent-demo
    """
    from proponent.demo.run import run

    run(
        folder,
        train=train,
        echo=(lambda _text: None) if quiet else click.echo,
        bar=lambda label: progress(label, quiet=quiet),
        watch=lambda: run_progress(quiet=quiet),
    )
    remark(f"open {folder / 'report.html'} in a browser", quiet=quiet)
