"""What models say that are trained anew: on random subsets of the texts, and without what a method lists for a fact.

Notable: all models are trained in one go and measured on all facts, so that the model that lacks nothing, and those
that lack random texts, serve every fact. A seed gives the same first weights whatever is left out, and changes are
taken between models of the same seed.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from proponent.encode.checkpoint import hash_files, read_config
from proponent.schema.ids import content_id
from proponent.schema.settings import RetrainingSettings

from . import lds, summary, tail
from .facts import Fact
from .gold import Gold
from .methods import RANDOM
from .nodes import train_on_nodes
from .rankings import Resolved, Searched
from .retrained import Train, outputs, train_here
from .scores import UNSCORED
from .tail import Patched, target_example
from .texts import read_texts
from .trainer import Job, Output, Task

LDS_MEASURE: Final = "LDS"
CHANGE_MEASURE: Final = "left out, log-probability"

Tell = Callable[[str, int], Callable[[int], object]]


class Left(NamedTuple):
    """Texts that a model is trained without."""

    name: str
    """What listed them."""
    place: int | None
    """The fact that they are listed for; None for random texts, which serve all facts."""
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Retraining:
    """Everything that is trained anew in one evaluation."""

    searched: Searched
    golds: Sequence[Gold]
    """What the texts are to every fact."""
    patched: Patched | None
    """The model of which the architecture and the tokenizer are; None where a command trains."""
    methods: Sequence[Resolved]
    orders: Sequence[Mapping[str, Sequence[Sequence[str]]]]
    """What each method lists: proponents and opponents of every fact."""
    folder: Path | None
    tell: Tell

    @property
    def chosen(self) -> RetrainingSettings:
        """What is trained for, and how."""
        return self.searched.settings.retraining

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds of the models that are trained on the same texts."""
        return [self.searched.settings.seed + place for place in range(self.chosen.seeds)]

    @cached_property
    def counts(self) -> np.ndarray:
        """How many passages each text has, (texts,)."""
        return np.array([self.searched.texts.n_passages[key] for key in self.searched.texts.keys])

    @cached_property
    def members(self) -> np.ndarray:
        """Which texts each random subset has, (subsets, texts) bool."""
        return lds.subsets(
            len(self.counts), self.chosen.subsets, self.chosen.fraction, seed=self.searched.settings.seed
        )

    @cached_property
    def places(self) -> list[int]:
        """Facts that models are trained without the proponents of."""
        n = self.chosen.counterfactuals
        return tail.sampled(self.searched.facts, n, seed=self.searched.settings.seed) if n else []

    @cached_property
    def left(self) -> list[Left]:
        """What models are trained without, besides nothing; empty without facts."""
        k, keys = self.chosen.without, self.searched.texts.keys
        if not self.places:
            return []
        seed, k_random = self.searched.settings.seed, min(k, len(keys) - 1)
        left = []
        for draw in range(self.chosen.draws):
            drawn = np.random.default_rng([seed, len(keys), draw, 4]).choice(len(keys), size=k_random, replace=False)
            left.append(Left(tail.RANDOM, None, tuple(keys[which] for which in drawn)))
        for one, orders in zip(self.methods, self.orders, strict=True):
            for side in tail.SIDES if self.chosen.opponents else tail.SIDES[:1]:
                listed = ((place, orders[side][place][:k]) for place in self.places if one.spec.kind != RANDOM)
                left += [Left(f"{one.spec.name}, {side}", place, tuple(found)) for place, found in listed if found]
        return left

    def run(self) -> dict[str, Any]:
        """Train what is missing and return `lds` and `counterfactual` as the results keep them, None if not asked."""
        subsets = [[self._task(row, seed) for row in self.members] for seed in self.seeds]
        whole = {seed: self._task(np.ones(len(self.counts), bool), seed) for seed in self.seeds if self.left}
        without = [(one, {seed: self._without(one.keys, seed) for seed in self.seeds}) for one in self.left]
        tasks = [task for of_seed in subsets for task in of_seed] + [*whole.values()]
        tasks += [task for _, of_seeds in without for task in of_seeds.values()]
        found = self._outputs(tasks)
        return {
            "lds": self._lds([[found[task] for task in of_seed] for of_seed in subsets])
            if self.chosen.subsets
            else None,
            "counterfactual": self._counterfactual(
                {seed: found[task] for seed, task in whole.items()},
                [(one, {seed: found[task] for seed, task in of_seeds.items()}) for one, of_seeds in without],
            )
            if self.places
            else None,
        }

    def _task(self, members: np.ndarray, seed: int) -> Task:
        return Task(tuple(np.repeat(np.flatnonzero(members), self.counts[members]).tolist()), seed)

    def _without(self, keys: Sequence[str], seed: int) -> Task:
        gone = set(keys)
        return self._task(np.array([key not in gone for key in self.searched.texts.keys]), seed)

    def _outputs(self, tasks: Sequence[Task]) -> dict[Task, Output]:
        progress = self.tell("retraining", len(set(tasks)))
        return outputs(
            self._job(), tasks, identity=self._identity, folder=self.folder, train=self._train, progress=progress
        )

    @property
    def _train(self) -> Train:
        """What trains models: processes of this machine, or the nodes of the lake's cluster."""
        if (cluster := self.searched.lake.cluster) is not None:
            return partial(train_on_nodes, cluster, self.patched.checkpoint.facts if self.patched else None)
        return partial(train_here, processes=self.chosen.processes or os.cpu_count() or 1)

    def _job(self) -> Job:
        searched, patched = self.searched, self.patched
        if patched is not None:
            _require_readable(searched.facts, patched)
        texts = read_texts(searched.lake, searched.at, searched.texts.keys)
        return Job(
            texts=tuple(texts[key] for key in searched.texts.keys),
            targets=tuple((fact.prompt, fact.target) for fact in searched.facts),
            checkpoint=str(patched.checkpoint.facts.path) if patched else "",
            context_length=patched.checkpoint.facts.context_length if patched else 0,
            training=self.chosen.training,
            command=self.chosen.arguments,
        )

    @cached_property
    def _identity(self) -> str:
        """Hash of all that decides what a model says, besides its texts and its seed."""
        how = told_by(self.chosen.arguments)
        if self.patched is not None:
            facts = self.patched.checkpoint.facts
            read_config(facts.path)  # sees that there is one
            how = [repr(self.chosen.training), hash_files([facts.path / "config.json"]), facts.tokenizer_hash]
            how.append(str(facts.context_length))
        asked = [part for fact in self.searched.facts for part in (fact.prompt, fact.target)]
        return content_id("retraining", self.searched.texts.digest, len(how), *how, *asked)

    def _how(self) -> dict[str, Any]:
        chosen, trained = self.chosen, self.chosen.training
        by = {"command": chosen.command} if chosen.command is not None else {"training": asdict(trained)}
        return {**by, "model": self.patched.name if self.patched else None, "seeds": self.seeds}

    def _lds(self, found: Sequence[Sequence[Output]]) -> dict[str, Any]:
        """Return every method's rank correlations, from what the models of each seed and subset say."""
        measured = [np.array([one.log_probability for one in of_seed]).T for of_seed in found]  # (facts, subsets)
        mean, weights = np.mean(measured, axis=0), self.members * self.counts
        values: dict[str, list[float]] = {}
        for one in self.methods:
            if one.spec.kind not in UNSCORED:
                progress = self.tell(f"LDS, {one.spec.name}", len(self.searched.facts))
                values[one.spec.name] = lds.correlations(lds.sums(one, self.searched, weights, progress), mean)
        ceiling, settings = lds.between_seeds(measured), self.searched.settings
        return {
            "how": {**self._how(), "subsets": len(self.members), "texts": int(self.members[0].sum())},
            "methods": {name: summary.of_values(found, settings) for name, found in values.items()},
            "between_seeds": summary.of_values(ceiling, settings),
            "stating_texts": summary.of_values(self._by_stating_texts(weights, mean), settings),
            "left_out": {one.spec.name: UNSCORED[one.spec.kind] for one in self.methods if one.spec.kind in UNSCORED},
            "values": values,
        }

    def _by_stating_texts(self, weights: np.ndarray, outputs: np.ndarray) -> list[float]:
        """Return the correlations of what scores the texts that state a fact by 1 and others by 0."""
        stated = [place for place, gold in enumerate(self.golds) if gold.states]
        keys = self.searched.texts.keys
        scores = np.array([[key in self.golds[place].states for key in keys] for place in stated], float)
        return lds.correlations(scores @ weights.T, outputs[stated]) if stated else []

    def _counterfactual(
        self, whole: Mapping[int, Output], without: Sequence[tuple[Left, Mapping[int, Output]]]
    ) -> dict[str, Any]:
        """Return what leaving texts out changes, between models of the same seed."""
        changes: dict[str, dict[int, list[float]]] = {}
        flips: dict[str, dict[int, list[bool]]] = {}
        for left, of_seeds in without:
            for place in self.places if left.place is None else [left.place]:
                of_fact = changes.setdefault(left.name, {}).setdefault(place, [])
                flipped = flips.setdefault(left.name, {}).setdefault(place, [])
                for seed, output in of_seeds.items():
                    of_fact.append(output.log_probability[place] - whole[seed].log_probability[place])
                    if whole[seed].said[place]:
                        flipped.append(not output.said[place])
        settings = self.searched.settings
        return {
            "how": {**self._how(), "without": self.chosen.without, "draws": self.chosen.draws},
            "facts": self.places,
            "means": {
                name: {
                    "log_probability": summary.of_values([*by_fact(of_facts).values()], settings),
                    "flips": summary.of_values([*by_fact(flips[name]).values()], settings),
                }
                for name, of_facts in changes.items()
            },
            "answers": {
                name: {
                    str(place): {
                        "log_probability": summary.of_values(found, settings),
                        "flips": flips[name][place],
                    }
                    for place, found in of_facts.items()
                }
                for name, of_facts in changes.items()
            },
        }


