"""`proponent trace`: which passages moved the model towards a target, or away from it."""

from pathlib import Path
from typing import Any

import click

from proponent.schema.settings import METHODS

from .options import lake_argument, output_options
from .output import emit, printable, remark
from .progress import progress


@click.command()
@lake_argument
@click.option("--prompt", help="What the model was given.")
@click.option("--target", help="What it said; without it the model completes the prompt.")
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Many queries: JSON Lines with prompt and target.",
)
@click.option("-k", type=int, default=10, show_default=True, help="Proponents and opponents to find.")
@click.option("--filter", "where", metavar="FILTER", help="SQL predicate that is applied before the search.")
@click.option(
    "--method", type=click.Choice(METHODS), default="trackstar", show_default=True, help="Attribution method."
)
@click.option("--curvature", metavar="NAME", help="Curvature of a task; by default the encoder's own.")
@click.option("--encoder", help="Encoder; by default the only one that the method can use.")
@click.option("--approximate", is_flag=True, help="Use the vector index instead of the exact scan.")
@output_options
def trace(
    lake: Path,
    prompt: str | None,
    target: str | None,
    queries: Path | None,
    k: int,
    where: str | None,
    method: str,
    curvature: str | None,
    encoder: str | None,
    approximate: bool,
    form: str | None,
    output: Path | None,
    quiet: bool,
) -> None:
    """Find the training passages that pushed the model towards a target, and those that pushed it away.

    The filter is one SQL expression over documents and passages; entity('France') asks for passages that mention it.

    \b
    Example:
      proponent trace mylake --prompt "The capital of France is" --target " Paris" \\
          --filter "source = 'Government' AND published >= DATE '2015-01-01'"
    """
    from proponent.lake import open as open_lake

    if (prompt is None) == (queries is None):
        raise click.UsageError("give either --prompt or --queries FILE")
    if queries is not None and target is not None:
        raise click.UsageError("with --queries the targets are in the file")
    asked = [(prompt or "", target)] if queries is None else read_queries(queries)
    with open_lake(lake) as opened, progress("encoding queries", quiet=quiet, total=len(asked)) as advance:
        ids = opened.trace_all(
            asked,
            progress=advance,
            encoder=encoder,
            query_set=queries.stem if queries else None,
            k=k,
            method=method,
            curvature=curvature,
            filter=where,
            approximate=approximate,
        )
        found = opened.hits(ids)
        facts = opened.sql(
            "SELECT trace_id, prompt, target, n_candidates, target_loss, target_tokens, exact, recall FROM traces "
            "JOIN queries USING (query_id) WHERE trace_id IN (SELECT unnest($ids)) "
            "ORDER BY list_position($ids, trace_id)",
            {"ids": ids},
        )
    if form not in (None, "table") or output is not None:
        emit(found.to_arrow(), form=form, output=output)
    else:
        for fact in facts.to_dicts():
            _print_trace(fact, [hit for hit in found.to_dicts() if hit["trace_id"] == fact["trace_id"]])
    remark(f"stored as {', '.join(ids[:3])}{' ...' if len(ids) > 3 else ''}", quiet=quiet)


def read_queries(path: Path) -> list[tuple[str, str | None]]:
    """Read prompts and, where they have them, targets from a file. Raises InputError."""
    from proponent.ingest.readers import read_file
    from proponent.schema.errors import InputError

    asked = []
    for row in read_file(path):
        fields = row.fields or {}
        prompt, target = fields.get("prompt"), fields.get("target")
        if not isinstance(prompt, str) or not isinstance(target, str | None):
            problem = row.error or "needs texts `prompt` and, if the model is not to complete it, `target`"
            raise InputError(f"{path}:{row.row}: {problem}")
        asked.append((prompt, target))
    if not asked:
        raise InputError(f"{path} has no queries; write one JSON object a line, with prompt and target")
    return asked


def _print_trace(fact: dict[str, Any], hits: list[dict[str, Any]]) -> None:
    import math

    import pyarrow as pa

    probability = math.exp(-fact["target_loss"])
    click.echo(printable(f"{fact['prompt']}|{fact['target']}"))
    how = "every one scored" if fact["exact"] else f"by an index with recall {fact['recall']:.3f}"
    click.echo(
        f"the model gives this target a probability of {probability:.3g}; {fact['n_candidates']} passages, {how}"
    )
    for side, title in (("proponent", "PROPONENTS push the model towards it"), ("opponent", "OPPONENTS push it away")):
        rows = [
            {
                "rank": hit["rank"],
                "score": hit["score"],
                "source": hit["source"],
                "date": _date(hit),
                "title": hit["title"],
                "text": hit["text"],
            }
            for hit in hits
            if hit["side"] == side
        ]
        click.echo(f"\n{title}")
        if rows:
            emit(pa.Table.from_pylist(rows), form="table", output=None)
        else:
            click.echo("  none")


def _date(hit: dict[str, Any]) -> str | None:
    if hit["published"] is None:
        return None
    shown: str = hit["published"].isoformat()
    return {"year": shown[:4], "month": shown[:7]}.get(hit["published_precision"], shown)
