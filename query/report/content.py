"""Everything a report says, as frozen values: no lake, no files, no clock.

Whoever fills these decides what is reported; the renderers only decide how it looks. The same `Report` therefore gives
the same bytes, today and in a year.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from math import fsum
from typing import Literal, NamedTuple

from proponent.schema.settings import ReportSettings

Side = Literal["proponent", "opponent"]
Precision = Literal["day", "month", "year"]

NO_SOURCE = "no source given"
NO_DATE = "undated"


class TokenShare(NamedTuple):
    """What the tokens of a stretch of a passage add to its score; `start` and `end` count characters of its text."""

    start: int
    end: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One passage that a trace lists, with what is known about its document.

    `rank` counts from 1 within its side. `percentile` is in percent: how many of the candidate passages scored lower
    (0 to 100), None where it was not measured. `z_score` counts the standard deviations from the mean score of random
    passages, None where that was not measured. `before` and `after` are the document's text around the passage and may
    be empty. `published` may be less exact than it looks; `published_precision` says how much of it is known, and None
    counts as no more than the year. `trained_on` says whether the model was trained on the document, None when nobody
    has said. `parts` are the (method, rank, score) that a joined score is made of. `tokens` are in the text's order, do
    not overlap, and are empty where nobody asked for them.
    """

    side: Side
    rank: int
    passage_id: str
    score: float
    percentile: float | None = None
    z_score: float | None = None
    text: str
    before: str = ""
    after: str = ""
    doc_id: str
    doc_key: str
    corpus: str
    source: str | None = None
    published: date | None = None
    published_precision: Precision | None = None
    title: str | None = None
    url: str | None = None
    entities: tuple[str, ...] = ()
    license: str | None = None
    trained_on: bool | None = None
    parts: tuple[tuple[str, int, float], ...] = ()
    tokens: tuple[TokenShare, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group of the corpus's passages, all of them, and not only those listed.

    `influence` is the sum of their scores, `share` that by the influences of all groups without their signs, and
    `passage_share` the group's part of all passages; each is None where it is not known. `known` is False for passages
    that have no source or date, and for the rest that is told as one. `place` numbers the span on a time axis.
    """

    label: str
    n_passages: int | None
    influence: float | None
    share: float | None
    passage_share: float | None
    known: bool = True
    place: int | None = None


Span = Literal["month", "year", "decade", "century"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the influence comes from, over the whole corpus: by source, highest first, and by time, in `span`s."""

    by_source: tuple[Group, ...]
    by_time: tuple[Group, ...]
    span: Span
    n_passages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Something that a report tells beside the hits; where it cannot, `missing` is a sentence that says why."""

    sources: Sources | None = None
    sources_missing: str | None = None
    words: tuple[Hit, ...] = ()
    words_missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedPart:
    """A part of a question that is a sum or a mean: a prompt, a target, and how much its loss counts.

    `rendered` is the prompt in the chat template, where the model read that; `query` tells the queries of a mean apart.
    """

    prompt: str
    target: str
    weight: float
    rendered: str | None = None
    query: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedQuery:
    """One question put to the lake, how it was answered, and the passages of the answer.

    `parts` are empty for a question of one prompt and one target, and else `prompt` and `target` name them in plain
    words. `target_loss` is the target's cross-entropy in nats, summed over its `n_target_tokens` tokens; of several
    targets it is the mean, and the tokens are those of all. `filter` is the SQL
    predicate that chose the candidates, None for all of them; `n_candidates` counts the passages that passed it.
    `exact` says that every candidate was scored; else `recall` (0 to 1) is what was measured of the approximate search.
    `encoder` and `curvature` are None for a search by words. `fused` is the method that a hybrid joins with BM25, by
    `rank_constant`. `recomputed` has (side, texts, Kendall's tau) of orders that were compared with full gradients.
    `withdrawn` are the places of hits whose documents were withdrawn since. `provenance` is (label, value) rows: what
    the hits were found with, and `again` what finds them again. `notes` are paragraphs of plain text.

    Raises ValueError for a `created_at` without a time zone, and for a hit that is filed under the wrong side.
    """

    trace_id: str
    query_id: str
    prompt: str
    target: str
    parts: tuple[AskedPart, ...] = ()
    target_loss: float | None = None
    n_target_tokens: int | None = None
    completed_by_model: bool = False
    method: str
    encoder: str | None
    curvature: str | None
    fused: str | None = None
    rank_constant: int | None = None
    recomputed: tuple[tuple[Side, int, float | None], ...] = ()
    filter: str | None = None
    k: int
    exact: bool = True
    recall: float | None = None
    n_candidates: int
    snapshot: str
    created_at: datetime
    proponents: tuple[Hit, ...] = ()
    opponents: tuple[Hit, ...] = ()
    withdrawn: tuple[tuple[Side, int], ...] = ()
    beside: Beside = Beside()
    provenance: tuple[tuple[str, str], ...] = ()
    again: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    query_set: str | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """What the model was to say, of every query."""
        return tuple(part.target for part in self.parts if part.weight > 0) or (self.target,)

    @property
    def instead(self) -> tuple[str, ...]:
        """What the targets are compared with."""
        return tuple(part.target for part in self.parts if part.weight < 0)

    @property
    def n_queries(self) -> int:
        """Queries that the scores are the mean over; one that was asked twice counts twice."""
        firsts: dict[str | None, AskedPart] = {}  # no query has two equal parts
        return sum(part == firsts.setdefault(part.query, part) for part in self.parts) or 1

    @property
    def chat(self) -> bool:
        """Whether the model read a prompt in its chat template."""
        return any(part.rendered is not None for part in self.parts)

    def __post_init__(self) -> None:
        _require_zone(self.created_at)
        for side, hits in (("proponent", self.proponents), ("opponent", self.opponents)):
            for hit in hits:
                if hit.side != side:
                    raise ValueError(f"passage {hit.passage_id} is listed as {side} and says it is {hit.side}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole report: its questions, and what somebody needs to make it again.

    `created_at` is when the newest question was asked: a report has no time of its own, so that it can be made again.
    `provenance` is (label, value) rows in the order they are shown. `notes` are paragraphs of plain text.
    Raises ValueError for a `created_at` without a time zone, and for a comparison that is not of two questions.
    """

    title: str
    created_at: datetime
    queries: tuple[TracedQuery, ...]
    provenance: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    lake: str = ""
    settings: ReportSettings = field(default_factory=ReportSettings)

    def __post_init__(self) -> None:
        _require_zone(self.created_at)
        if self.settings.compare and len(self.queries) != 2:
            raise ValueError(f"two traces are compared, not {len(self.queries)}")


@dataclass(frozen=True, slots=True)
class Share:
    """How many of some hits fall under one label, and their scores added up. `known` is False for the rest group."""

    label: str
    n_hits: int
    score_sum: float
    known: bool = True


def shares_by_source(hits: Iterable[Hit]) -> tuple[Share, ...]:
    """Group hits by their document's source: most hits first, those without a source last."""
    shares = _shares(hits, lambda hit: hit.source or None, NO_SOURCE)
    return tuple(sorted(shares, key=lambda share: (not share.known, -share.n_hits, -share.score_sum, share.label)))


def shares_by_year(hits: Iterable[Hit]) -> tuple[Share, ...]:
    """Group hits by the year their document was published: earliest first, undated ones last."""
    shares = _shares(hits, lambda hit: f"{hit.published.year:04d}" if hit.published else None, NO_DATE)
    return tuple(sorted(shares, key=lambda share: (not share.known, share.label)))


def _shares(hits: Iterable[Hit], label_of: Callable[[Hit], str | None], unknown: str) -> list[Share]:
    scores: dict[str | None, list[float]] = {}
    for hit in hits:
        scores.setdefault(label_of(hit), []).append(hit.score)
    return [
        Share(unknown if label is None else label, len(group), fsum(group), known=label is not None)
        for label, group in scores.items()
    ]


def _require_zone(moment: datetime) -> None:
    # A naive time would be read in the zone of whichever machine renders it, and the bytes would differ.
    if moment.utcoffset() is None:
        raise ValueError(f"created_at needs a time zone: {moment.isoformat()}")
