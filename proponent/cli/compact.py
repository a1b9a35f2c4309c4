"""`proponent compact`: files that nobody needs go, and withdrawn documents are forgotten."""

from pathlib import Path
from typing import Any

import click

from .options import lake_argument, output_options
from .output import emit, printable, remark
from .progress import progress


@click.command()
@lake_argument
@click.option("--forget", is_flag=True, help="Erase what is left of withdrawn documents, on disk and in the catalog.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@output_options
def compact(lake: Path, forget: bool, dry_run: bool, form: str | None, output: Path | None, quiet: bool) -> None:
    """Write tables of many small files anew, and remove files that no snapshot needs.

    With --forget, withdrawn documents are erased: their rows, the encodings and index entries made of them, rejected
    rows of their corpora, reports in the lake's reports/ that quote them, and their keys. Earlier snapshots that have
    them cannot be read any more. It waits for whoever writes to the lake and lets nobody write meanwhile; when it is
    killed, start it again.

    \b
    Example:
      proponent compact mylake --forget --dry-run
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    with open_lake(lake) as opened, progress("writing anew", quiet=quiet or dry_run) as advance:
        done = opened.compact(forget=forget, dry_run=dry_run, progress=advance)
    _tell(done, forget=forget, dry_run=dry_run, quiet=quiet)
    if form or output:
        emit(pa.Table.from_pylist([done]), form=form, output=output)


def _tell(done: dict[str, Any], *, forget: bool, dry_run: bool, quiet: bool) -> None:
    would = "would be " if dry_run else ""
    tables = ", ".join(done["tables"]) or "none"
    remark(f"tables {would}written anew: {tables}; {done['bytes']:,} bytes of files {would}removed", quiet=quiet)
    if forget:
        snapshots = ", ".join(map(str, done["snapshots"])) or "none"
        remark(
            f"{done['documents']} withdrawn documents {would}forgotten, and {done['rejects']} rejected rows of their "
            f"corpora; snapshots {would}erased: {snapshots}",
            quiet=quiet,
        )
    for report in done["reports"]:
        remark(f"  report {would}removed, since it quotes them: {printable(report)}", quiet=quiet)
