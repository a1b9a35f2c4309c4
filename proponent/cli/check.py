"""`proponent check`: whether everything that a lake stores is there, whole, and what the rest says."""

import sys
from pathlib import Path
from typing import Final

import click

from .options import lake_argument, output_options
from .output import emit, remark
from .progress import progress

_WRONG: Final = ("damage", "leftover")


@click.command()
@lake_argument
@click.option("--deep", is_flag=True, help="Also read the files that only earlier snapshots need.")
@click.option("--repair", is_flag=True, help="Mend what can be mended without guessing, then say what is left.")
@click.option(
    "--go-back",
    is_flag=True,
    help="Put damaged documents back to the newest snapshot that has them whole; what came later is lost.",
)
@click.option(
    "--catch-up",
    is_flag=True,
    help="Bring a catalog that was restored from an older copy up to what the tables have; then check.",
)
@output_options
def check(
    lake: Path,
    deep: bool,
    repair: bool,
    go_back: bool,
    catch_up: bool,
    form: str | None,
    output: Path | None,
    quiet: bool,
) -> None:
    """Compare everything that a lake stores with what it says of it; exit with 1 when something is wrong.

    Every row is read and compared with the hash of what was written, and with the rows of other tables. A line says
    what is wrong, where, and what to do: `damage` is lost or changed data, `leftover` what a dead process has left;
    a `note` is nothing wrong. --repair removes leftovers, finishes what was being published, builds indexes again and
    removes damaged encodings, which `encode` makes again. A catalog that was restored from a copy older than the tables
    is refused by every other command; --catch-up gives it back the snapshots since, without their questions and traces.

    \b
    Example:
      proponent check mylake --deep
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    with open_lake(lake, may_be_older=True) as opened, progress("rows compared", quiet=quiet) as advance:
        found = opened.catch_up() if catch_up else []
        found += opened.check(deep=deep, repair=repair, go_back=go_back, progress=advance)
    columns = pa.schema([(name, pa.string()) for name in ("grade", "table", "where", "what", "remedy")])
    if found or form or output:
        emit(pa.Table.from_pylist(found, columns), form=form, output=output)
    wrong = sum(finding["grade"] in _WRONG for finding in found)
    mended = sum(finding["grade"] == "mended" for finding in found)
    told = f"{mended} mended; " if repair or go_back or catch_up else ""
    remark(f"{told}{f'{wrong} wrong' if wrong else 'nothing wrong'} in {lake}", quiet=quiet)
    if wrong:
        sys.exit(1)
