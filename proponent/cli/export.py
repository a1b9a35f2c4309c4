"""`proponent export`: a lake, or rows of it, in other people's formats."""

from pathlib import Path
from typing import Final

import click

from proponent.schema.settings import SIDES

from .options import FORMS, lake_argument, quiet_option, to_write
from .output import remark

_EXCHANGED: Final = ("viewer", "trec", "qrels", "datasets")
"""Forms of other tools; those of `query.export.exports`, which takes its time to import."""


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
    type=click.Path(path_type=Path),
    callback=to_write,
    help="File to write, whose suffix names the form; for datasets a new folder.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["duckdb", *FORMS, *_EXCHANGED]),
    help="Form, where the suffix does not say it.",
)
@click.option("--at", type=int, metavar="SNAPSHOT", help="Read the lake as it was at a snapshot.")
@click.option("--without-text", is_flag=True, help="Leave the texts of passages out of a DuckDB file.")
@click.option(
    "--query-id",
    metavar="FIELD",
    help="Field of the queries' metadata that is their id in viewer, trec and qrels; by default the lake's own ids.",
)
@click.option(
    "--side",
    type=click.Choice(SIDES),
    default="proponent",
    show_default=True,
    help="Hits that a trec run lists; the scores of opponents get the other sign.",
)
@click.option("--tag", metavar="WORD", help="Last word of every line of a trec run; by default the method.")
@quiet_option
def export(
    lake: Path,
    query: str | None,
    traces: tuple[str, ...],
    output: Path,
    form: str | None,
    at: int | None,
    without_text: bool,
    query_id: str | None,
    side: str,
    tag: str | None,
    quiet: bool,
) -> None:
    """Write a lake, or rows of it, into a file that other programs read.

    A .duckdb file has the documents, passages, mentions, questions and hits of the lake, with views and comments and
    without vectors, for every program that opens DuckDB files. Rows of a query or of traces go into .csv, .json,
    .jsonl, .md, .parquet, .arrow or .xlsx, however many they are.

    Forms of other tools: viewer, the records of traces that the TrackStar paper's viewer reads; trec, a run of traces
    for trec_eval; qrels, the passages that queries' metadata names as stating their facts, or rows of a query with
    query_id, passage_id and relevance; datasets, rows as a folder for datasets.load_from_disk.

    \b
    Examples:
      proponent export mylake -o mylake.duckdb
      proponent export mylake --traces last -o hits.xlsx
      proponent export mylake --traces last --format viewer -o results.jsonl
      proponent export mylake --sql "SELECT passage_id, text FROM passages" --format datasets -o passages
    """
    from proponent.lake import open as open_lake

    with open_lake(lake) as opened:
        counts = opened.export(
            output,
            sql=query,
            traces=traces,
            at=at,
            texts=not without_text,
            form=form,
            query_id=query_id,
            side=side,
            tag=tag,
        )
    told = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in counts.items() if n or len(counts) == 1)
    remark(f"wrote {output}: {told}", quiet=quiet)
