"""Write `results.md`: every table of the study, from what the steps found. No number in it is typed by hand.

Passages are quoted in `examples.md` alone, which stays in the work folder: their texts are other people's.
"""

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from ablate import PARTS_OF_MORE
from measure import best_peer
from ranking import (
    MEASURES,
    OWN,
    REPORT,
    SENTENCES,
    TAIL,
    TUNE,
    Judge,
    Values,
    best_of,
    compared,
    kept,
    kinds_of,
)
from tables import against, difference, mean, means_of, number, table, told, verdict
from vectors import BASE, FORMER
from work import MAIN, SMALL, STAGES, Work, read_rows

import proponent
from proponent.query.evaluate.statistics import holm
from proponent.store.runs import library_versions

_TRACKSTAR: Final = "main:trackstar"
_WORDS: Final = {
    "quarter": "a quarter of the training",
    "half": "half of it",
    MAIN: "all of it",
    SMALL: "smaller model",
}
_EXAMPLES: Final = 8
_SHOWN: Final = 3
_OTHERWISE: Final = "asked in other words"
"""A family that is no choice."""


def run(work: Work) -> None:
    """Write the report into the work folder."""
    told_of = _Report(work)
    parts = [
        "# Results of the study of fact tracing",
        "Made by `benchmarks/fact_tracing/run.py`; [README.md](README.md) says what is measured and what it comes to. "
        "Brackets are 95 % intervals over facts (bootstrap); p-values are of paired tests that flip signs, corrected "
        "by Holm within a table's column. Tail-patch: thousandths of a nat of the target's log-probability, mean of "
        "the first ten passages.",
    ]
    for title, section in (
        ("What was studied", told_of.setting),
        ("What was expected, and what was found", told_of.claims),
        ("All methods", told_of.methods),
        ("By kind of fact", told_of.splits),
        ("Sizes and stages of training", told_of.stages),
        ("Parts of the method", told_of.parts),
        ("Settings, one at a time", told_of.families),
        ("Chosen on one half, reported on the other", told_of.chosen),
        ("bergson", told_of.peer),
        ("Where it fails", told_of.failures),
    ):
        parts += [f"## {title}", *section()]
    (work.folder / "examples.md").write_text(told_of.quoted(), "utf-8")
    (work.folder / "results.md").write_text("\n\n".join(part.strip() for part in parts) + "\n", "utf-8")
    print(work.folder / "results.md")


