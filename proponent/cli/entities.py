"""`proponent entities`: entities found in passages that are there."""

from pathlib import Path

import click

from .options import lake_argument, output_options
from .output import emit, remark


@click.command()
@lake_argument
@click.argument("gazetteer", type=click.Path(path_type=Path))
@click.option("--name", default="names", show_default=True, help="Name of the gazetteer; its mentions are replaced.")
@output_options
def entities(lake: Path, gazetteer: Path, name: str, form: str | None, output: Path | None, quiet: bool) -> None:
    """Find the entities of a gazetteer in all passages.

    GAZETTEER has rows with `entity` and, if there are any, `aliases` and `type`. Names are found whatever their case,
    as whole words, the longest first.

    \b
    Example:
      proponent entities mylake countries.jsonl --name countries
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    with open_lake(lake) as opened:
        counts = opened.extract_entities(gazetteer, name=name)
    replaced = f"; {counts['replaced']} of before replaced" if counts["replaced"] else ""
    remark(
        f"{counts['mentions']} mentions of {counts['entities']} entities in {counts['passages']} passages{replaced}",
        quiet=quiet,
    )
    if form or output:
        emit(pa.Table.from_pylist([counts]), form=form, output=output)
