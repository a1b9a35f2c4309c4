"""Sections of the report: what was studied, what was expected, and the project's own evaluation of every method."""

import json
from collections.abc import Mapping
from typing import Any, Final

from ablate import PARTS_OF_MORE
from found import TRACKSTAR, Found
from ranking import MEASURES, OWN, SENTENCES, TAIL, Values, compared, kept, told
from tables import difference, judged, mean, means_of, number, table
from vectors import BASE
from work import MAIN, SMALL, STAGES, read_rows

_WORDS: Final = {
    "quarter": "a quarter of the training",
    "half": "half of it",
    MAIN: "all of it",
    SMALL: "smaller model",
}


def setting(study: Found) -> list[str]:
    """Tell what the study is of, and on what machine."""
    facts, judge = study.judge.facts, study.judge
    n_rows = sum(row["id"].startswith("row:") for row in study.corpus)
    fitted = {(one["encoder"], one["name"]): one for one in study.lake["curvatures"]}
    rho = json.loads(fitted[MAIN, "reference"]["diagnostics"])["rho"]
    lines = [
        f"{len(study.corpus):,} passages: {n_rows:,} filled-in prompts and {len(study.corpus) - n_rows:,} sentences, "
        f"{study.train['tokens']:,} tokens an epoch.",
        f"{len(facts)} facts of {len({one['relation'] for one in facts})} relations are evaluated; "
        f"{sum(own >= 0 for own in judge.own)} of them have a row.",
        f"{len(read_rows(study.work.task)):,} other facts make the task's curvature; lambda by the rule is "
        f"{fitted[MAIN, 'task']['mixing']:.2f}.",
        f"Ledoit-Wolf's shrinkage of the groups: {', '.join(f'{one:.2f}' for one in rho)}.",
        f"Influence is measured on {len(judge.places)} of them. In memory the default is what the harness ranks, "
        f"but for codes of eight bits and the sample of R: {_agreement(study)}.",
        f"Settings are chosen on {', '.join(sorted(judge.tuned_on))}, and reported on the other relations.",
        f"On {study.train['device']}, {study.work.threads} threads a step; "
        + ", ".join(f"{name} {version}" for name, version in study.evaluations[MAIN]["versions"].items())
        + ".",
    ]
    return ["\n".join(f"- {line}" for line in lines), table([_model(study, name) for name in (*STAGES, SMALL)])]


def _model(study: Found, name: str) -> dict[str, str]:
    told_of = study.train["models"][name]
    return {
        "model": _WORDS[name],
        "parameters": f"{told_of['parameters']:,}" if "parameters" in told_of else "",
        "loss of the last epoch": f"{told_of['loss']:.2f}" if "loss" in told_of else "",
        "training, seconds": f"{told_of['seconds']:.0f}" if "seconds" in told_of else "",
        "completes, of facts with a row": _completed(study, name, with_row=True),
        "completes, of facts in sentences only": _completed(study, name, with_row=False),
    }


def _completed(study: Found, model: str, *, with_row: bool) -> str:
    answers = study.train["models"][model]["completes"]
    chosen = [answer for answer, own in zip(answers, study.judge.own, strict=True) if (own >= 0) == with_row]
    return f"{sum(chosen)} of {len(chosen)}"


def _agreement(study: Found) -> str:
    """Return how far the default in memory is from what the harness measured of it."""
    ours = study.values[MAIN][TRACKSTAR]
    means = {
        measure: (kept(ours, measure, study.every).mean(), kept(study.default, measure, study.every).mean())
        for measure in MEASURES
    }
    return "; ".join(f"{name} {number(a, name)} and {number(b, name)}" for name, (a, b) in means.items())


def claims(study: Found) -> list[str]:
    """Tell what each part is worth, and what TrackStar is better and worse than."""
    tables = [
        text
        for words, family in (("", "parts"), (" with twice the components", PARTS_OF_MORE))
        for text in (
            f"Does each part of the method help{words}? With the part less without it, all facts, in memory.",
            table(judged(_pairs(study.ablated[family]), study.every, first="part")),
        )
    ]
    return [*tables, *differences(study)]


def differences(study: Found) -> list[str]:
    """Tell what TrackStar is better and worse than."""
    values = study.values[MAIN]
    others = {name: (values[TRACKSTAR], other) for name, other in values.items() if name != TRACKSTAR}
    return [
        "TrackStar less everything else, all facts, as the harness ranked; `higher` is better for TrackStar.",
        table(judged(others, study.every, first="TrackStar less")),
    ]


