"""What a report may say of a trace, by its method: words that are shared push nothing anywhere.

Notable: whatever is said of influence is in `wording`; here it is kept from traces by words (`bm25`) and from those
that join both orders (`hybrid`). Everything returned is plain text and not yet escaped.
"""

from collections.abc import Iterable
from typing import NamedTuple

from proponent.schema.settings import BM25, HYBRID, IMPORTED, is_imported

from . import answers, wording
from .content import Hit, Report, Side, TracedQuery
from .numbers import count
from .text import keep_end

_WORDS = (
    "Shared words are not influence.",
    "BM25 compares texts: it says how many words a passage shares with prompt and target, the rare ones counting more. "
    "A passage that it lists first may have taught the model nothing, and one that taught it may share no word.",
)
_BOTH = (
    "A joined score is made of ranks.",
    "It says how high a passage stands in the order of influence and in that of shared words, and not how strong "
    "either is. The rank and the score of each are beside it.",
)
_IMPORTED = (
    "These are results of another tool.",
    "They were read from its file, and nothing of them was computed here. What a score means and which passages were "
    "searched, that tool has to say. Its scores compare with no other\u2019s; its ranks do.",
)
_MARKED = (
    "They show what a passage shares with the question; the score does not look at words. Function words are left "
    "unmarked."
)
_MARKED_BY_WORDS = (
    "They show what a passage shares with the question. A score by words counts all words and not only these; a score "
    "of influence looks at none."
)


BESIDE = (
    "Another question: not what moved the model, but which passages have the most words in common with prompt and "
    "target, the rare ones counting more (BM25). A passage in both lists shares the question\u2019s words and pushed "
    "the model; one in this list alone shares words, and by this method\u2019s estimate did not push among the first."
)
"""What the passages that share the question's words are, beside those that pushed."""


class SideOf(NamedTuple):
    """One list of a trace's hits, as a report shows it."""

    name: str
    """Short, for the page's own use."""
    heading: str
    hits: tuple[Hit, ...]
    nothing: str
    listed: str
    """What one of the hits is called."""


def compares_words(query: TracedQuery) -> bool:
    """Whether a score is made of shared words, at least in part, or may be, for all that is known here."""
    return query.method in (BM25, HYBRID) or is_imported(query.method)


def _tool(query: TracedQuery) -> str:
    """Return the name that results of another tool were imported under."""
    return query.method.removeprefix(IMPORTED)


def _of_gradients(report: Report) -> list[TracedQuery]:
    return [query for query in report.queries if query.method != BM25 and not is_imported(query.method)]


def reading(report: Report) -> tuple[tuple[str, str], ...]:
    """Return what a reader has to know of the report's methods: (lead, sentences)."""
    methods = {query.method for query in report.queries}
    return (
        *((*wording.READING, *_measured(report)) if _of_gradients(report) else ()),
        *([_WORDS] if methods & {BM25, HYBRID} else []),
        *([_BOTH] if HYBRID in methods else []),
        *([_IMPORTED] if any(map(is_imported, methods)) else []),
    )


def _measured(report: Report) -> tuple[tuple[str, str], ...]:
    searches = dict.fromkeys(wording.searched_by(query) for query in _of_gradients(report))
    lead = "What was measured of the search." if len(searches) == 1 else "What was measured of the searches."
    return ((lead, " ".join(searches)),)


def marked(report: Report) -> str:
    """Say what the marked words of passages mean."""
    return _MARKED_BY_WORDS if any(compares_words(query) for query in report.queries) else _MARKED


def sides(query: TracedQuery) -> tuple[SideOf, ...]:
    """Return the lists of a trace's hits; where words count there is one, since no word pushes away."""
    if query.method == BM25:
        heading = "Passages that share words with the question"
        return (SideOf("towards", heading, query.proponents, "No passage shares a word.", "passage"),)
    if query.method == HYBRID:
        heading = "Passages high in both orders, of influence and of shared words"
        return (SideOf("towards", heading, query.proponents, "No passages are listed.", "passage"),)
    if is_imported(query.method):
        listed = f"listed by {_tool(query)}"
        nothing = "No passages are listed."
        proponents = SideOf("towards", f"Proponents, {listed}", query.proponents, nothing, "passage")
        opponents = SideOf("away", f"Opponents, {listed}", query.opponents, nothing, "passage")
        return (proponents, opponents) if query.opponents else (proponents,)
    return (
        SideOf(
            *("towards", "Proponents: pushed towards the target", query.proponents, "No proponents are listed."),
            "proponent",
        ),
        SideOf(
            *("away", "Opponents: pushed away from the target", query.opponents, "No opponents are listed."),
            "opponent",
        ),
    )


