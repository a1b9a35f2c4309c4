"""`proponent entities`: entities found in passages that are there."""

from pathlib import Path

import click

from .options import lake_argument, output_options
from .output import emit, remark
from .progress import progress


@click.command()
@lake_argument
@click.argument("gazetteer", required=False, type=click.Path(path_type=Path))
@click.option(
    "--spacy", metavar="MODEL", help="A spaCy pipeline instead: an installed package, or a saved pipeline's folder."
)
@click.option("--name", help="Name of the mentions' origin; by default names, or the pipeline's package or folder.")
@output_options
def entities(
    lake: Path,
    gazetteer: Path | None,
    spacy: str | None,
    name: str | None,
    form: str | None,
    output: Path | None,
    quiet: bool,
) -> None:
    """Find entities in the passages that were not searched for them yet.

    GAZETTEER has rows with `entity` and, if there are any, `aliases` and `type`. Names are found whatever their case,
    as whole words, the longest first. With `--spacy`, a pipeline says what is an entity: its config.cfg may call any
    function of the packages that are installed, so take pipelines from people whose packages you would install.

    Passages that were searched before are left alone. Another gazetteer or pipeline under the same name searches all
    of them, and its mentions take the place of the former's.

    \b
    Examples:
      proponent entities mylake countries.jsonl --name countries
      proponent entities mylake --spacy en_core_web_sm
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    with open_lake(lake) as opened, progress("finding entities", quiet=quiet) as advance:
        counts = opened.extract_entities(gazetteer, spacy=spacy, name=name, progress=advance)
    told = f"{counts['mentions']} mentions of {counts['entities']} entities in {counts['passages']} passages"
    told += f"; {counts['known']} passages searched before" if counts["known"] else ""
    told += f"; {counts['replaced']} mentions of before replaced" if counts["replaced"] else ""
    remark(told, quiet=quiet)
    if form or output:
        emit(pa.Table.from_pylist([counts]), form=form, output=output)