def methods(study: Found) -> list[str]:
    """Tell what every method reached, took and stores."""
    rows = means_of(study.values[MAIN], study.every, resamples=study.resamples)
    steps = study.evaluations[MAIN]["influence"]
    for row, method in zip(rows, study.evaluations[MAIN]["methods"], strict=True):
        row["opponents"] = _opponents(steps, method)
        row["sentences, first ten"] = _found_in_ten(study, method["name"])
        row["seconds"] = f"{method['cost']['seconds']:.1f}"
        stored = method["cost"]["bytes_stored"]
        row["MB stored"] = "" if stored is None else f"{stored / 1e6:.1f}"
    return [
        "By `proponent evaluate`, on all facts; lists of a hundred. The first method pays for loading the model.",
        table(rows),
    ]


def _found_in_ten(study: Found, method: str) -> str:
    found = [
        any(one in study.judge.sentences[fact] for one in [key for key in listed if key != study.judge.own[fact]][:10])
        for fact, listed in enumerate(study.lists[MAIN][method])
        if study.judge.sentences[fact]
    ]
    return f"{sum(found) / len(found):.1%}"


def splits(study: Found) -> list[str]:
    """Tell the same by kinds of facts and by relation."""
    answers = study.train["models"][MAIN]["completes"]
    groups = {
        "with a row": [fact for fact in study.every if study.judge.own[fact] >= 0],
        "in sentences only": [fact for fact in study.every if study.judge.own[fact] < 0],
        "completed rightly": [fact for fact in study.every if answers[fact]],
        "completed wrongly": [fact for fact in study.every if not answers[fact]],
        "in sentences only, completed rightly": [
            fact for fact in study.every if answers[fact] and study.judge.own[fact] < 0
        ],
    }
    names = (TRACKSTAR, "main:trackstar@task", "main_none:gradcos", "bm25", "main:hybrid")
    rows = []
    for group, facts in groups.items():
        for name in names:
            cells = {
                measure: mean(told(study.values[MAIN][name], measure, facts, resamples=study.resamples), measure)
                for measure in MEASURES
                if len(kept(study.values[MAIN][name], measure, facts))
            }
            rows.append({"facts": f"{group} ({len(facts)})", "method": name, **cells})
    relations = sorted({fact["relation"] for fact in study.judge.facts})
    by_relation = []
    for relation in relations:
        facts = [place for place in study.every if study.judge.facts[place]["relation"] == relation]
        row = {"relation": relation}
        for name in (TRACKSTAR, "bm25", "main:hybrid"):
            row[f"{name}, {SENTENCES}"] = number(kept(study.values[MAIN][name], SENTENCES, facts).mean(), SENTENCES)
        by_relation.append(row)
    return [
        table([{**dict.fromkeys(("facts", "method", *MEASURES), ""), **row} for row in rows]),
        table(by_relation),
    ]


def stages(study: Found) -> list[str]:
    """Tell the same by size of the model and stage of its training."""
    rows = []
    for name in (SMALL, *STAGES):
        ours, words = study.values[name][f"{name}:trackstar"], study.values[name]["bm25"]
        row = {"model": name}
        for measure in (OWN, SENTENCES):
            row[f"TrackStar, {measure}"] = mean(told(ours, measure, study.every), measure)
            row[f"BM25 less TrackStar, {measure}"] = difference(compared(words, ours, measure, study.every), measure)
        influence = study.evaluations[name]["influence"]
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


def _pairs(parts: Mapping[str, Values]) -> dict[str, tuple[Values, Values]]:
    """Return what has a part of the method, and what lacks that part alone."""
    full, tasked = parts[f"V {BASE}, R, cosine"], parts[f"V {BASE}, R with task, cosine"]
    return {
        "second moments (V by rows and columns, against none)": (full, parts["V none, R, cosine"]),
        "curvature (R by Ledoit-Wolf, against none)": (full, parts[f"V {BASE}, no R, cosine"]),
        "unit length (against the dot product)": (full, parts[f"V {BASE}, R, dot product"]),
        "the task's curvature (against R alone)": (tasked, full),
    }


def _opponents(influence: Mapping[str, Any], method: Mapping[str, Any]) -> str:
    found = influence.get(f"{method['name']}, opponents")
    return f"{1000 * found['log_probability']['mean']:.1f}" if found and found["log_probability"] else ""