class _Report:
    """Everything that was found, read once."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.judge = Judge(work)
        self.resamples = work.size.resamples
        self.every = self.judge.half(None)
        self.train, self.lake = work.read("train"), work.read("fill_lake")
        self.ablated: dict[str, dict[str, Values]] = {
            family: {name: self.judge.with_steps(values) for name, values in named.items()}
            for family, named in work.read("ablate").items()
        }
        self.exact = {name: self.judge.with_steps(values) for name, values in work.read("exact").items()}
        self.peers: dict[str, Any] = {
            name: one | ({"values": self.judge.with_steps(one["values"])} if "values" in one else {})
            for name, one in work.read("peer").items()
        }
        self.default: Values = self.ablated["parts"][f"V {BASE}, R, cosine"]
        self.corpus = read_rows(work.corpus)
        self.evaluations = {
            name: json.loads((work.evaluation(name) / "results.json").read_text("utf-8")) for name in (*STAGES, SMALL)
        }
        self.texts = self._texts()
        self.lists = {name: self._lists(found) for name, found in self.evaluations.items()}
        self.values = {
            name: {method: self._values(name, method, lists) for method, lists in of_methods.items()}
            for name, of_methods in self.lists.items()
        }

    def _texts(self) -> dict[str, int]:
        order = {row["id"]: place for place, row in enumerate(self.corpus)}
        with proponent.open(self.work.lake) as lake:
            rows = lake.sql("SELECT doc_key, text_hash FROM passages JOIN documents USING (doc_id)").to_arrow()
        return {row["text_hash"]: order[row["doc_key"]] for row in rows.to_pylist()}

    def _lists(self, found: Mapping[str, Any]) -> dict[str, list[list[int]]]:
        return {
            method["name"]: [[self.texts[key] for key in keys] for keys in method["orders"]["proponents"]]
            for method in found["methods"]
        }

    def _values(self, model: str, method: str, lists: list[list[int]]) -> Values:
        """Return attribution by lists, and the harness's own tail-patches on them."""
        values = {**self.judge.values_of_lists(lists), TAIL: [None] * len(self.every)}
        for place, found in self.evaluations[model]["steps"]["values"][f"{method}, proponents"].items():
            values[TAIL][int(place)] = 1000 * found["log_probability"]
        return values

    # Sections

    def setting(self) -> list[str]:
        facts, judge = self.judge.facts, self.judge
        n_rows = sum(row["id"].startswith("row:") for row in self.corpus)
        fitted = {(one["encoder"], one["name"]): one for one in self.lake["curvatures"]}
        rho = json.loads(fitted[MAIN, "reference"]["diagnostics"])["rho"]
        lines = [
            f"{len(self.corpus):,} passages: {n_rows:,} filled-in prompts and {len(self.corpus) - n_rows:,} sentences, "
            f"{self.train['tokens']:,} tokens an epoch.",
            f"{len(facts)} facts of {len({one['relation'] for one in facts})} relations are evaluated; "
            f"{sum(own >= 0 for own in judge.own)} of them have a row.",
            f"{len(read_rows(self.work.task)):,} other facts make the task's curvature; lambda by the rule is "
            f"{fitted[MAIN, 'task']['mixing']:.2f}.",
            f"Ledoit-Wolf's shrinkage of the groups: {', '.join(f'{one:.2f}' for one in rho)}.",
            f"Influence is measured on {len(judge.places)} of them. In memory the default is what the harness ranks, "
            f"but for codes of eight bits and the sample of R: {self._agreement()}.",
            f"Settings are chosen on {', '.join(sorted(judge.tuned_on))}, and reported on the other relations.",
            f"{platform.machine()}, {self.work.threads} threads; "
            + ", ".join(f"{name} {version}" for name, version in library_versions().items())
            + ".",
        ]
        return ["\n".join(f"- {line}" for line in lines), table([self._model(name) for name in (*STAGES, SMALL)])]

    def _model(self, name: str) -> dict[str, str]:
        told_of = self.train["models"][name]
        return {
            "model": _WORDS[name],
            "parameters": f"{told_of['parameters']:,}" if "parameters" in told_of else "",
            "loss of the last epoch": f"{told_of['loss']:.2f}" if "loss" in told_of else "",
            "training, seconds": f"{told_of['seconds']:.0f}" if "seconds" in told_of else "",
            "completes, of facts with a row": self._completed(name, with_row=True),
            "completes, of facts in sentences only": self._completed(name, with_row=False),
        }

    def _completed(self, model: str, *, with_row: bool) -> str:
        answers = self.train["models"][model]["completes"]
        chosen = [answer for answer, own in zip(answers, self.judge.own, strict=True) if (own >= 0) == with_row]
        return f"{sum(chosen)} of {len(chosen)}"

    def _agreement(self) -> str:
        """Return how far the default in memory is from what the harness measured of it."""
        ours = self.values[MAIN][_TRACKSTAR]
        means = {
            measure: (kept(ours, measure, self.every).mean(), kept(self.default, measure, self.every).mean())
            for measure in MEASURES
        }
        return "; ".join(f"{name} {number(a, name)} and {number(b, name)}" for name, (a, b) in means.items())

    def claims(self) -> list[str]:
        tables = [
            text
            for words, family in (("", "parts"), (" with twice the components", PARTS_OF_MORE))
            for text in (
                f"Does each part of the method help{words}? With the part less without it, all facts, in memory.",
                table(_judged(_pairs(self.ablated[family]), self.every, first="part")),
            )
        ]
        values = self.values[MAIN]
        others = {name: (values[_TRACKSTAR], other) for name, other in values.items() if name != _TRACKSTAR}
        return [
            *tables,
            "TrackStar less everything else, all facts, as the harness ranked; `higher` is better for TrackStar.",
            table(_judged(others, self.every, first="TrackStar less")),
        ]

    def methods(self) -> list[str]:
        rows = means_of(self.values[MAIN], self.every, resamples=self.resamples)
        steps = self.evaluations[MAIN]["influence"]
        for row, method in zip(rows, self.evaluations[MAIN]["methods"], strict=True):
            row["opponents"] = _opponents(steps, method)
            row["sentences, first ten"] = self._found_in_ten(method["name"])
            row["seconds"] = f"{method['cost']['seconds']:.1f}"
            stored = method["cost"]["bytes_stored"]
            row["MB stored"] = "" if stored is None else f"{stored / 1e6:.1f}"
        return [
            "By `proponent evaluate`, on all facts; lists of a hundred. The first method pays for loading the model.",
            table(rows),
        ]

    def _found_in_ten(self, method: str) -> str:
        found = [
            any(
                one in self.judge.sentences[fact] for one in [key for key in listed if key != self.judge.own[fact]][:10]
            )
            for fact, listed in enumerate(self.lists[MAIN][method])
            if self.judge.sentences[fact]
        ]
        return f"{sum(found) / len(found):.1%}"

    def splits(self) -> list[str]:
        answers = self.train["models"][MAIN]["completes"]
        groups = {
            "with a row": [fact for fact in self.every if self.judge.own[fact] >= 0],
            "in sentences only": [fact for fact in self.every if self.judge.own[fact] < 0],
            "completed rightly": [fact for fact in self.every if answers[fact]],
            "completed wrongly": [fact for fact in self.every if not answers[fact]],
            "in sentences only, completed rightly": [
                fact for fact in self.every if answers[fact] and self.judge.own[fact] < 0
            ],
        }
        names = (_TRACKSTAR, "main:trackstar@task", "main_none:gradcos", "bm25", "main:hybrid")
        rows = []
        for group, facts in groups.items():
            for name in names:
                cells = {
                    measure: mean(told(self.values[MAIN][name], measure, facts, resamples=self.resamples), measure)
                    for measure in MEASURES
                    if len(kept(self.values[MAIN][name], measure, facts))
                }
                rows.append({"facts": f"{group} ({len(facts)})", "method": name, **cells})
        relations = sorted({fact["relation"] for fact in self.judge.facts})
        by_relation = []
        for relation in relations:
            facts = [place for place in self.every if self.judge.facts[place]["relation"] == relation]
            row = {"relation": relation}
            for name in (_TRACKSTAR, "bm25", "main:hybrid"):
                row[f"{name}, {SENTENCES}"] = number(kept(self.values[MAIN][name], SENTENCES, facts).mean(), SENTENCES)
            by_relation.append(row)
        return [
            table([{**dict.fromkeys(("facts", "method", *MEASURES), ""), **row} for row in rows]),
            table(by_relation),
        ]

    def stages(self) -> list[str]:
        rows = []
        for name in (SMALL, *STAGES):
            ours, words = self.values[name][f"{name}:trackstar"], self.values[name]["bm25"]
            row = {"model": name}
            for measure in (OWN, SENTENCES):
                row[f"TrackStar, {measure}"] = mean(told(ours, measure, self.every), measure)
                row[f"BM25 less TrackStar, {measure}"] = difference(compared(words, ours, measure, self.every), measure)
            influence = self.evaluations[name]["influence"]
            for label, key in (("TrackStar", f"{name}:trackstar"), ("BM25", "bm25"), ("random", "random")):
                found = influence[f"{key}, proponents"]["log_probability"]
                row[f"{TAIL}, {label}"] = (
                    f"{1000 * found['mean']:.1f} [{1000 * found['low']:.1f}, {1000 * found['high']:.1f}]"
                )
            rows.append(row)
        return [
            "Each checkpoint with its own encoder and its own tail-patches (so those compare within a row).",
            table(rows),
        ]

    def parts(self) -> list[str]:
        return [
            "In memory, float32, all facts.",
            table(means_of(self.ablated["parts"], self.every, resamples=self.resamples)),
            "With two projections, d twice as large:",
            table(means_of(self.ablated[PARTS_OF_MORE], self.every, resamples=self.resamples)),
        ]

    def families(self) -> list[str]:
        sections: list[str] = [
            "Differences to the default (V by rows and columns, Ledoit-Wolf, unit length, no task) on all facts."
        ]
        for family, named in (*self.ablated.items(), ("whole gradients", self.exact)):
            if not family.startswith("parts"):
                sections += [f"### {family.capitalize()}", table(against(named, self.default, self.every))]
        return sections

    def chosen(self) -> list[str]:
        tune, report = self.judge.half(TUNE), self.judge.half(REPORT)
        rows = []
        for family, named in (*self.ablated.items(), ("whole gradients", self.exact)):
            if family == _OTHERWISE:
                continue
            for measure in MEASURES:
                name = best_of(named, measure, tune)
                found = compared(named[name], self.default, measure, report)
                rows.append(
                    {
                        "family": family,
                        "chosen for": measure,
                        "setting": name,
                        "less the default, tuned on": difference(
                            compared(named[name], self.default, measure, tune), measure
                        ),
                        "less the default, held out": difference(found, measure),
                    }
                )
        return [table(rows)]

    def peer(self) -> list[str]:
        if not self.peers or len(self.peers) == 1:
            return [
                "bergson was not run to its end: `PROPONENT_BERGSON` names no Python that has it, or it was stopped."
            ]
        named = {name: one for name, one in self.peers.items() if "values" in one}
        rows = means_of({name: one["values"] for name, one in named.items()}, self.every, resamples=self.resamples)
        for row, one in zip(rows, named.values(), strict=True):
            row |= {"d": f"{one['d']:,}", "CPU s": f"{one['seconds']:.0f}"}
            if "index_bytes" in one:
                row |= {"index, MB": f"{one['index_bytes'] / 1e6:.1f}", "index, CPU s": f"{one['index_seconds']:.0f}"}
        columns = ("", *MEASURES, "d", "CPU s", "index, MB", "index, CPU s")
        chosen, sizes = best_peer(self.work), self.ablated["size"]
        ours = {"default": self.default} | {
            name: values for name, values in sizes.items() if name.startswith((FORMER, "two projections, d"))
        }
        versus = {
            f"{name}, less bergson's {other}": (values, named[other]["values"])
            for other in dict.fromkeys(("defaults", self._fairest(named), chosen))
            for name, values in ours.items()
        }
        own = [
            {
                "encoder": name,
                "d": f"{cost['d']:,}",
                "fitting R, CPU s": f"{cost['fit']:.0f}",
                "encoding and scoring, CPU s": f"{cost['encode']:.0f}",
                "codes, MB": f"{cost['bytes'] / 1e6:.1f}",
            }
            for name, cost in self.peers["own"].items()
        ]
        return [
            "bergson 2.5.1 on the same token ids, by its own two passes over the passages, one process and one thread.",
            table([{**dict.fromkeys(columns, ""), **row} for row in rows]),
            "proponent in memory, from a loaded model to all scores, one thread:",
            table(own),
            f"bergson's best setting by the half that is tuned on is {chosen}. In memory, all facts:",
            table(_judged(versus, self.every, first="TrackStar")),
            "The same on the held-out half:",
            table(_judged(versus, self.judge.half(REPORT), first="TrackStar")),
        ]

    @staticmethod
    def _fairest(named: Mapping[str, Any]) -> str:
        """Return bergson's best setting, by own rows and sentences, of those with the fewest components."""
        least = min(one["d"] for one in named.values())

        def mean_of(name: str) -> float:
            values = named[name]["values"]
            return float(
                sum(np.mean([one for one in values[measure] if one is not None]) for measure in (OWN, SENTENCES))
            )

        return max((name for name in named if named[name]["d"] == least), key=mean_of)

    def failures(self) -> list[str]:
        parts = [self._kinds()]
        for title, facts in self._failing():
            rows = [self._example(fact, self.lists[MAIN][_TRACKSTAR][fact]) for fact in facts]
            parts += [f"### {title}", table(rows) if rows else "None."]
        return parts

    def _failing(self) -> list[tuple[str, list[int]]]:
        """Return facts whose sentences TrackStar ranks low and BM25 first, and the other way round."""
        ours, words = self.values[MAIN][_TRACKSTAR][SENTENCES], self.values[MAIN]["bm25"][SENTENCES]
        both = [
            (a - b, fact)
            for fact, (a, b) in enumerate(zip(ours, words, strict=True))
            if a is not None and b is not None
        ]
        order = [both[place] for place in np.random.default_rng(0).permutation(len(both))]  # of equal gaps, any
        order.sort(key=lambda one: one[0])
        return [
            ("BM25 finds it, TrackStar does not", [fact for gap, fact in order[:_EXAMPLES] if gap < 0]),
            ("TrackStar has it before BM25", [fact for gap, fact in order[::-1][:_EXAMPLES] if gap > 0]),
        ]

    def _kinds(self) -> str:
        rows = []
        for method in (_TRACKSTAR, "main:trackstar@task", "main_none:graddot", "bm25"):
            for rank in (1, 2, 5, 10):
                counts = Counter(
                    kinds_of(self.judge.facts[fact], self.corpus[listed[rank - 1]])
                    for fact, listed in enumerate(self.lists[MAIN][method])
                    if len(listed) >= rank
                )
                rows.append(
                    {"method": method, "rank": str(rank)} | {k: f"{n / counts.total():.1%}" for k, n in counts.items()}
                )
        names = sorted({name for row in rows for name in row} - {"method", "rank"})
        return "What stands at a rank:\n\n" + table(
            [{**dict.fromkeys(("method", "rank", *names), ""), **row} for row in rows]
        )

    def _example(self, fact: int, listed: Sequence[int]) -> dict[str, str]:
        """Return a fact and what is listed for it, in words that quote no passage."""
        asked, gold = self.judge.facts[fact], self.judge.sentences[fact]
        rank = next((place for place, one in enumerate(listed, start=1) if one in gold), None)
        return {
            "fact": f"{asked['subject']}, {asked['relation']}: {asked['object']}",
            "row": "yes" if self.judge.own[fact] >= 0 else "",
            "completed": "rightly" if self.train["models"][MAIN]["completes"][fact] else "wrongly",
            "sentence at": str(rank or "> 100"),
            "stating sentences": str(len(gold)),
            "sentence names": "; ".join(kinds_of({**asked, "doc_keys": []}, self.corpus[one]) for one in gold[:_SHOWN]),
            "TrackStar's first": "; ".join(kinds_of(asked, self.corpus[one]) for one in listed[:_SHOWN]),
        }

    def quoted(self) -> str:
        """Return the same facts with the passages' texts, which stay in the work folder."""
        lines = ["# Facts and what TrackStar lists for them"]
        for fact in (one for _, facts in self._failing() for one in facts):
            asked = self.judge.facts[fact]
            lines.append(f"\n## {asked['prompt']}{asked['target']}\n")
            lines += [f"- stated: {self.corpus[one]['text']}" for one in self.judge.sentences[fact]]
            listed = self.lists[MAIN][_TRACKSTAR][fact][:10]
            lines += [f"- {rank}. {self.corpus[one]['text']}" for rank, one in enumerate(listed, 1)]
        return "\n".join(lines) + "\n"


