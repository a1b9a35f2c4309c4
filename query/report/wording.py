"""Numbers, dates and sentences of a report, in plain words. Everything returned is plain text and not yet escaped."""

import math
from datetime import UTC, date, datetime

from proponent.schema.settings import IDENTITY, REFERENCE

from .content import AskedPart, Hit, Precision, TracedQuery
from .text import keep_end, keep_start, plain

_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
READING = (
    (
        "Influence is not entailment.",
        "A proponent is a training passage whose gradient points the same way as the question\u2019s: by this "
        "method\u2019s estimate, learning from it made the answer more likely. It need not state the answer, and "
        "a passage that does state it may be missing.",
    ),
    (
        "Opponents push away.",
        "They have the lowest scores: learning from them made the answer less likely. They need not contradict it.",
    ),
    (
        "Scores compare within one question only.",
        "They work like a cosine, between \u22121 and 1, when the method normalises gradients, as TrackStar does. A "
        "small score can be the highest there is: look at the ranks, and at the distance to the next passage.",
    ),
    (
        "It is an approximation.",
        "It sees the gradients of the weight matrices in attention and MLP only, compressed by random projection, at "
        "the final checkpoint only. What happened earlier in training, and the order of the data, leave no trace.",
    ),
)
"""What every report says about itself: (lead, sentences)."""

_COSINES = ("trackstar", "logra", "gradcos")
_NAMED = 3  # targets in a question's sentence
_LISTED = 50  # parts in its table
NBSP = "\u00a0"
MINUS = "\u2212"


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
    nats = f"a loss of {loss:.3g}{NBSP}nats"
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
    passages = count(query.n_candidates, "passage")
    which = f"{passages} passed the filter" if query.filter else f"No filter: {passages} could be listed"
    if query.exact:
        return f"{which}, and every one was scored."
    if query.recall is None:
        return f"{which}. The search was approximate, and how many of the true best it finds was not measured."
    return f"{which}. The search was approximate; in tests it found {percent(query.recall)} of the true best."


def scored(query: TracedQuery) -> str:
    """Say what a score is, by method and curvature."""
    gradients = "corrected gradients" if query.method == "trackstar" else "gradients"
    kind = f"the dot product of two {gradients}, whose lengths count"
    if query.method in _COSINES:
        kind = f"the cosine of two {gradients}, between {MINUS}1 and 1"
    if query.curvature == IDENTITY:
        return f"A score is {kind}; nothing that passages share is discounted."
    task = (
        f" and what all queries of the task {quote(query.curvature or '')} share"
        if query.curvature != REFERENCE
        else ""
    )
    return f"A score is {kind}; what all passages share{task} {'are' if task else 'is'} discounted."


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


def probability(p: float) -> str:
    """Write a probability as a percentage, or as `1 in N` where a percentage would be all zeros."""
    if p >= 0.9995:
        return f"over 99.9{NBSP}%"
    if p >= 0.001:
        return percent(p)
    if p < 1e-12:
        return "less than 1 in a million million"
    odds = 1 / p
    step = 10 ** (math.floor(math.log10(odds)) - 1)
    return f"about 1 in {round(odds / step) * step:,}"


def percent(share: float) -> str:
    """Write a share (0 to 1) as a percentage with two digits that count: 100 % and 0 % are said only when exact."""
    value = share * 100
    if value in (0, 100):
        return f"{value:.0f}{NBSP}%"
    for digits in range(6):
        shown = f"{value:.{digits}f}"
        if 0 < float(shown) < 100 and value * 10**digits >= 10:
            return f"{shown}{NBSP}%"
    return f"over 99.99{NBSP}%" if value > 50 else f"under 0.01{NBSP}%"


def score(value: float) -> str:
    """Write a score with its sign, to four digits; a typographic minus, so that it is as wide as the plus."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("+∞" if value > 0 else f"{MINUS}∞")
    # Small scores keep their digits: rounding one to +0.0000 would say that there was nothing.
    shown = f"{value:+.4f}" if value == 0 or 1e-2 <= abs(value) < 10 else f"{value:+.3g}"
    return shown.replace("-", MINUS)


def standing(hit: Hit) -> str | None:
    """Say where a hit stands among the passages searched, from its own end; None where that was not measured."""
    if hit.percentile is None:
        return None
    if hit.side == "proponent":
        return f"above {percentile(hit.percentile)}{NBSP}% of those searched"
    return f"below {percentile(100 - hit.percentile)}{NBSP}% of those searched"


def percentile(value: float) -> str:
    """Write a percentile (0 to 100); near the ends with the digits it takes not to be rounded to the end itself."""
    for digits in range(6):
        shown = f"{value:.{digits}f}"
        if value in (0, 100) or (digits > 0 and 0 < float(shown) < 100):
            return shown
    return shown


def published(day: date, precision: Precision | None) -> str:
    """Write a date as exactly as it is known: `14 March 2021`, `March 2021`, or `2021`."""
    if precision == "day":
        return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"
    return f"{_MONTHS[day.month - 1]} {day.year}" if precision == "month" else f"{day.year}"


def published_iso(day: date, precision: Precision | None) -> str:
    """Write the same for machines: `2021-03-14`, `2021-03`, or `2021`."""
    return day.isoformat()[: {"day": 10, "month": 7}.get(precision or "year", 4)]


def instant(moment: datetime) -> str:
    """Write a moment in UTC, to the minute."""
    utc = moment.astimezone(UTC)
    return f"{published(utc.date(), 'day')}, {utc:%H:%M} UTC"


def count(number: int, noun: str) -> str:
    """Write `1 passage`, `2 passages`, `12,034 passages`; for nouns that take a plain s."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def meter(value: float, strongest: float) -> int:
    """Return how long a score's bar is, in percent of the strongest score listed."""
    return round(100 * min(abs(value) / strongest, 1.0)) if math.isfinite(value) and math.isfinite(strongest) else 0


def settings(query: TracedQuery) -> tuple[tuple[str, str], ...]:
    """List what decides a trace's answer, as (label, value) rows."""
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
