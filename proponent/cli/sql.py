"""`proponent sql`: SQL over everything in a lake, one statement or a shell."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proponent.schema.settings import SqlSettings

from .options import Size, lake_argument, output_options
from .output import emit, remark

if TYPE_CHECKING:
    from proponent.lake import Lake

    from .shell import Ask


@click.command()
@lake_argument
@click.argument("query", required=False)
@click.option("--at", type=int, metavar="SNAPSHOT", help="Read the lake as it was at a snapshot.")
@click.option("--memory-limit", type=Size(), metavar="SIZE", help="Memory of a statement.  [default: 4GiB]")
@click.option("--time-limit", "time_limit_s", type=float, metavar="SECONDS", help="Its time.  [default: 300]")
@click.option("--max-rows", type=int, metavar="N", help="Fail rather than give more rows.")
@output_options
def sql(
    lake: Path,
    query: str | None,
    at: int | None,
    form: str | None,
    output: Path | None,
    quiet: bool,
    **limits: float | None,
) -> None:
    """Run one SELECT over documents, passages, mentions, encodings, queries, traces, hits and influence.

    Without a QUERY it is a shell, in a terminal, or runs the statements of stdin up to the first error. As a QUERY,
    `.tables` lists the relations, `.schema influence` the columns of one, and `.examples` shows queries to start from.
    The statements are DuckDB's SQL; they can read the lake and nothing else.

    \b
    Examples:
      proponent sql mylake "SELECT source, count(*) AS hits FROM influence GROUP BY source ORDER BY hits DESC"
      proponent sql mylake
    """
    from proponent.lake import open as open_lake
    from proponent.query.examples import examples_text

    from .shell import listing

    if query is None and output is not None:
        raise click.UsageError("-o needs a QUERY; in the shell there is .output FILE")
    chosen = {name: limit for name, limit in limits.items() if limit is not None}
    with open_lake(lake) as opened, _asking(opened, at, end_process=True, **chosen) as ask:
        if query is None:
            _shell(opened, ask, form or "table", quiet=quiet)
        elif query.strip().rstrip(";") == ".examples":
            click.echo(examples_text())
        else:
            with listing(query, ask) if query.lstrip().startswith(".") else ask(query) as rows:
                emit(rows, form=form, output=output)


@contextmanager
def _asking(opened: "Lake", at: int | None, **settings: Any) -> "Iterator[Ask]":
    """Give what runs a statement: at what is newest then, or at one snapshot that is read for all of them."""
    if at is None:
        yield partial(opened.stream, **settings)
    else:
        with opened._session_at(at, settings=SqlSettings(**settings)) as session:
            yield session.stream


def _shell(opened: "Lake", ask: "Ask", mode: str, *, quiet: bool) -> None:
    from .shell import MODES, Leave, Shell

    if mode not in MODES:
        raise click.UsageError(f"the shell shows {', '.join(MODES)}; in the shell, .output FILE writes others")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        try:
            Shell(ask, mode=mode).run_script(sys.stdin)
        except Leave:
            return
        return
    from .prompt import talk

    remark(f"{opened.store.root}, read-only. There are .help, .tables and .examples; Ctrl-D leaves.", quiet=quiet)
    talk(Shell(ask, mode=mode, terminal=True), ask)
