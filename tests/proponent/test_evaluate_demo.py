"""The evaluation on the demonstration: orderings beyond three standard errors are asserted, the others printed.

The miniature repeats it over three seeds. A seed is that of the encoders, their projections and the passages that they
are fitted on, and of the evaluation, its random order and the facts whose influence is measured.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import proponent
from proponent.demo.run import CORPUS, _only_some_countries
from proponent.lake import Lake
from proponent.query.evaluate.metrics import METRICS
from proponent.schema.settings import EncoderSettings

SEEDS = (0, 1, 2)
CODES = ("aa", "aj", "av", "bo", "ch", "da", "fi", "gg", "hm", "ja", "ls", "mp", "nn", "pe", "sb", "sw", "tu", "ve")
"""Countries of the miniature."""


def sure(differences: list[float]) -> bool:
    """Whether a mean of paired differences is above zero by three standard errors."""
    return float(np.mean(differences)) > 3 * float(np.std(differences, ddof=1)) / len(differences) ** 0.5


def reciprocal_ranks(results: Mapping[str, Any], method: str) -> list[float]:
    [found] = [one for one in results["methods"] if one["name"] == method]
    return [METRICS["mrr"](ranks) for ranks in found["ranks"]["strict"] if ranks is not None]


def pushes(results: Mapping[str, Any], name: str) -> dict[str, float]:
    return {place: one["log_probability"] for place, one in results["steps"]["values"][name].items()}


def paired(one: Mapping[str, float], other: Mapping[str, float]) -> list[float]:
    return [one[place] - other[place] for place in sorted(one.keys() & other.keys())]


def of_seed(lake: Lake, facts: list[dict[str, Any]], seed: int) -> dict[str, float]:
    """Return what one seed measures, by its name."""
    where = f"substr(doc_key, 1, 2) IN ({', '.join(map(repr, CODES))})"
    for name, moments in ((f"tracked{seed}", "auto"), (f"plain{seed}", "none")):
        small = EncoderSettings(moments=moments, seed=seed, blocks=2, side=16, sample=120)
        lake.encode(CORPUS, encoder=name, settings=small, only=where)
    methods = {
        f"tracked{seed}:trackstar": "trackstar",
        **{f"plain{seed}:{name}": name for name in ("logra", "trak", "gradcos", "graddot")},
        **{name: name for name in ("bm25", "random")},
    }
    ranked = lake.evaluate(facts, methods=[*methods], filter=where, seed=seed, resamples=100).results
    pushed = lake.evaluate(
        facts, methods=[f"tracked{seed}:trackstar", "bm25"], filter=where, seed=seed, resamples=100, tail_patch=16
    ).results["influence"]
    found = {f"MRR of {called}": float(np.mean(reciprocal_ranks(ranked, name))) for name, called in methods.items()}
    for name, one in pushed.items():
        if one["log_probability"] is not None:
            found[f"tail-patch of {name.replace(f'tracked{seed}:', '')}"] = one["log_probability"]["mean"]
    return found


def test_orderings_hold_over_three_seeds(demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(demo_folder / "lake", tmp_path / "lake")
    rows = [json.loads(line) for line in (demo_folder / "facts.jsonl").read_text("utf-8").splitlines()]
    facts = [row for row in rows if row["doc_keys"][0][:2] in CODES]
    with proponent.open(tmp_path / "lake") as lake:
        measured = [of_seed(lake, facts, seed) for seed in SEEDS]
    values = {name: [one[name] for one in measured] for name in measured[0]}
    with capsys.disabled():
        print(f"\n{len(facts)} facts, seeds {SEEDS}: mean, standard error")
        for name, found in values.items():
            print(f"  {name:40} {np.mean(found):8.4f} {np.std(found, ddof=1) / len(found) ** 0.5:8.4f}")

    def above(one: str, other: str) -> list[float]:
        return [a - b for a, b in zip(values[one], values[other], strict=True)]

    for method in ("graddot", "trak", "gradcos"):
        assert sure(above("MRR of trackstar", f"MRR of {method}"))
    assert np.mean(above("MRR of trackstar", "MRR of graddot")) > 0.3
    for method in ("graddot", "bm25"):
        assert sure(above(f"MRR of {method}", "MRR of random"))
    assert sure(above("tail-patch of trackstar, proponents", "tail-patch of random passages"))


@pytest.mark.full
def test_orderings_hold_on_the_demonstration(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(demo_folder / "lake", tmp_path / "lake")
    facts = [json.loads(line) for line in (demo_folder / "facts.jsonl").read_text("utf-8").splitlines()]
    assert len(facts) > 300
    with proponent.open(tmp_path / "lake") as lake:
        lake.index_text()
        whole = lake.evaluate(
            facts, methods=["factbook:trackstar", "bm25", "random"], tail_patch=50, output=tmp_path / "whole"
        )
        both = lake.evaluate(
            facts,
            methods=["factbook:trackstar", "factbook_plain:graddot", "factbook_plain:gradcos"],
            filter=_only_some_countries(),
        )
    results = whole.results
    told = {name: found["log_probability"] for name, found in results["influence"].items()}
    with capsys.disabled():
        print(f"\n{whole.to_markdown()}\n{both.to_markdown()}")
    assert results["steps"]["how"]["optimizer"] == "adam"

    trackstar, dot = (reciprocal_ranks(both.results, name) for name in ("factbook:trackstar", "factbook_plain:graddot"))
    assert sure([one - other for one, other in zip(trackstar, dot, strict=True)])
    assert np.mean(trackstar) > np.mean(dot) + 0.1
    assert sure([one - other for one, other in zip(trackstar, reciprocal_ranks(results, "random"), strict=False)])

    proponents = pushes(results, "factbook:trackstar, proponents")
    assert sure(paired(proponents, pushes(results, "random passages")))
    assert told["factbook:trackstar, proponents"]["low"] > 0
