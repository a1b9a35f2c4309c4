"""Tables of Markdown, and how a mean, a difference and a verdict are written."""

from collections.abc import Mapping, Sequence

from ranking import MEASURES, TAIL, Difference, Values, compared, told

from proponent.query.evaluate.statistics import Interval, holm


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows as a table."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(row.get(name, "") for name in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def number(value: float, measure: str) -> str:
    """Write a value: reciprocal ranks to three digits, changes to one."""
    return f"{value:.1f}" if measure == TAIL else f"{value:.3f}".replace("0.", ".", 1)


def mean(found: Interval | None, measure: str) -> str:
    """Write a mean with its interval."""
    if found is None:
        return ""
    low, high = number(found.low, measure), number(found.high, measure)
    return f"{number(found.mean, measure)} [{low}, {high}]"


def difference(found: Difference | None, measure: str, p: float | None = None) -> str:
    """Write a difference with its interval and its p-value."""
    if found is None:
        return ""
    sign = "+" if found.mean > 0 else ""
    low, high = number(found.low, measure), number(found.high, measure)
    chance = found.p if p is None else p
    written = "p < .001" if chance < 0.001 else f"p = {chance:.3f}".replace("0.", ".", 1)
    return f"{sign}{number(found.mean, measure)} [{low}, {high}], {written}"


def verdict(found: Difference | None, p: float | None = None) -> str:
    """Say what a difference comes to."""
    if found is None:
        return "not measured"
    if (found.p if p is None else p) >= 0.05:
        return "not told apart"
    return "higher" if found.mean > 0 else "lower"


def means_of(named: Mapping[str, Values], facts: Sequence[int], *, resamples: int) -> list[dict[str, str]]:
    """Return a row for every name with its means."""
    return [
        {"": name} | {measure: mean(told(values, measure, facts, resamples=resamples), measure) for measure in MEASURES}
        for name, values in named.items()
    ]


def against(named: Mapping[str, Values], reference: Values, facts: Sequence[int]) -> list[dict[str, str]]:
    """Return a row for every name with its differences to a reference, p-values corrected within a measure by Holm."""
    cells: dict[str, dict[str, str]] = {name: {"": name} for name in named}
    for measure in MEASURES:
        found = {name: one for name in named if (one := compared(named[name], reference, measure, facts))}
        adjusted = dict(zip(found, holm([one.p for one in found.values()]), strict=True))
        for name, one in found.items():
            cells[name][measure] = difference(one, measure, adjusted[name])
    return list(cells.values())


def judged(pairs: Mapping[str, tuple[Values, Values]], facts: Sequence[int], *, first: str) -> list[dict[str, str]]:
    """Return a row for every pair with its differences and what they come to; p-values corrected by Holm."""
    rows = {name: {first: name} for name in pairs}
    for measure in MEASURES:
        found = {name: one for name, pair in pairs.items() if (one := compared(*pair, measure, facts))}
        adjusted = holm([one.p for one in found.values()])
        for (name, one), p in zip(found.items(), adjusted, strict=True):
            rows[name][measure] = f"{verdict(one, p)}: {difference(one, measure, p)}"
    return list(rows.values())
