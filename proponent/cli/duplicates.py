"""`proponent duplicates`: documents that say nearly the same."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proponent.schema.settings import SIMILAR

from .options import lake_argument, output_options
from .output import emit, remark
from .progress import progress

if TYPE_CHECKING:
    from proponent.lake import Lake


@click.command()
@lake_argument
@click.option(
    "--threshold",
    type=float,
    default=SIMILAR,
    show_default=True,
    help="Least share of their shingles that two near-duplicates have in common, from 0.5 to 1.",
)
@output_options
def duplicates(lake: Path, threshold: float, form: str | None, output: Path | None, quiet: bool) -> None:
    """Mark documents that say nearly the same as another one.

    Nothing is dropped: relation `near_duplicates` has a row for every such document, with the one that it repeats and
    their similarity, the share of their shingles (five words in a row) that both have. All documents are compared, and
    the marks of an earlier run replaced.

    \b
    Example:
      proponent duplicates mylake --threshold 0.9
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    with open_lake(lake) as opened:
        counts = mark(opened, threshold=threshold, quiet=quiet)
    if form or output:
        emit(pa.Table.from_pylist([counts]), form=form, output=output)


def mark(lake: "Lake", *, threshold: float = SIMILAR, quiet: bool) -> dict[str, int]:
    """Mark near-duplicates, and say how many there are."""
    with progress("comparing", quiet=quiet) as advance:
        counts = lake.mark_near_duplicates(threshold=threshold, progress=advance)
    remark(
        f"{counts['near_duplicates']} of {counts['documents']} documents are near-duplicates of "
        f"{counts['originals']} others (similarity {threshold:g} or more)",
        quiet=quiet,
    )
    return counts
