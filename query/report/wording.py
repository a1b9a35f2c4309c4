"""Sentences of a report, in plain words. Everything returned is plain text and not yet escaped."""

import math
from itertools import pairwise
from typing import Final

from proponent.schema.settings import IDENTITY, REFERENCE, is_imported

from .compare import Compared, Comparison
from .content import AskedPart, Hit, Sources, TracedQuery
from .numbers import MINUS, NBSP, count, instant, percent, percentile, probability, score, times
from .text import keep_end, keep_start, plain

READING: Final = (
    (
        "Proponents helped, opponents hindered.",
        "The target is what the model said, or could have said, after the prompt. A proponent is a training passage "
        "that made the target more likely, by this method\u2019s estimate, when the model learned from the passage; an "
        "opponent made it less likely. An opponent need not contradict the target.",
    ),
    (
        "Influence is not entailment.",
        "A proponent need not state the target: it may push by its form, its subject or its language. And a passage "
        "that does state it may have pushed little, and be missing here.",
    ),
    (
        "Scores compare within one question only.",
        "Look at the order, and at the distance from one score to the next. Scores that stand apart from the others "
        "say something; among many that are nearly equal, the order says little.",
    ),
    (
        "It is an estimate.",
        "It compares gradients: the directions in which a text would move the weights of the finished model. Of these "
        "it sees the matrices in attention and MLP, compressed by random projection. What happened earlier in "
        "training, in which order the data came, and what other data would have done in its place, it does not see. "
        "Only training the model again without a passage would show what the passage did.",
    ),
)
"""What every report says about itself: (lead, sentences)."""

_COSINES: Final = ("trackstar", "logra", "gradcos")
_NAMED: Final = 3  # targets in a question's sentence
_LISTED: Final = 50  # parts in its table
_APART: Final = 1.5  # times the next score


def question(query: TracedQuery) -> str:
    """Ask the query's question; long prompts and targets are shortened, the exact ones stand elsewhere."""
    if query.n_queries > 1:
        rather = " rather than what they are compared with" if query.instead else ""
        return f"Which training passages pushed the model towards their targets{rather}, on average over " + (
            f"{query.n_queries:,} queries?"
        )
    pause = "," if len(query.targets) > 1 else ""
    towards = _several(query.targets) + (f"{pause} and not {_several(query.instead)}" if query.instead else "")
    if not query.prompt.strip():
        return f"Which training passages pushed the model towards {towards} at the beginning of a text?"
    where = "in answer to" if query.chat else "after"
    return f"Which training passages pushed the model towards {towards} {where} {quote(keep_end(query.prompt, 110))}?"


def _several(targets: tuple[str, ...]) -> str:
    shown = [quote(keep_start(target, 60)) for target in targets[:_NAMED]]
    if len(targets) == 1:
        return shown[0]
    rest = len(targets) - len(shown)
    last = f"{rest} more" if rest else shown.pop()
    return f"{', '.join(shown)} and {last}, on average"


def prompts(query: TracedQuery) -> str:
    """Return what the model was given, of every query."""
    return "\n".join(dict.fromkeys(part.prompt for part in query.parts)) or query.prompt


def asked(query: TracedQuery) -> tuple[tuple[str, str], ...]:
    """List the parts of a question that is a sum or a mean, as (label, value) rows."""
    rows: list[tuple[str, str]] = []
    before: AskedPart | None = None
    for part in query.parts[:_LISTED]:
        if before is None or (part.query, part.prompt) != (before.query, before.prompt):
            rows.append(("Prompt", part.prompt))
            if part.rendered is not None:
                rows.append(("Read in a chat as", part.rendered))
        rows.append(("Target" if part.weight > 0 else "Instead of", part.target))
        before = part
    if len(query.parts) > _LISTED:
        rows.append(("And", f"{count(len(query.parts) - _LISTED, 'more target')}, in the lake\u2019s relation queries"))
    return tuple(rows)


def summed(query: TracedQuery) -> str:
    """Say what is made of the parts of a question that is a sum or a mean."""
    chat = " The prompt stands in the model\u2019s chat template." if query.chat else ""
    mean = "The loss is the mean of the targets\u2019 losses. " if len(query.targets) > query.n_queries else ""
    contrast = "What pushed towards the target, less what pushed towards the other. " if query.instead else ""
    queries = f"A score is the mean of the scores under {query.n_queries:,} queries." if query.n_queries > 1 else ""
    return (mean + contrast + queries + chat).strip()


def quote(text: str) -> str:
    """Put text in quotation marks, without the space around it that only a tokenizer needs."""
    return f"\u2018{' '.join(plain(text).split()) or text}\u2019"


