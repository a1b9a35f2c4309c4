"""What projection and a block-diagonal R cost: cosines of whole gradients, and of whole gradients under EK-FAC.

Gradients are corrected by V by rows and columns, and nothing is projected. EK-FAC (arXiv:1806.03884) takes a matrix's
curvature as diagonal in the eigenbases of its inputs' and its output gradients' second moments, with the mean squared
gradient there as eigenvalues; they are shrunk towards their mean by a fixed weight. Letters as in encode/gradients.py.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from ablate import Bench
from ranking import Judge
from steps import places_of
from vectors import Fixed, examples_of, load
from work import MAIN, Work

from proponent.encode.batches import in_batches
from proponent.encode.gradients import Example, backpropagate
from proponent.encode.layers import cover
from proponent.encode.moments import FactoredMoments, read_moments

SETTINGS: Final = {"whole gradients": None, "EK-FAC, rho 0.1": 0.1}
"""Weight that the eigenvalues are shrunk with; None for no curvature."""
CANDIDATES: Final = (100, 500)
"""Passages that the default proposes, to be ordered by whole gradients, as `trace --recompute` does."""
_TOKENS: Final = {"cpu": 1024, "cuda": 8192}
"""Padded tokens of a batch, whose gradients of one matrix are formed together. It must not be tried out how many there
may be: what a batch has added to sums would be added again, if memory ran out and it were repeated."""

Take = Callable[[int, torch.Tensor, torch.Tensor], None]
"""Gets a layer's index, its corrected inputs (b, t, n) and its corrected output gradients (b, t, m)."""


def run(work: Work) -> None:
    """Judge whole gradients, on the facts that influence is measured on."""
    torch.set_num_threads(work.threads)
    whole, judge = _Whole(work), Judge(work)
    whole.fit()
    found = {}
    proposed = Bench(work).default[judge.places]
    for name, scores in whole.scores().items():
        found[name] = judge.values(_placed(judge, scores))
        for n in CANDIDATES:
            found[f"{name}, of the default's first {n}"] = judge.values(_placed(judge, _of_first(n, proposed, scores)))
    work.write("exact", found)


def _placed(judge: Judge, scores: np.ndarray) -> np.ndarray:
    """Return scores of the facts that influence is measured on as scores of all facts; the others have none."""
    every = np.full((len(judge.facts), scores.shape[1]), np.nan, np.float32)
    every[judge.places] = scores
    return every


