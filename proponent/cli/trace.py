"""`proponent trace`: which passages moved the model towards a target, or away from it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from proponent.schema.settings import METHODS, MIN_RECALL

from .options import lake_argument, output_options
from .output import emit, printable, remark
from .progress import progress

if TYPE_CHECKING:
    from proponent.query.questions import Ask


_SAID: Final = {True: "yes", False: "no", None: None}


@click.command()
@lake_argument
@click.option("--prompt", help="What the model was given.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="What it said; without it the model completes the prompt. Several are one query: the mean of their losses.",
)
@click.option("--instead", metavar="TARGET", help="Ask why it said the target and not this one.")
@click.option("--chat", is_flag=True, help="Put prompts into the model's chat template, as a user's turn.")
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Many queries: JSON Lines with prompt or messages, target or targets, instead, chat.",
)
@click.option("--average", is_flag=True, help="Make one trace of the queries: a score is the mean of their scores.")
@click.option("-k", type=int, default=10, show_default=True, help="Proponents and opponents to find.")
@click.option("--filter", "where", metavar="FILTER", help="SQL predicate that is applied before the search.")
@click.option(
    "--method", type=click.Choice(METHODS), default="trackstar", show_default=True, help="Attribution method."
)
@click.option("--curvature", metavar="NAME", help="Curvature of a task; by default the encoder's own.")
@click.option("--encoder", help="Encoder; by default the only one that the method can use.")
@click.option(
    "--approximate/--exact",
    default=False,
    show_default=True,
    help="Score only what the vector index proposes, or every passage that passes the filter.",
)
@click.option(
    "--min-recall",
    type=float,
    default=MIN_RECALL,
    show_default=True,
    help="Least measured recall of an index that --approximate uses.",
)
@output_options
def trace(
    lake: Path,
    prompt: str | None,
    targets: tuple[str, ...],
    instead: str | None,
    chat: bool,
    queries: Path | None,
    average: bool,
    k: int,
    where: str | None,
    method: str,
    curvature: str | None,
    encoder: str | None,
    approximate: bool,
    min_recall: float,
    form: str | None,
    output: Path | None,
    quiet: bool,
) -> None:
    """Find the training passages that pushed the model towards a target, and those that pushed it away.

    The filter is one SQL expression over documents and passages; entity('France') asks for passages that mention it.

    \b
    Examples:
      proponent trace mylake --prompt "The capital of France is" --target " Paris" \\
          --filter "source = 'Government' AND published >= DATE '2015-01-01'"
      proponent trace mylake --prompt "The capital of France is" --target " Paris" --instead " Lyon"
    """
    from proponent.lake import open as open_lake

    asked = _asked(prompt, targets, instead, chat, queries, average)
    with (
        open_lake(lake) as opened,
        progress("encoding queries", quiet=quiet, total=sum(ask.n_parts for ask in asked)) as advance,
    ):
        ids = opened.trace_all(
            asked,
            progress=advance,
            encoder=encoder,
            query_set=queries.stem if queries else None,
            average=average,
            k=k,
            method=method,
            curvature=curvature,
            filter=where,
            approximate=approximate,
            min_recall=min_recall,
        )
        found = opened.hits(ids)
        facts = opened.sql(
            "SELECT trace_id, prompt, target, parts, chat, n_candidates, target_loss, target_tokens, exact, recall "
            "FROM traces JOIN queries USING (query_id) WHERE trace_id IN (SELECT unnest($ids)) "
            "ORDER BY list_position($ids, trace_id)",
            {"ids": ids},
        )
    if form not in (None, "table") or output is not None:
        emit(found.to_arrow(), form=form, output=output)
    else:
        for fact in facts.to_dicts():
            _print_trace(fact, [hit for hit in found.to_dicts() if hit["trace_id"] == fact["trace_id"]])
    stored = list(dict.fromkeys(ids))
    remark(f"stored as {', '.join(stored[:3])}{' ...' if len(stored) > 3 else ''}", quiet=quiet)


def _asked(
    prompt: str | None,
    targets: tuple[str, ...],
    instead: str | None,
    chat: bool,
    queries: Path | None,
    average: bool,
) -> list["Ask"]:
    from proponent.query.questions import read_ask

    if (prompt is None) == (queries is None):
        raise click.UsageError("give either --prompt or --queries FILE")
    if queries is not None:
        if targets or instead is not None:
            raise click.UsageError("with --queries the targets are in the file")
        return read_queries(queries, chat=chat)
    if average:
        raise click.UsageError("--average is for --queries FILE")
    return [read_ask({"prompt": prompt, "targets": targets or None, "instead": instead}, chat=chat)]


def read_queries(path: Path, *, chat: bool = False) -> list["Ask"]:
    """Return the questions of a file; `chat` holds for rows that do not say.

    Raises InputError, which names file and row, for a row that is no question, and for a file without any.
    """
    from proponent.ingest.readers import read_file
    from proponent.query.questions import read_ask
    from proponent.schema.errors import InputError

    asked = []
    for row in read_file(path):
        origin = f"{path}:{row.row}"
        if row.fields is None:
            raise InputError(f"{origin}: {row.error}")
        asked.append(read_ask(row.fields, chat=chat, origin=origin))
    if not asked:
        raise InputError(f"{path} has no queries; write one JSON object a line, with prompt and target")
    return asked


def _print_trace(fact: dict[str, Any], hits: list[dict[str, Any]]) -> None:
    import math

    import pyarrow as pa

    parts = json.loads(fact["parts"]) if fact["parts"] else []
    n_targets = sum(part["weight"] > 0 for part in parts)
    asked = f"{fact['prompt']}\nwhy {fact['target']}" if len(parts) > 1 else f"{fact['prompt']}|{fact['target']}"
    click.echo(printable(f"in a chat: {asked}" if fact["chat"] else asked))
    probability = f"a probability of {math.exp(-fact['target_loss']):.3g}"
    how = "every one scored" if fact["exact"] else f"by an index with recall {fact['recall']:.3f}"
    gives = f"these targets {probability} on geometric average" if n_targets > 1 else f"this target {probability}"
    passages = f"{fact['n_candidates']:,} passage{'' if fact['n_candidates'] == 1 else 's'}"
    click.echo(f"the model gives {gives}; {passages}, {how}")
    any_marked = any(hit["trained_on"] is not None for hit in hits)
    for side, title in (("proponent", "PROPONENTS push the model towards it"), ("opponent", "OPPONENTS push it away")):
        rows = [
            {
                "rank": hit["rank"],
                "score": hit["score"],
                "source": hit["source"],
                "date": _date(hit),
                "title": hit["title"],
                **({"trained on": _SAID[hit["trained_on"]]} if any_marked else {}),
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
    if unlearned := sum(hit["trained_on"] is False for hit in hits):
        click.echo(
            f"\nthe model was not trained on {unlearned} of these: their score says what training on them would do"
        )


def _date(hit: dict[str, Any]) -> str | None:
    if hit["published"] is None:
        return None
    shown: str = hit["published"].isoformat()
    return {"year": shown[:4], "month": shown[:7]}.get(hit["published_precision"], shown)