def likelihood(query: TracedQuery) -> str:
    """Say how probable the model finds the target after the prompt."""
    loss, tokens = query.target_loss, query.n_target_tokens
    if loss is None or math.isnan(loss):
        return "How likely the model finds the target was not recorded."
    p = probability(math.exp(-max(loss, 0.0)))
    nats = f"log-probability {MINUS if loss > 0 else ''}{abs(loss):.3g}{NBSP}nats"
    if len(query.targets) > 1:
        evenly = ", in which every query counts the same" if len(query.targets) > query.n_queries > 1 else ""
        targets = f"the {len(query.targets):,} targets"
        return f"The model gives {targets} a probability of {p} on geometric average{evenly} ({nats})."
    sentence = f"The model gives the target a probability of {p}"
    if tokens is None or tokens < 1:
        return f"{sentence} ({nats})."
    if tokens == 1:
        return f"{sentence} (one token, {nats})."
    each = probability(math.exp(-max(loss, 0.0) / tokens))
    return f"{sentence}, or {each} per token on geometric average ({count(tokens, 'token')}, {nats} in all)."


def chosen_by(query: TracedQuery) -> str:
    """Say whether the target is the model's own continuation."""
    if len(query.targets) > 1:
        whose = "The model completed the prompts with these targets itself"
        return f"{whose}." if query.completed_by_model else "Not every target need be what the model says."
    if query.completed_by_model:
        return "The model completed the prompt with this target itself."
    return "The target was given with the question; the model may or may not have said it."


def searched(query: TracedQuery) -> str:
    """Say which passages were searched, and how thoroughly."""
    if is_imported(query.method):
        return "Nothing was searched here: the passages are those of a file."
    passages = count(query.n_candidates, "passage")
    which = f"{passages} passed the filter" if query.filter else f"No filter: {passages} could be listed"
    if query.exact:
        return f"{which}, and every one was scored."
    if query.recall is None:
        return f"{which}. The search was approximate, and how many of the true best it finds was not measured."
    return f"{which}. The search was approximate; in tests it found {percent(query.recall)} of the true best."


def scored(query: TracedQuery) -> str:
    """Say what a score is, by method and curvature."""
    says = "A score says how much learning from the passage would have moved the model the way of the target:"
    gradients = "corrected gradients" if query.method == "trackstar" else "gradients"
    kind = f"the dot product of two {gradients}, whose lengths count"
    if query.method in _COSINES:
        kind = f"the cosine of two {gradients}, between {MINUS}1 and 1"
    if query.curvature == IDENTITY:
        return f"{says} {kind}; nothing that passages share is discounted."
    task = (
        f" and what all queries of the task {quote(query.curvature or '')} share"
        if query.curvature != REFERENCE
        else ""
    )
    return f"{says} {kind}; what all passages share{task} {'are' if task else 'is'} discounted."


def misplaced(hit: Hit) -> str | None:
    """Warn where a hit's score has the other side's sign, which happens when too few passages have the right one."""
    if hit.side == "proponent" and hit.score < 0:
        return "Its score is below zero: it pushed away, and is listed only because too few passages scored higher."
    if hit.side == "opponent" and hit.score > 0:
        return "Its score is above zero: it pushed towards, and is listed only because too few passages scored lower."
    return None


def unlearned(hit: Hit) -> str | None:
    """Say of a document that the model was not trained on what its score means."""
    if hit.trained_on is False:
        return "The model was not trained on this document: the score says what training on it would do."
    return None


def remarks(hit: Hit) -> tuple[str, ...]:
    """Return what a reader has to know of a hit before its score."""
    return tuple(remark for remark in (unlearned(hit), misplaced(hit)) if remark)


def standing(hit: Hit) -> str | None:
    """Say where a hit stands among the passages searched, from its own end; None where that was not measured."""
    if hit.percentile is None:
        return None
    towards = hit.side == "proponent"
    beyond = hit.percentile if towards else 100 - hit.percentile
    if beyond == 100:
        return f"{'above' if towards else 'below'} all others searched"
    return f"{'above' if towards else 'below'} {percentile(beyond)}{NBSP}% of those searched"


def deviation(hit: Hit) -> str | None:
    """Say how far a score is from the mean of random passages; None where that was not measured."""
    if hit.z_score is None or not math.isfinite(hit.z_score):
        return None
    side = "above" if hit.z_score >= 0 else "below"
    return f"{abs(hit.z_score):.1f} standard deviations {side} random passages (z)"


def title_of(hit: Hit) -> str:
    """Return a document's title, or what it goes by where it has none."""
    return hit.title if hit.title and hit.title.strip() else f"Untitled ({hit.doc_key})"


