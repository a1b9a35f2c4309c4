"""`proponent import-traces`: results of other tools beside the lake's own."""

from pathlib import Path

import click

from proponent.schema.settings import SIDES

from .options import lake_argument, quiet_option
from .output import remark


@click.command("import-traces")
@lake_argument
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", required=True, help="Whose results they are; they become traces of method imported:NAME.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["viewer", "trec"]),
    help="Form; by default what the suffix says, .jsonl or .trec.",
)
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What the ids of a trec run stand for: JSON Lines with id, prompt and target.",
)
@click.option("--query-set", metavar="NAME", help="Set that new queries belong to.")
@click.option(
    "--query-id",
    metavar="FIELD",
    help="Field of the queries' metadata that is their id in the file; by default the lake's own ids.",
)
@click.option(
    "--side",
    type=click.Choice(SIDES),
    default="proponent",
    show_default=True,
    help="Side of the hits of a trec run; as opponents their scores get the other sign.",
)
@click.option("--skip-unknown", is_flag=True, help="Leave out hits of passages that the lake does not have.")
@quiet_option
def import_traces(
    lake: Path,
    file: Path,
    name: str,
    form: str | None,
    queries: Path | None,
    query_set: str | None,
    query_id: str | None,
    side: str,
    skip_unknown: bool,
    quiet: bool,
) -> None:
    """Store the results of another tool as traces, to query and report them beside the lake's own.

    A viewer file (the TrackStar paper's records, as `proponent export --format viewer` writes them) has its queries in
    it; passages are known by their ids, else by exactly their text. A trec run names queries and passages by their ids.

    \b
    Examples:
      proponent import-traces mylake results.jsonl --name official
      proponent import-traces mylake splade.trec --name splade --queries facts.jsonl
    """
    from proponent.lake import open as open_lake

    from .questions import read_queries

    asked = read_queries(queries) if queries else []
    with open_lake(lake) as opened:
        done = opened.import_traces(
            file,
            name=name,
            form=form,
            queries=asked,
            query_set=query_set or (queries.stem if queries else None),
            query_id=query_id,
            side=side,
            skip_unknown=skip_unknown,
        )
    ids = list(dict.fromkeys(done["traces"]))
    unknown = f"; left out {done['unknown']:,} hits of passages that the lake does not have" if done["unknown"] else ""
    remark(
        f"stored {done['hits']:,} hits as {len(ids):,} trace{'' if len(ids) == 1 else 's'} of method imported:{name}, "
        f"{', '.join(ids[:3])}{' ...' if len(ids) > 3 else ''}{unknown}",
        quiet=quiet,
    )
