"""`proponent mark`: say which documents the model was trained on."""

from pathlib import Path
from typing import Final

import click

from .options import lake_argument, output_options
from .output import emit, remark

_SAID: Final = {"yes": True, "no": False, "unknown": None}


@click.command()
@lake_argument
@click.option(
    "--where",
    required=True,
    metavar="FILTER",
    help="SQL predicate as for `trace --filter`; a document is meant if one of its passages passes.",
)
@click.option(
    "--trained-on", "said", required=True, type=click.Choice(list(_SAID)), help="Was it in the model's training data?"
)
@click.option("--dry-run", is_flag=True, help="Only count what would change.")
@output_options
def mark(lake: Path, where: str, said: str, dry_run: bool, form: str | None, output: Path | None, quiet: bool) -> None:
    """Say of documents whether the model was trained on them.

    The score of a passage that the model was not trained on says what training on it would do. Marks are in column
    `trained_on`, for SQL and filters, and reports tell. They stay when the same rows are ingested again, and go with
    the content that they were about.

    \b
    Example:
      proponent mark mylake --where "published >= DATE '2024-01-01'" --trained-on no --dry-run
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    with open_lake(lake) as opened:
        counts = opened.mark(where, trained_on=_SAID[said], dry_run=dry_run)
    would = "would be marked" if dry_run else "marked"
    remark(f"{counts['changed']} of {counts['documents']} documents {would}: trained_on {said}", quiet=quiet)
    if form or output:
        emit(pa.Table.from_pylist([counts]), form=form, output=output)