def listed(query: TracedQuery, side: Side = "proponent") -> str:
    """Return what one of a list's hits is called."""
    return "passage" if compares_words(query) else side


def title(queries: tuple[TracedQuery, ...], *, compare: bool = False) -> str:
    """Return the title of a report that was given none."""
    first = queries[0]
    target = first.target.strip()
    if compare:
        return f"Training data behind \u2018{target}\u2019: two traces compared"
    if len(queries) > 1:
        return answers.title(queries) or f"Training data behind {len(queries)} answers"
    if first.n_queries > 1:
        return f"Training data behind the answers to {first.n_queries:,} queries"
    if first.method == BM25:
        return f"Passages that share words with \u2018{target}\u2019"
    if is_imported(first.method):
        return f"Passages that {_tool(first)} lists for \u2018{target}\u2019"
    return f"Training data behind {target}" if len(first.parts) > 1 else f"Training data behind \u2018{target}\u2019"


def about(report: Report) -> str:
    """Say in a sentence what a report is, to somebody who was only given it."""
    each = "For each question, this" if len(report.queries) > 1 and not report.settings.compare else "This"
    if {query.method for query in report.queries} == {BM25}:
        return f"{each} report lists the passages of a corpus that share the most words with prompt and target."
    if all(is_imported(query.method) for query in report.queries):
        return f"{each} report lists passages of a corpus that another tool found."
    return (
        f"{each} report lists the passages of a language model\u2019s training data that, by an estimate, helped the "
        "model most towards an answer, and those that hindered it most."
    )


def size(report: Report) -> str:
    """Say how much a report is about."""
    return "Two traces" if report.settings.compare else count(len(report.queries), "question")


def withdrawn(places: Iterable[tuple[Side, int]]) -> str:
    """Say which hits are missing because their documents were withdrawn."""
    gone = list(places)
    ranks = {side: [str(rank) for one, rank in gone if one == side] for side in ("proponent", "opponent")}
    told = "; ".join(f"{side} {', '.join(found)}" for side, found in ranks.items() if found)
    hits = f"{len(gone)} hits were" if len(gone) > 1 else "A hit was"
    return f"{hits} withdrawn since, with the document: {told}. What is shown keeps the ranks that it had."


def question(query: TracedQuery) -> str:
    """Ask the query's question."""
    if not compares_words(query):
        return wording.question(query)
    targets = " and ".join(wording.quote(target) for target in query.targets[:3])
    asked = f"{wording.quote(keep_end(query.prompt, 110))} and {targets}" if query.prompt.strip() else targets
    if query.method == BM25:
        return f"Which passages share words with {asked}?"
    if is_imported(query.method):
        return f"Which passages does {_tool(query)} list for {asked}?"
    return f"Which training passages both influence the answer and share words with {asked}?"


def likelihood(query: TracedQuery) -> str:
    """Say how probable the model finds the target, where a model was asked."""
    asked_none = query.method == BM25 or is_imported(query.method)
    return "No model was asked." if asked_none else wording.likelihood(query)


def scored(query: TracedQuery) -> str:
    """Say what a score is."""
    if query.method == BM25:
        return "A score is BM25, over the words of prompt and target; it says nothing of the model."
    if query.method == HYBRID:
        return (
            f"A score is the sum of 1 / ({query.rank_constant} + rank) over two orders: that of influence by "
            f"{query.fused} and that of shared words by BM25."
        )
    if is_imported(query.method):
        return f"A score is that of {_tool(query)}, whatever it means there."
    return wording.scored(query)


def remarks(hit: Hit, query: TracedQuery) -> tuple[str, ...]:
    """Return what a reader has to know of a hit before its score."""
    if query.method == BM25 or is_imported(query.method):
        return ("The model was not trained on this document.",) if hit.trained_on is False else ()
    return wording.remarks(hit)


def orders(query: TracedQuery) -> tuple[tuple[str, str], ...]:
    """Say how the order of the first hits changes with full gradients, where that was computed: (label, value)."""
    return tuple(
        (
            f"{side.capitalize()}s in full",
            f"Kendall tau {'none' if tau is None else f'{tau:.2f}'} over {count(n, 'text')}: the order here "
            "against that of gradients without codes, curvature and projection",
        )
        for side, n, tau in query.recomputed
    )