def _of_first(n: int, proposed: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Order the first n of what is proposed by scores (cosines), and leave all others behind them in their order."""
    n = min(n, proposed.shape[1])
    first = np.partition(proposed, -n, axis=1)[:, [-n]]
    return np.where(proposed >= first, scores, proposed - 10)


class _Corrected:
    """Hands corrected inputs and output gradients of every layer on; a visitor of `backpropagate`."""

    def __init__(self, sides: Sequence[tuple[torch.Tensor, torch.Tensor]], take: Take) -> None:
        self._sides = sides
        self._take = take

    def forward(self, index: int, inputs: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
        return inputs.float() * self._sides[index][1]

    def backward(self, index: int, kept: torch.Tensor, gradients: torch.Tensor) -> None:
        self._take(index, kept, gradients.float() * self._sides[index][0])


class _Whole:
    """A model's whole gradients, in the eigenbases of its matrices' inputs and outputs."""

    def __init__(self, work: Work) -> None:
        checkpoint = load(work, MAIN)
        self._model = checkpoint.model
        self._layers = cover(checkpoint.model, blocks=1).layers
        moments = read_moments(work.model(MAIN) / "optimizer.pt", self._model, self._layers)
        assert isinstance(moments, FactoredMoments)
        self._device = next(self._model.parameters()).device
        roots = [moments.inverse_roots(layer.name) for layer in self._layers]
        self._sides = [(a.to(self._device), b.to(self._device)) for a, b in roots]
        self._examples = examples_of(work)
        self._facts = [self._examples.facts[place] for place in places_of(work)]
        self._bases: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._values: list[torch.Tensor] = []

    def _pass(self, examples: Sequence[Example], take: Callable[[Sequence[int]], Take]) -> None:
        """Run examples in batches; `take` is told which places a batch has."""

        def step(some: Sequence[Example]) -> int:
            places = [order[id(one)] for one in some]
            backpropagate(self._model, self._layers, some, _Corrected(self._sides, take(places)))
            return len(some)

        order = {id(one): place for place, one in enumerate(examples)}
        for _ in in_batches(examples, step, budget=Fixed(_TOKENS[self._device.type]), one_by_one=False):
            pass

    def fit(self) -> None:
        """Find the eigenbases, and the mean squared gradients in them."""
        outputs, inputs = (
            [
                torch.zeros(layer.shape[side], layer.shape[side], dtype=torch.float64, device=self._device)
                for layer in self._layers
            ]
            for side in (0, 1)
        )

        def add(index: int, x: torch.Tensor, y: torch.Tensor) -> None:
            inputs[index] += x.flatten(0, 1).T @ x.flatten(0, 1)
            outputs[index] += y.flatten(0, 1).T @ y.flatten(0, 1)

        self._pass(self._examples.passages, lambda _places: add)
        self._bases = [
            (torch.linalg.eigh(m)[1].float(), torch.linalg.eigh(n)[1].float())
            for m, n in zip(outputs, inputs, strict=True)
        ]
        self._values = [torch.zeros(layer.shape, device=self._device) for layer in self._layers]

        def square(index: int, x: torch.Tensor, y: torch.Tensor) -> None:
            self._values[index] += self._rotated(index, x, y).square().sum(0)

        self._pass(self._examples.passages, lambda _places: square)
        self._values = [values / len(self._examples.passages) for values in self._values]

    def _rotated(self, index: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return gradients (b, m, n) in the eigenbases."""
        left, right = self._bases[index]
        return (y @ left).transpose(1, 2) @ (x @ right)

    def scores(self) -> dict[str, np.ndarray]:
        """Return cosines (facts, passages) under every setting."""
        n_facts, n_passages = len(self._facts), len(self._examples.passages)
        weights = {name: [_weight(values, rho) for values in self._values] for name, rho in SETTINGS.items()}
        queries = [torch.zeros(n_facts, values.numel(), device=self._device) for values in self._values]
        lengths = {
            name: (torch.zeros(n_facts, device=self._device), torch.zeros(n_passages, device=self._device))
            for name in SETTINGS
        }

        def keep(places: Sequence[int]) -> Take:
            def take(index: int, x: torch.Tensor, y: torch.Tensor) -> None:
                rotated = self._rotated(index, x, y).flatten(1)
                queries[index][list(places)] = rotated
                for name, (facts, _) in lengths.items():
                    facts[list(places)] += rotated.square() @ weights[name][index]

            return take

        products = {name: torch.zeros(n_facts, n_passages, device=self._device) for name in SETTINGS}

        def compare(places: Sequence[int]) -> Take:
            def take(index: int, x: torch.Tensor, y: torch.Tensor) -> None:
                rotated = self._rotated(index, x, y).flatten(1)
                for name, (_, passages) in lengths.items():
                    weighted = rotated * weights[name][index]
                    passages[list(places)] += (rotated * weighted).sum(1)
                    products[name][:, list(places)] += queries[index] @ weighted.T

            return take

        self._pass(self._facts, keep)
        self._pass(self._examples.passages, compare)
        found: dict[str, Any] = {}
        for name, (facts, passages) in lengths.items():
            found[name] = (products[name] / facts.sqrt()[:, None] / passages.sqrt()).cpu().numpy()
        return found


def _weight(values: torch.Tensor, rho: float | None) -> torch.Tensor:
    """Return one over the shrunk eigenvalues (m, n), flat."""
    if rho is None:
        return torch.ones(values.numel(), device=values.device)
    return 1 / ((1 - rho) * values + rho * values.mean()).flatten()
