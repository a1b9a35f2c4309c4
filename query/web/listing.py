"""A trace's list of hits: what of it is chosen, its facets, its order, and the SQL that gives the same.

Notable: choosing here hides hits of a list that is there. The same choice as a filter before a search makes another
trace, in which other passages take the places of those that it leaves out.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from typing import Annotated, Final, Literal

import msgspec

from proponent.query.report.content import Span
from proponent.query.statement import literal

from .traced import Listed

FACETS_SHOWN: Final = 24
"""Values of a facet, the most frequent ones; those that are chosen are always there."""
MOST_BINS: Final = 60

_Value = Annotated[str, msgspec.Meta(max_length=1000)]
_Time = Annotated[str, msgspec.Meta(pattern=r"^\d{4}(-(0[1-9]|1[0-2]))?$")]

Order = Literal["rank", "newest", "oldest", "source"]


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """Which hits of a list are shown: those that have any of the sources, any of the entities, and a date between."""

    source: Annotated[list[_Value], msgspec.Meta(max_length=50, description="Only hits of these sources.")] = []
    no_source: Annotated[bool, msgspec.Meta(description="... or of none.")] = False
    entity: Annotated[
        list[_Value], msgspec.Meta(max_length=50, description="Only hits that mention any of these.")
    ] = []
    since: Annotated[_Time | None, msgspec.Meta(description="First year or month of publication.")] = None
    until: Annotated[_Time | None, msgspec.Meta(description="Last year or month of publication.")] = None

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return not (self.source or self.no_source or self.entity or self.since or self.until)


class FacetValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value, and how many of the listed hits have it."""

    value: str | None
    n_proponents: int
    n_opponents: int
    chosen: bool


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time, and how many of the listed hits are of it."""

    since: str
    until: str
    label: str
    n_proponents: int
    n_opponents: int
    chosen: bool


class Facets(msgspec.Struct, frozen=True, kw_only=True):
    """What the hits of a whole list are of, whatever is chosen."""

    sources: list[FacetValue]
    entities: list[FacetValue]
    more_entities: int
    times: list[Bin]
    span: Span
    n_undated: int


def select(hits: Sequence[Listed], chosen: Chosen) -> list[Listed]:
    """Return the hits that are chosen, in their order."""
    first, last = _first_day(chosen.since), _last_day(chosen.until)
    sources, entities = set(chosen.source), set(chosen.entity)

    def passes(hit: Listed) -> bool:
        if (sources or chosen.no_source) and not (hit.source in sources or (chosen.no_source and not hit.source)):
            return False
        if entities and not entities & set(hit.entities):
            return False
        if first is None and last is None:
            return True
        day = hit.published
        return day is not None and (first is None or day >= first) and (last is None or day <= last)

    return [hit for hit in hits if passes(hit)]


def ordered(hits: Sequence[Listed], order: Order) -> list[Listed]:
    """Return hits in an order; equal ones by rank."""
    by_rank = sorted(hits, key=lambda hit: hit.rank)
    if order == "source":
        return sorted(by_rank, key=lambda hit: (not hit.source, hit.source or ""))
    if order == "rank":
        return by_rank
    sign = -1 if order == "newest" else 1
    return sorted(
        by_rank, key=lambda hit: (hit.published is None, sign * hit.published.toordinal() if hit.published else 0)
    )


def facets(hits: Sequence[Listed], chosen: Chosen) -> Facets:
    """Return what all hits of a list are of."""
    sources = _values(hits, lambda hit: [hit.source or None], {*chosen.source, *([None] if chosen.no_source else [])})
    entities = _values(hits, lambda hit: list(hit.entities), set(chosen.entity))
    shown = [one for place, one in enumerate(entities) if place < FACETS_SHOWN or one.chosen]
    times, span = _bins(hits, chosen)
    return Facets(
        sources=sources,
        entities=shown,
        more_entities=len(entities) - len(shown),
        times=times,
        span=span,
        n_undated=sum(hit.published is None for hit in hits),
    )


def filter_of(chosen: Chosen) -> str | None:
    """Return what is chosen as a filter of `proponent trace --filter`, None for everything."""
    return _predicate(chosen, lambda names: [f"entity({literal(name)})" for name in names])


def statement(trace_id: str, chosen: Chosen, order: Order, *, most: int, skipped: int) -> str:
    """Return the SELECT that gives a page of either side's list."""

    def of_entities(names: Sequence[str]) -> list[str]:
        return [f"list_contains(entities, {literal(name)})" for name in names]

    predicate = _predicate(chosen, of_entities)
    orders = {
        "rank": "rank",
        "newest": "published DESC NULLS LAST, rank",
        "oldest": "published NULLS LAST, rank",
        "source": "source NULLS LAST, rank",
    }
    where = f"trace_id = {literal(trace_id)}" + (f"\n  AND {predicate}" if predicate else "")
    place = f"row_number() OVER (PARTITION BY side ORDER BY {orders[order]})"
    return (
        "SELECT side, rank, score, percentile, z_score, source, published, title, entities, text, passage_id\n"
        f"FROM influence\nWHERE {where}\n"
        f"QUALIFY {place} BETWEEN {skipped + 1} AND {skipped + most}\n"
        f"ORDER BY side DESC, {orders[order]}"
    )


