"""`proponent sql`: SQL over everything in a lake."""

from pathlib import Path
from typing import Any

import click

from .options import Size, lake_argument, output_options
from .output import emit


@click.command()
@lake_argument
@click.argument("query")
@click.option("--at", type=int, metavar="SNAPSHOT", help="Read the lake as it was at a snapshot.")
@click.option("--memory-limit", type=Size(), metavar="SIZE", help="Memory of the query.  [default: 4GiB]")
@click.option("--time-limit", "time_limit_s", type=float, metavar="SECONDS", help="Its time.  [default: 300]")
@click.option("--max-rows", type=int, metavar="N", help="Fail rather than give more rows.")
@click.option(
    "--max-bytes",
    type=Size(),
    metavar="SIZE",
    help="Fail rather than give a larger result.  [default: 1GiB; with -o, no limit]",
)
@output_options
def sql(
    lake: Path, query: str, at: int | None, form: str | None, output: Path | None, quiet: bool, **limits: Any
) -> None:
    """Run one SELECT over documents, passages, mentions, encodings, queries, traces, hits and influence.

    `SHOW TABLES` lists the relations, `DESCRIBE influence` the columns of one. The statement is DuckDB's SQL; it can
    read the lake and nothing else.

    \b
    Example:
      proponent sql mylake "SELECT source, count(*) AS hits FROM influence GROUP BY source ORDER BY hits DESC"
    """
    from proponent.lake import open as open_lake

    given = {name: limit for name, limit in limits.items() if limit is not None}
    unlimited = {"max_bytes": None} if output is not None else {}
    with open_lake(lake) as opened:
        result = opened.sql(query, at=at, end_process=True, **unlimited | given)
    emit(result.to_arrow(), form=form, output=output)
