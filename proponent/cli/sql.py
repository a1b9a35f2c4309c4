"""`proponent sql`: SQL over everything in a lake."""

from pathlib import Path

import click

from .options import lake_argument, output_options
from .output import emit


@click.command()
@lake_argument
@click.argument("query")
@click.option("--at", type=int, metavar="SNAPSHOT", help="Read the lake as it was at a snapshot.")
@output_options
def sql(lake: Path, query: str, at: int | None, form: str | None, output: Path | None, quiet: bool) -> None:
    """Run one SELECT over documents, passages, mentions, encodings, queries, traces, hits and influence.

    `SHOW TABLES` lists the relations, `DESCRIBE influence` the columns of one. The statement is DuckDB's SQL; it can
    read the lake and nothing else.

    \b
    Example:
      proponent sql mylake "SELECT source, count(*) AS hits FROM influence GROUP BY source ORDER BY hits DESC"
    """
    from proponent.lake import open as open_lake

    with open_lake(lake) as opened, opened.stream(query, at=at) as rows:
        emit(rows, form=form, output=output)