def _pairs(parts: Mapping[str, Values]) -> dict[str, tuple[Values, Values]]:
    """Return what has a part of the method, and what lacks that part alone."""
    full, tasked = parts[f"V {BASE}, R, cosine"], parts[f"V {BASE}, R with task, cosine"]
    return {
        "second moments (V by rows and columns, against none)": (full, parts["V none, R, cosine"]),
        "curvature (R by Ledoit-Wolf, against none)": (full, parts[f"V {BASE}, no R, cosine"]),
        "unit length (against the dot product)": (full, parts[f"V {BASE}, R, dot product"]),
        "the task's curvature (against R alone)": (tasked, full),
    }


def _judged(pairs: Mapping[str, tuple[Values, Values]], facts: Sequence[int], *, first: str) -> list[dict[str, str]]:
    """Return a row for every pair with its differences and what they come to; p-values corrected by Holm."""
    rows = {name: {first: name} for name in pairs}
    for measure in MEASURES:
        found = {name: one for name, pair in pairs.items() if (one := compared(*pair, measure, facts))}
        adjusted = holm([one.p for one in found.values()])
        for (name, one), p in zip(found.items(), adjusted, strict=True):
            rows[name][measure] = f"{verdict(one, p)}: {difference(one, measure, p)}"
    return list(rows.values())


def _opponents(influence: Mapping[str, Any], method: Mapping[str, Any]) -> str:
    found = influence.get(f"{method['name']}, opponents")
    return f"{1000 * found['log_probability']['mean']:.1f}" if found and found["log_probability"] else ""
