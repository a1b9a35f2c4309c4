"""A miniature of the study on the demonstration: orderings beyond three standard errors; the others are printed."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import proponent
from proponent.demo.run import _only_some_countries
from proponent.query.evaluate.metrics import METRICS

pytestmark = pytest.mark.full


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