def told_by(command: Sequence[str]) -> list[str]:
    """Return what tells one command that trains from another: its words, and what is in the files that they name."""
    return [*command, *(hash_files([path]) for path in map(Path, command) if path.is_file())]


def _require_readable(facts: Sequence[Fact], patched: Patched) -> None:
    """Raise EncodingError before minutes of training end in a fact that no model can read."""
    for fact in facts:
        target_example(patched.checkpoint.tokenizer, fact, patched.checkpoint.facts.context_length, fact.target)


def by_fact(runs: Mapping[int, Sequence[float]]) -> dict[int, float]:
    """Return the mean of each fact's models, of facts that have any."""
    return {place: float(np.mean(found)) for place, found in runs.items() if found}


def comparisons(
    lds_found: Mapping[str, Any] | None, counterfactual: Mapping[str, Any] | None, settings: Any
) -> list[Any]:
    """Compare methods, paired over the facts, by what retraining says of them."""
    rows = []
    if lds_found is not None:
        values = {name: dict(enumerate(found)) for name, found in lds_found["values"].items()}
        rows += summary.compare(values, settings, measure=LDS_MEASURE)
    if counterfactual is not None:
        changes = {
            name.removesuffix(f", {tail.SIDES[0]}"): {
                int(place): one["log_probability"]["mean"] for place, one in found.items()
            }
            for name, found in counterfactual["answers"].items()
            if not name.endswith(tail.SIDES[1])
        }
        rows += summary.compare(changes, settings, measure=CHANGE_MEASURE)
    return rows
