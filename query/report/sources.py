"""Where the influence on an answer comes from: every passage of the corpus counted, by source and by time.

Notable: the numbers are those of `proponent groups`, of the snapshot that was searched; here they are cut down to what
a page can show. What is left out of it is told as one row, so that the rows always add up to the whole.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from .content import NO_DATE, NO_SOURCE, Group, Sources, Span

SOURCES_SHOWN: Final = 10
SPANS_SHOWN: Final = 24
_YEARS: Final[dict[Span, int]] = {"year": 1, "decade": 10, "century": 100}
_DIGITS: Final = 4  # behind them, other machines and sums that are made anew round otherwise

Row = Mapping[str, Any]


def sources(by_source: Sequence[Row], by_month: Sequence[Row]) -> Sources:
    """Make the tables of a report from the rows of relation `group_influence`, by source and by month."""
    span = _span([row["name"] for row in by_month if row["name"] is not None])
    return Sources(
        by_source=tuple(_largest([_source(row) for row in by_source])),
        by_time=tuple(_in_spans(by_month, span)),
        span=span,
        n_passages=sum(row["n_passages"] or 0 for row in by_source),
    )


def _source(row: Row) -> Group:
    label = f"{row['others']:,} more sources" if row["others"] else row["name"] or NO_SOURCE
    return _group(label, [row], known=not row["others"] and bool(row["name"]))


def _largest(groups: list[Group]) -> list[Group]:
    """Return the groups of most influence either way, highest first, and the others as one."""
    known = [group for group in groups if group.known]
    others = [group for group in groups if not group.known]
    if len(known) > SOURCES_SHOWN:
        ordered = sorted(known, key=lambda group: (-abs(group.influence or 0.0), group.label))
        known, rest = ordered[: SOURCES_SHOWN - 1], ordered[SOURCES_SHOWN - 1 :]
        rows = [
            {name: getattr(group, name) for name in ("n_passages", "influence", "share", "passage_share")}
            for group in rest
        ]
        others = [_group(f"{len(rest):,} smaller sources", rows, known=False), *others]
    return [*sorted(known, key=lambda group: (-(group.influence or 0.0), group.label)), *others]


def _in_spans(rows: Sequence[Row], span: Span) -> list[Group]:
    dated = sorted((row for row in rows if row["name"] is not None), key=lambda row: str(row["name"]))
    found = [
        _group(_label(place, span), list(members), place=place)
        for place, members in groupby(dated, key=lambda row: _place(row["name"], span))
    ]
    others = [row for row in rows if row["others"]]
    undated = [row for row in rows if row["name"] is None and not row["others"]]
    found += [_group("other dates", others, known=False)] if others else []
    return found + ([_group(NO_DATE, undated, known=False)] if undated else [])


def _group(label: str, rows: Sequence[Row], *, known: bool = True, place: int | None = None) -> Group:
    def total(name: str) -> float | None:
        values = [row[name] for row in rows if row[name] is not None]
        return rounded(sum(values)) if values else None

    n_passages = total("n_passages")
    return Group(
        label=label,
        n_passages=None if n_passages is None else sum(row["n_passages"] or 0 for row in rows),
        influence=total("influence"),
        share=total("share"),
        passage_share=total("passage_share"),
        known=known,
        place=place,
    )


def rounded(value: float) -> float:
    """Return a number to the digits that do not depend on how it was summed."""
    return float(f"{value:.{_DIGITS}g}")


def _span(names: Sequence[str]) -> Span:
    """Return the finest span of time that leaves a table to be read; a year alone has no month."""
    if all(len(name) == 7 for name in names) and len(names) <= SPANS_SHOWN:
        return "month"
    for span, years in _YEARS.items():
        if len({int(name[:4]) // years for name in names}) <= SPANS_SHOWN:
            return span
    return "century"


def _place(name: str, span: Span) -> int:
    year = int(name[:4])
    return year * 12 + int(name[5:7]) - 1 if span == "month" else year // _YEARS[span]


def _label(place: int, span: Span) -> str:
    labels: dict[Span, Callable[[int], str]] = {
        "month": lambda place: f"{place // 12:04}-{place % 12 + 1:02}",
        "year": lambda place: f"{place:04}",
        "decade": lambda place: f"{place * 10}s",
        "century": lambda place: f"{place * 100}\u2013{place * 100 + 99}",
    }
    return labels[span](place)
