"""Everything that a study found, read once, for its report."""

import json
from collections.abc import Mapping
from typing import Any, Final

from ranking import TAIL, Judge, Values
from vectors import BASE
from work import SMALL, STAGES, Work, read_rows

import proponent

TRACKSTAR: Final = "main:trackstar"
"""The studied method, as the harness calls it."""


class Found:
    """What the steps wrote, with what steps on passages did."""

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
