"""`proponent trace`: which passages moved the model towards a target, or away from it."""

import json
from pathlib import Path
from typing import Any, Final

import click

from .options import lake_argument, output_options
from .output import emit, printable, remark
from .progress import progress
from .questions import asked_for, question_options, score_options

_SAID: Final = {True: "yes", False: "no", None: None}


@click.command()
@lake_argument
@question_options
@click.option("-k", type=int, default=10, show_default=True, help="Proponents and opponents to find.")
@click.option("--filter", "where", metavar="FILTER", help="SQL predicate that is applied before the search.")
@score_options
@click.option("--approximate", is_flag=True, help="Use the vector index instead of the exact scan.")
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

    asked = asked_for(prompt, targets, instead, chat=chat, queries=queries, average=average)
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
