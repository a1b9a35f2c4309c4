"""`proponent delete` and `history`: withdraw documents; who added what when."""

from pathlib import Path

import click

from .options import lake_argument, output_options
from .output import emit, remark


@click.command()
@lake_argument
@click.option(
    "--where",
    required=True,
    metavar="FILTER",
    help="SQL predicate as for `trace --filter`; a document goes if one of its passages passes.",
)
@click.option("--reason", help="Why, to be kept with the withdrawal.")
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
@output_options
def delete(
    lake: Path, where: str, reason: str | None, dry_run: bool, form: str | None, output: Path | None, quiet: bool
) -> None:
    """Withdraw documents, with their passages, mentions, encodings and hits.

    They are hidden in earlier snapshots, too, and stay out when their files are ingested again. The bytes of the files
    that earlier snapshots name remain on disk.

    \b
    Example:
      proponent delete mylake --where "doc_key = 'a17'" --reason "the author asked" --dry-run
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    with open_lake(lake) as opened:
        counts = opened.delete(where, reason=reason, dry_run=dry_run)
    what = "would be withdrawn" if dry_run else "withdrawn"
    remark(
        f"{counts['documents']} documents {what}: {counts['passages']} passages, {counts['mentions']} mentions, "
        f"{counts['encodings']} encodings, {counts['hits']} hits of {counts['traces']} traces",
        quiet=quiet,
    )
    if form or output:
        emit(pa.Table.from_pylist([counts]), form=form, output=output)


@click.command()
@lake_argument
@output_options
def history(lake: Path, form: str | None, output: Path | None, quiet: bool) -> None:
    """List what changed a lake, newest first: when, by which command, on what, and with which result.

    \b
    Example:
      proponent history mylake
    """
    from proponent.lake import open as open_lake

    with open_lake(lake) as opened:
        rows = opened.history()
    emit(rows.to_arrow(), form=form, output=output)
