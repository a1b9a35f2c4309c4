"""Results of an evaluation in the forms that people read: sections of rows, with charts, of which tables are made."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from proponent.query.export.files import whole
from proponent.query.report.numbers import count
from proponent.query.report.text import markdown

from . import retraining_sections as retrained
from .charts import kinds_chart
from .gold import BOTH, KINDS, STRICT
from .metrics import METRICS
from .sections import Chart, Section, drawn_mean, interval_charts, mean_cell
from .tail import RANDOM, SIDES

KIND_WORDS: Final = {
    "states": "states the fact",
    "both": "names both entities",
    "one": "names one entity",
    "relation": "states another fact of the relation",
    "neither": "none of that",
}
_GOLD_WORDS: Final = {
    STRICT: "passages that are said to state the fact",
    BOTH: "those, and passages that name both entities",
}
_SIGNIFICANT: Final = 0.05


class Evaluation:
    """What an evaluation found."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.results = results
        """All of it, as `results.json` has it."""

    def __repr__(self) -> str:
        names = ", ".join(method["name"] for method in self.results["methods"])
        return f"<Evaluation of {names} on {self.results['facts']['n']} facts>"

    def mean(self, method: str, metric: str, *, gold: str = STRICT) -> dict[str, float] | None:
        """Return a metric of a method: mean, low, high and n; None where no fact has anything to be found."""
        [found] = [one for one in self.results["methods"] if one["name"] == method]
        value: dict[str, float] | None = found["attribution"][gold]["metrics"][metric]
        return value

    @cached_property
    def sections(self) -> list[Section]:
        """The parts, in order; those that were not asked for are left out."""
        return [section for section in _sections(self.results) if section.rows]

    @property
    def told(self) -> list[str]:
        """What a reader has to know before the numbers."""
        return _told(self.results)

    def to_markdown(self) -> str:
        """Return the results as Markdown."""
        parts = ["# Does it find what moved the model?", *(f"- {markdown(line)}" for line in self.told)]
        text = "\n".join([parts[0], "", *parts[1:], ""])
        return text + "".join(
            f"\n## {markdown(one.title)}\n\n{markdown(one.note)}\n\n{_table(one.rows)}" for one in self.sections
        )

    def to_html(self) -> str:
        """Return the results as one page that needs no network, no script and no other file."""
        environment = Environment(
            loader=PackageLoader("proponent.query.evaluate"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        page = environment.get_template("results.html.j2")
        return page.render(told=self.told, sections=self.sections)

    def write(self, folder: Path) -> None:
        """Write results.md and results.html, each whole or not at all; results.json is there already."""
        for name, text in (("results.md", self.to_markdown()), ("results.html", self.to_html())):
            with whole(folder / name) as partial:
                partial.write_text(text, "utf-8", errors="replace")


def _told(results: Mapping[str, Any]) -> list[str]:
    facts, searched, settings = results["facts"], results["searched"], results["settings"]
    lines = [
        f"{count(facts['n'], 'fact')}; every method searches {count(searched['passages'], 'passage')}, "
        f"{count(searched['texts'], 'distinct text')}, at snapshot {results['snapshot']}",
        *(f"filter: {settings['filter']}" for _ in [0] if settings["filter"]),
        *(f"left out of strict metrics: {count(n, 'fact')}; {reason}" for reason, n in facts["skipped"].items()),
        *(f"left out: {count(n, 'prompt')}; {reason}" for reason, n in facts["left_out"].items()),
        *(f"completed by the model itself: {count(n, 'prompt')}" for n in [len(facts["completed"])] if n),
        *(f"not in the lake: {count(facts['unknown_ids'], 'id')} of the facts" for _ in [0] if facts["unknown_ids"]),
        f"intervals: {settings['confidence']:.0%} of {settings['resamples']:,} resamples of the facts, seed "
        f"{settings['seed']}; a text beyond rank {settings['depth']} counts as not found",
    ]
    if facts["with_entities"] < facts["n"]:
        unnamed = count(facts["n"] - facts["with_entities"], "fact")
        lines.append(f"without a subject, so that no string is matched: {unnamed}")
    return lines


def _sections(results: Mapping[str, Any]) -> Iterator[Section]:
    methods = results["methods"]
    for gold in (STRICT, BOTH):
        yield _attribution(methods, gold)
    yield _answers(results["answers"])
    yield _influence(results)
    yield _influence_by_kind(results)
    yield retrained.lds(results["lds"])
    yield retrained.counterfactual(results["counterfactual"])
    yield retrained.single_answers(results)
    yield _comparisons(results["comparisons"])
    for split, title in (
        ("by_kind", "By kind"),
        ("by_relation", "By relation"),
        ("by_frequency", "By how many passages state the fact"),
    ):
        yield _split(methods, split, title)
    yield _kinds(methods)
    yield _costs(methods)


def _attribution(methods: Sequence[Mapping[str, Any]], gold: str) -> Section:
    found = [(one["name"], one["attribution"][gold]["metrics"]) for one in methods]
    found = [(name, metrics) for name, metrics in found if metrics["mrr"] is not None]
    rows = [
        {
            "method": name,
            "facts": f"{metrics['mrr']['n']:,}",
            **{metric: mean_cell(metrics[metric]) for metric in METRICS},
        }
        for name, metrics in found
    ]
    means = [drawn_mean(name, metrics["mrr"]) for name, metrics in found]
    return Section(
        f"Attribution: {_GOLD_WORDS[gold]}",
        "recall@k: share of facts of which one of the first k texts counts as found. precision@10: share of the "
        "first ten texts that do.",
        rows,
        interval_charts(means, ident=f"mrr-{gold}", title="Mean reciprocal rank"),
    )


def _influence(results: Mapping[str, Any]) -> Section:
    influence, steps = results["influence"] or {}, results["steps"]
    if not influence:
        return Section("", "", [])
    names = [RANDOM, *(method["name"] for method in results["methods"])]
    rows, means = [], []
    for name in names:
        sides = [RANDOM] if name == RANDOM else [f"{name}, {side}" for side in SIDES]
        for side in sides:
            found = influence[side]["log_probability"]
            if found is not None:
                rows.append(
                    {
                        "passages": side,
                        "facts": f"{found['n']:,}",
                        "log-probability": mean_cell(found, 4),
                        "probability": mean_cell(influence[side]["probability"], 4),
                    }
                )
                means.append(drawn_mean(side, found))
    how = steps["how"]
    return Section(
        "Influence: tail-patch",
        f"Mean change of the target after one step of {how['optimizer']} (learning rate {how['lr']:g}, "
        f"{how['share']:.0%} of the parameters) on one passage of the first ten, in nats and in probability.",
        rows,
        interval_charts(means, ident="influence", title="Change of the target's log-probability"),
    )


def _answers(answers: Mapping[str, Any] | None) -> Section:
    if answers is None:
        return Section("", "", [])
    rows = [
        {
            "kind": kind,
            "facts": f"{found['log_probability']['n']:,}",
            "right": mean_cell(found["right"]),
            "log-probability": mean_cell(found["log_probability"], 2),
        }
        for kind, found in answers["by_kind"].items()
    ]
    return Section(
        f"What the model {answers['model']} says itself",
        "right: share of choices of which no other completion is likelier, and of other facts whose target is what the "
        "model says by itself. log-probability: of the whole target, in nats.",
        rows,
    )


def _influence_by_kind(results: Mapping[str, Any]) -> Section:
    found = results["influence_by_kind"] or {}
    rows = [
        {
            "passages": name,
            "kind": kind,
            "facts": f"{changes['log_probability']['n']:,}",
            "log-probability": mean_cell(changes["log_probability"], 4),
            "probability": mean_cell(changes["probability"], 4),
            "difference": mean_cell(changes["difference"], 4),
        }
        for name, of_kinds in found.items()
        for kind, changes in of_kinds.items()
        if changes["log_probability"] is not None
    ]
    return Section(
        "Influence by kind",
        "difference: change of a choice's log-probability less that of the likeliest of the others.",
        rows,
    )


def _comparisons(compared: Sequence[Mapping[str, Any]]) -> Section:
    rows = [
        {
            "measure": one["measure"],
            "methods": f"{one['one']} - {one['other']}",
            "facts": f"{one['n']:,}",
            "difference": f"{one['difference']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]",
            "p (Holm)": f"{one['p_holm']:.4f}",
            "": "differ" if one["p_holm"] < _SIGNIFICANT else "",
        }
        for one in compared
    ]
    return Section(
        "Differences",
        "Paired over the facts: the mean difference with its interval, and the p-value of flipped signs after "
        f"Holm's correction for all pairs of a measure; below {_SIGNIFICANT:g} they differ.",
        rows,
    )


def _split(methods: Sequence[Mapping[str, Any]], split: str, title: str) -> Section:
    rows = [
        {
            "method": method["name"],
            "group": group,
            "facts": f"{metrics['mrr']['n']:,}",
            **{name: mean_cell(value) for name, value in metrics.items()},
        }
        for method in methods
        for group, metrics in method["attribution"][STRICT][split].items()
    ]
    groups = {row["group"] for row in rows}
    return Section(title, "Strict gold.", rows if len(groups) > 1 else [])


def _kinds(methods: Sequence[Mapping[str, Any]]) -> Section:
    rows, charts = [], []
    for number, method in enumerate(methods):
        for rank in (1, 2, 3, 5, 10):
            shares = method["kinds"][rank - 1]
            if shares:
                told = {KIND_WORDS[kind]: f"{shares[kind]:.1%}" for kind in KINDS}
                rows.append({"method": method["name"], "rank": str(rank), **told})
        title = f"{method['name']}, by rank"
        charts.append(Chart(title, kinds_chart(method["kinds"], KINDS, ident=f"kinds-{number}", title=title)))
    return Section(
        "Kinds of what is listed",
        "What the text at a rank has in common with the fact: share of facts, of those that name their subject.",
        rows,
        tuple(chart for chart in charts if chart.svg),
        tuple(KIND_WORDS.values()),
    )


def _costs(methods: Sequence[Mapping[str, Any]]) -> Section:
    rows = [
        {
            "method": method["name"],
            "seconds": f"{method['cost']['seconds']:.2f}",
            "bytes read": _bytes(method["cost"]["bytes_read"]),
            "bytes stored": _bytes(method["cost"]["bytes_stored"]),
        }
        for method in methods
    ]
    return Section(
        "Cost",
        "Of ordering the texts for all facts, encoding the questions and loading what was not loaded yet included.",
        rows,
    )


def _bytes(n: int | None) -> str:
    return "" if n is None else f"{n:,}"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    columns = list(rows[0])
    lines: list[Sequence[str]] = [columns, ["---"] * len(columns)]
    lines += [[markdown(row[name]) for name in columns] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