def apart(hits: tuple[Hit, ...], listed: str) -> str | None:
    """Say which of the first hits stand apart from the others by their scores; None where there are too few."""
    values = [abs(hit.score) for hit in hits if math.isfinite(hit.score) and hit.score != 0]
    if len(values) < 3 or len(values) < len(hits):
        return None
    ratios = [one / other for one, other in pairwise(values)]
    widest = max(ratios)
    if widest < _APART:
        return (
            f"None of these {listed}s stands apart: the scores go gradually from {score(hits[0].score)} to "
            f"{score(hits[-1].score)}."
        )
    n = ratios.index(widest) + 1
    which = f"The first {listed} stands" if n == 1 else f"The first {n} {listed}s stand"
    last = "its score is" if n == 1 else f"the score of number {n} is"
    return f"{which} apart: {last} {times(widest)} that of the next."


def searched_by(query: TracedQuery) -> str:
    """Say what was measured of a search: of the stored vectors, and of the index."""
    stored = dict(query.provenance).get("Stored vectors")
    told = f"Gradients are compared as stored vectors: {stored}. " if stored else ""
    if query.exact:
        return f"{told}Every passage that passed the filter was scored, so the search itself loses none."
    found = "was not measured" if query.recall is None else f"is {percent(query.recall)}, measured on this lake"
    return f"{told}The search looked only at what an index proposed; its recall, the share of the true best, {found}."


def whole(sources: Sources) -> str:
    """Say what the tables of whole sources count."""
    return (
        f"Every passage counts here, {sources.n_passages:,} of them, listed above or not, and whether it passed a "
        "filter or not. A source\u2019s summed score is that of all its passages; its share is what it accounts for "
        f"of all pushing in either direction, + towards the target and {MINUS} away from it. A large source may have "
        "a large share though none of its passages matters much: compare the share with its part of the corpus."
    )


def differing(comparison: Comparison) -> tuple[tuple[str, str, str], ...]:
    """List what two traces differ in: (label, of the first, of the second)."""
    told = [
        {"Prompt": query.prompt, "Target": query.target} | dict(settings(query)) | dict(query.provenance)
        for query in (comparison.first, comparison.second)
    ]
    labels = [label for label in dict.fromkeys([*told[0], *told[1]]) if label not in ("Query", "Asked", "Snapshot")]
    rows = [(label, *(one.get(label, "none") for one in told)) for label in labels]
    return tuple((label, first, second) for label, first, second in rows if first != second)


def agreement(comparison: Comparison) -> str:
    """Say how much two traces have in common."""
    rows = comparison.proponents
    both = sum(row.moved is not None for row in rows)
    alone = [sum(row.second is None for row in rows), sum(row.first is None for row in rows)]
    told = (
        f"{count(both, 'passage')} {'is' if both == 1 else 'are'} among the first of both, {alone[0]} of A alone and "
        f"{alone[1]} of B alone."
    )
    if comparison.tau is not None:
        told += (
            f" Of those that both list, the order agrees with Kendall\u2019s tau {comparison.tau:+.2f} "
            f"(1 is the same order, {MINUS}1 the reverse).".replace("-", MINUS)
        )
    if not comparison.same_question:
        told += " The two answer different questions, so their scores say different things."
    elif (comparison.first.method, comparison.first.encoder) != (comparison.second.method, comparison.second.encoder):
        told += " Their scores are on different scales; compare the ranks."
    return told


def moved(row: Compared) -> str:
    """Say how a passage moved from the first trace to the second."""
    if row.moved is None:
        if row.first and row.second:
            return f"{row.first.side} in A, {row.second.side} in B"
        return "in A alone" if row.first else "in B alone"
    if row.moved == 0:
        return "same"
    way = "\u2191 up" if row.moved > 0 else "\u2193 down"
    return f"{way} {abs(row.moved)}"


def settings(query: TracedQuery) -> tuple[tuple[str, str], ...]:
    """List what decides a trace's answer, as (label, value) rows."""
    if is_imported(query.method):
        return (
            ("Method", query.method),
            ("Snapshot", query.snapshot),
            ("Trace", query.trace_id),
            ("Query", query.query_id),
            ("Imported", instant(query.created_at)),
        )
    search = "exact" if query.exact else "approximate"
    if query.recall is not None:
        search += f", measured recall {percent(query.recall)}"
    return (
        ("Method", query.method),
        ("Encoder", query.encoder or "none"),
        ("Curvature", query.curvature or "none"),
        ("Filter", query.filter or "none"),
        ("Candidates", count(query.n_candidates, "passage")),
        ("Search", f"{search}, at most {query.k} of each side"),
        ("Snapshot", query.snapshot),
        ("Trace", query.trace_id),
        ("Query", query.query_id),
        ("Asked", instant(query.created_at)),
    )
