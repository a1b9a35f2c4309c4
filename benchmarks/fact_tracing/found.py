"""Everything that a study found, read once, for its report."""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from ranking import TAIL, Judge, Values
from vectors import BASE
from work import SMALL, STAGES, Work, read_rows

import proponent

TRACKSTAR: Final = "main:trackstar"
"""The studied method, as the harness calls it."""


class Found:
    """What the steps wrote, with what steps on passages did. What was not done is missed when it is asked for."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.judge = Judge(work)
        self.resamples = work.size.resamples
        self.every = self.judge.half(None)
        self.corpus = read_rows(work.corpus)
        self.evaluations = {
            name: json.loads(path.read_text("utf-8"))
            for name in (*STAGES, SMALL)
            if (path := work.evaluation(name) / "results.json").exists()
        }
        self.texts = self._texts()
        self.lists = {name: self._lists(found) for name, found in self.evaluations.items()}
        self.values = {
            name: {method: self._values(name, method, lists) for method, lists in of_methods.items()}
            for name, of_methods in self.lists.items()
        }

    @cached_property
    def train(self) -> Any:
        """The models, and what they complete."""
        return self.work.read("train")

    @cached_property
    def lake(self) -> Any:
        """What filling the lake took, and its curvatures."""
        return self.work.read("fill_lake")

    @cached_property
    def ablated(self) -> dict[str, dict[str, Values]]:
        """Settings that were judged in memory, by family and name."""
        return {
            family: {name: self.judge.with_steps(values) for name, values in named.items()}
            for family, named in self.work.read("ablate").items()
        }

    @cached_property
    def default(self) -> Values:
        """The project's own setting among them."""
        return self.ablated["parts"][f"V {BASE}, R, cosine"]

    @cached_property
    def exact(self) -> dict[str, Values]:
        """Whole gradients."""
        return {name: self.judge.with_steps(values) for name, values in self.work.read("exact").items()}

    @cached_property
    def peers(self) -> dict[str, Any]:
        """Settings of bergson, and what the project's own took beside them."""
        return {
            name: one | ({"values": self.judge.with_steps(one["values"])} if "values" in one else {})
            for name, one in self.work.read("peer").items()
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
