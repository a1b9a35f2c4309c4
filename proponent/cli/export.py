"""`proponent export`: a lake, or rows of it, in other people's formats."""

from pathlib import Path

import click

from .options import FORMS, lake_argument, quiet_option, to_write
from .output import remark


@click.command()
@lake_argument
@click.option("--sql", "query", metavar="QUERY", help="Write the rows of one SELECT.")
@click.option(
    "--traces",
    multiple=True,
    metavar="TRACE",
    help="Write the hits of a trace, as relation influence has them; give it again for more traces.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    callback=to_write,
    help="File to write; its suffix names the form.",
)
@click.option("--to", "form", type=click.Choice(["duckdb", *FORMS]), help="Form, where the suffix does not say it.")
@click.option("--at", type=int, metavar="SNAPSHOT", help="Read the lake as it was at a snapshot.")
@click.option("--without-text", is_flag=True, help="Leave the texts of passages out of a DuckDB file.")
@quiet_option
def export(
    lake: Path,
    query: str | None,
    traces: tuple[str, ...],
    output: Path,
    form: str | None,
    at: int | None,
    without_text: bool,
    quiet: bool,
) -> None:
    """Write a lake, or rows of it, into a file that other programs read.

    A .duckdb file has the documents, passages, mentions, questions and hits of the lake, with views and comments and
    without vectors, for every program that opens DuckDB files. Rows of a query or of traces go into .csv, .json,
    .jsonl, .md, .parquet, .arrow or .xlsx, however many they are.

    \b
    Examples:
      proponent export mylake -o mylake.duckdb
      proponent export mylake --traces last -o hits.xlsx
    """
    from proponent.lake import open as open_lake

    with open_lake(lake) as opened:
        counts = opened.export(output, sql=query, traces=traces, at=at, texts=not without_text, form=form)
    told = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items() if n or len(counts) == 1)
    remark(f"wrote {output}: {told}", quiet=quiet)