def _predicate(chosen: Chosen, of_entities: Callable[[Sequence[str]], list[str]]) -> str | None:
    parts = []
    sources = [f"source IN ({', '.join(map(literal, chosen.source))})"] if chosen.source else []
    sources += ["source IS NULL"] if chosen.no_source else []
    for alternatives in (sources, of_entities(chosen.entity)):
        if alternatives:
            parts.append(alternatives[0] if len(alternatives) == 1 else f"({' OR '.join(alternatives)})")
    if (first := _first_day(chosen.since)) is not None:
        parts.append(f"published >= DATE '{first.isoformat()}'")
    if (last := _last_day(chosen.until)) is not None:
        parts.append(f"published <= DATE '{last.isoformat()}'")
    return " AND ".join(parts) or None


def _values(
    hits: Iterable[Listed],
    values: "Callable[[Listed], list[str | None] | list[str]]",
    chosen: "set[str | None] | set[str]",
) -> list[FacetValue]:
    counts: dict[str | None, Counter[str]] = {}
    for hit in hits:
        for value in values(hit):
            counts.setdefault(value, Counter())[hit.side] += 1
    for value in chosen:
        counts.setdefault(value, Counter())
    found = [
        FacetValue(value=value, n_proponents=n["proponent"], n_opponents=n["opponent"], chosen=value in chosen)
        for value, n in counts.items()
    ]
    return sorted(found, key=lambda one: (-(one.n_proponents + one.n_opponents), one.value is None, one.value or ""))


def _bins(hits: Sequence[Listed], chosen: Chosen) -> tuple[list[Bin], Span]:
    """Return all stretches of time from the first to the last dated hit, empty ones among them."""
    dated = [(hit, hit.published) for hit in hits if hit.published is not None]
    if not dated:
        return [], "year"
    days = [day for _, day in dated]
    span = _span(min(days), max(days), exact=all(hit.published_precision in {"day", "month"} for hit, _ in dated))
    counts: dict[int, Counter[str]] = {}
    for hit, day in dated:
        counts.setdefault(_place(day, span), Counter())[hit.side] += 1
    first, last = _first_day(chosen.since) or date.min, _last_day(chosen.until) or date.max
    found = []
    for place in range(min(counts), max(counts) + 1):
        since, until, n = *_bounds(place, span), counts.get(place, Counter())
        begins, ends = _first_day(since), _last_day(until)
        assert begins is not None
        assert ends is not None
        inside = bool(chosen.since or chosen.until) and first <= ends and last >= begins
        found.append(
            Bin(
                since=since,
                until=until,
                label=since if span in {"month", "year"} else f"{since} to {until}",
                n_proponents=n["proponent"],
                n_opponents=n["opponent"],
                chosen=inside,
            )
        )
    return found, span


def _span(first: date, last: date, *, exact: bool) -> Span:
    months = (last.year - first.year) * 12 + last.month - first.month + 1
    if exact and months <= MOST_BINS:
        return "month"
    years = last.year - first.year + 1
    return "year" if years <= MOST_BINS else "decade" if years <= 10 * MOST_BINS else "century"


_YEARS: Final[dict[Span, int]] = {"year": 1, "decade": 10, "century": 100}


def _place(day: date, span: Span) -> int:
    return day.year * 12 + day.month - 1 if span == "month" else day.year // _YEARS[span]


def _bounds(place: int, span: Span) -> tuple[str, str]:
    """Return the first and the last year or month of a stretch, as `since` and `until` are written."""
    if span == "month":
        month = f"{place // 12:04}-{place % 12 + 1:02}"
        return month, month
    years = _YEARS[span]
    return f"{max(place * years, 1):04}", f"{min(place * years + years - 1, date.max.year):04}"


def _first_day(time: str | None) -> date | None:
    if time is None:
        return None
    return date(max(int(time[:4]), 1), int(time[5:7] or 1), 1)


def _last_day(time: str | None) -> date | None:
    if time is None:
        return None
    year, month = max(int(time[:4]), 1), int(time[5:7] or 12)
    if month == 12:
        return date(year, 12, 31)
    return date(year, month + 1, 1) - timedelta(days=1)
