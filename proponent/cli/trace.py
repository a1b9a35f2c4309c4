"""`proponent trace`: which passages moved the model towards a target, or away from it."""

import json
from pathlib import Path
from typing import Any, Final

import click

from proponent.schema.settings import BM25, HYBRID, METHODS, MIN_RECALL, MOST_RECOMPUTED, SEARCHES

from .options import device_map_option, engine_options, lake_argument, output_options
from .output import emit, printable, remark
from .progress import progress
from .questions import asked_for, question_options, score_options
from .scores import shown_scores, told_orders
from .segments import SENTENCES, print_segments, require_one_answer

_SAID: Final = {True: "yes", False: "no", None: None}
_INFLUENCE: Final = (("proponent", "PROPONENTS push the model towards it"), ("opponent", "OPPONENTS push it away"))
_SIDES: Final = {
    BM25: (("proponent", "PASSAGES that share its words, which says nothing of the model"),),
    HYBRID: (("proponent", "PASSAGES high in both orders, that of influence and that of shared words"),),
}


@click.command()
@lake_argument
@question_options
@click.option(
    "--segments",
    is_flag=False,
    flag_value=SENTENCES,
    metavar="[sentences|N]",
    help="Trace a long target, or the model's completion, in segments: sentences (the default), or N words each.",
)
@click.option("--query-set", metavar="NAME", help="Set that the queries belong to; by default the file's name.")
@click.option("-k", type=int, default=10, show_default=True, help="Proponents and opponents to find.")
@click.option("--filter", "where", metavar="FILTER", help="SQL predicate that is applied before the search.")
@score_options(
    SEARCHES, "Attribution method; bm25 compares words alone, hybrid joins its ranks with those of influence."
)
@click.option(
    "--fuse",
    type=click.Choice(METHODS),
    default="trackstar",
    show_default=True,
    help="Method whose ranks hybrid joins with those of bm25.",
)
@click.option(
    "--rank-constant",
    type=int,
    default=60,
    show_default=True,
    help="What hybrid adds to a rank: each counts 1 / (constant + rank).",
)
@click.option("--at", type=int, metavar="SNAPSHOT", help="Search the lake as it was at a snapshot.")
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
@click.option(
    "--recompute",
    type=int,
    is_flag=False,
    flag_value=0,
    metavar="[N]",
    help="Score the first N hits of each side (by default all) with full gradients, and say how their order changes.",
)
@engine_options
@device_map_option
@output_options
def trace(
    lake: Path,
    prompt: str | None,
    targets: tuple[str, ...],
    instead: str | None,
    chat: bool,
    queries: Path | None,
    average: bool,
    segments: str | None,
    query_set: str | None,
    k: int,
    where: str | None,
    method: str,
    curvature: str | None,
    encoder: str | None,
    fuse: str,
    rank_constant: int,
    at: int | None,
    approximate: bool,
    min_recall: float,
    recompute: int | None,
    engine: str,
    ray_address: str | None,
    device_map: Any,
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
      proponent trace mylake --prompt "The capital of France is" --target " Paris" --method hybrid
      proponent trace mylake --prompt "About France:" --target " Its capital is Paris. It lies in Europe." --segments
    """
    from proponent.lake import open as open_lake

    if segments is not None:
        require_one_answer(targets, instead=instead, chat=chat, queries=queries)
    asked = asked_for(prompt, targets, instead, chat=chat, queries=queries, average=average)
    n = _recomputed(recompute, k=k, method=method)
    options: dict[str, Any] = {
        "encoder": encoder,
        "query_set": query_set or (queries.stem if queries else None),
        "at": at,
        "k": k,
        "method": method,
        "curvature": curvature,
        "filter": where,
        "approximate": approximate,
        "fuse": fuse,
        "rank_constant": rank_constant,
        "min_recall": min_recall,
    }
    answer_id = None
    total = None if segments is not None else sum(ask.n_parts for ask in asked)
    with (
        open_lake(lake, engine=engine, ray_address=ray_address, device_map=device_map) as opened,
        progress("encoding queries", quiet=quiet, total=total) as advance,
    ):
        if segments is not None:
            [ask] = asked
            target = ask.targets[0] if ask.targets else None
            answer_id, ids = opened.trace_segments(ask.prompt, target, segments=segments, progress=advance, **options)
        else:
            ids = opened.trace_all(asked, average=average, progress=advance, **options)
        orders = {} if n is None else {one: opened.recompute(one, n) for one in ids}
        found = opened.hits(ids, at=at, fused=method == HYBRID, recomputed=n)
        facts = opened.sql(
            "SELECT trace_id, method, prompt, target, parts, chat, n_candidates, target_loss, exact, recall "
            "FROM traces JOIN queries USING (query_id) WHERE trace_id IN (SELECT unnest($ids)) "
            "ORDER BY list_position($ids, trace_id)",
            {"ids": ids},
        )
    if form not in (None, "table") or output is not None:
        emit(found.to_arrow(), form=form, output=output)
    elif answer_id is not None:
        print_segments(facts.to_dicts(), found.to_dicts(), orders)
    else:
        for fact in facts.to_dicts():
            _print_trace(fact, [hit for hit in found.to_dicts() if hit["trace_id"] == fact["trace_id"]])
            for line in told_orders(orders.get(fact["trace_id"], [])):
                click.echo(f"\n{line}")
    if answer_id is not None:
        remark(f"stored as answer {answer_id}; `proponent report {lake} --set {answer_id}` reports it", quiet=quiet)
        return
    stored = list(dict.fromkeys(ids))
    remark(f"stored as {', '.join(stored[:3])}{' ...' if len(stored) > 3 else ''}", quiet=quiet)


def _recomputed(wanted: int | None, *, k: int, method: str) -> int | None:
    """Return how many hits of each side are to be scored again; a bare `--recompute` is 0 and means all."""
    most = min(k, MOST_RECOMPUTED)
    if wanted is not None and method not in METHODS:
        raise click.UsageError(f"--recompute is for scores of gradients, which method {method} has none of")
    if wanted is not None and not 0 <= wanted <= most:
        raise click.UsageError(f"--recompute takes 1 to {most} of {k} hits")
    return wanted or most if wanted is not None else None


def _print_trace(fact: dict[str, Any], hits: list[dict[str, Any]]) -> None:
    import math

    import pyarrow as pa

    parts = json.loads(fact["parts"]) if fact["parts"] else []
    n_targets = sum(part["weight"] > 0 for part in parts)
    asked = f"{fact['prompt']}\nwhy {fact['target']}" if len(parts) > 1 else f"{fact['prompt']}|{fact['target']}"
    click.echo(printable(f"in a chat: {asked}" if fact["chat"] else asked))
    loss = fact["target_loss"]
    probability = f"a probability of {math.exp(-loss):.3g}" if loss is not None else None
    how = "every one scored" if fact["exact"] else f"by an index with recall {fact['recall']:.3f}"
    gives = f"these targets {probability} on geometric average" if n_targets > 1 else f"this target {probability}"
    passages = f"{fact['n_candidates']:,} passage{'' if fact['n_candidates'] == 1 else 's'}"
    click.echo(f"the model gives {gives}; {passages}, {how}" if probability else f"no model was asked; {passages}")
    any_marked = any(hit["trained_on"] is not None for hit in hits)
    for side, title in _SIDES.get(fact["method"], _INFLUENCE):
        rows = [
            {
                "rank": hit["rank"],
                "score": hit["score"],
                **shown_scores(hit),
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
        would = "" if fact["method"] == BM25 else ": their score says what training on them would do"
        click.echo(f"\nthe model was not trained on {unlearned} of these{would}")


def _date(hit: dict[str, Any]) -> str | None:
    if hit["published"] is None:
        return None
    shown: str = hit["published"].isoformat()
    return {"year": shown[:4], "month": shown[:7]}.get(hit["published_precision"], shown)
