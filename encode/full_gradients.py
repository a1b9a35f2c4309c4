"""Full gradients: corrected by V as an encoding is, and neither projected nor whitened.

    <G(m), G(q)> / (|G(m)| |G(q)|)          G(z) = grad Loss(z) / sqrt(V), over all matrices that the encoder sees

Notable: a query's gradient takes as much memory as the matrices themselves. A passage's is formed one matrix at a time,
multiplied with the query's and let go. That is the half of a backward pass that an encoder saves. Letters as in
gradients.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .encoder import Projector
from .gradients import Example, backpropagate
from .moments import FactoredMoments

FullGradient = list[torch.Tensor]
"""One matrix (m, n) float32 for every layer that an encoder sees, in its order."""


class Compared(NamedTuple):
    """A passage's gradient against another one."""

    dot: float
    norm: float
    """Norm of the passage's gradient."""


def full_gradient(projector: Projector, examples: Sequence[Example], weights: Sequence[float]) -> FullGradient:
    """Return the weighted sum of the examples' corrected gradients."""
    correction = _Correction(projector)
    total = [torch.zeros(layer.shape, device=projector.device) for layer in projector.coverage.layers]
    for example, weight in zip(examples, weights, strict=True):
        _run(projector, example, _Adding(correction, total, weight))
    return total


def norm(gradient: FullGradient) -> float:
    """Return the norm over all matrices, summed in float64."""
    return float(sum(_dot(matrix, matrix) for matrix in gradient) ** 0.5)


def add_scaled(total: FullGradient | None, gradient: FullGradient, scale: float) -> FullGradient:
    """Add a gradient times a number to a total, in place; without a total it is the scaled gradient itself."""
    for place, matrix in enumerate(gradient):
        matrix.mul_(scale)
        if total is not None:
            total[place].add_(matrix)
    return gradient if total is None else total


def compare(projector: Projector, example: Example, gradient: FullGradient) -> Compared:
    """Return the dot product of an example's corrected gradient with another one, and the example's norm."""
    visitor = _Comparing(_Correction(projector), gradient)
    _run(projector, example, visitor)
    return Compared(visitor.dot, visitor.squared**0.5)


def _run(projector: Projector, example: Example, visitor: "_Adding | _Comparing") -> None:
    backpropagate(projector.checkpoint.model, projector.coverage.layers, [example], visitor)


class _Correction:
    """Forms gradients divided by sqrt(V), one matrix at a time."""

    def __init__(self, projector: Projector) -> None:
        self._scales = projector.scales
        self._sides: list[tuple[torch.Tensor, torch.Tensor]] | None = None
        if isinstance(projector.moments, FactoredMoments):
            roots = [projector.moments.inverse_roots(layer.name) for layer in projector.coverage.layers]
            self._sides = [(a.to(projector.device), b.to(projector.device)) for a, b in roots]

    def gradient(self, index: int, inputs: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """Return the corrected gradient (m, n) from inputs (1, t, n) and output gradients (1, t, m)."""
        x, y = inputs[0], gradients[0].float()
        if self._sides is not None:
            a, b = self._sides[index]
            return (y * a).T @ (x * b)
        formed = y.T @ x
        return formed if self._scales is None else formed.mul_(self._scales[index])


class _Adding:
    """Adds one example's gradient, times a weight, to a total."""

    def __init__(self, correction: _Correction, total: FullGradient, weight: float) -> None:
        self._correction = correction
        self._total = total
        self._weight = weight

    def forward(self, index: int, inputs: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
        """Keep the inputs."""
        return inputs.float()

    def backward(self, index: int, kept: torch.Tensor, gradients: torch.Tensor) -> None:
        """Form the gradient of one matrix and add it."""
        self._total[index].add_(self._correction.gradient(index, kept, gradients), alpha=self._weight)


class _Comparing:
    """Multiplies one example's gradient with another one, matrix by matrix."""

    def __init__(self, correction: _Correction, gradient: FullGradient) -> None:
        self._correction = correction
        self._gradient = gradient
        self.dot = 0.0
        self.squared = 0.0

    def forward(self, index: int, inputs: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
        """Keep the inputs."""
        return inputs.float()

    def backward(self, index: int, kept: torch.Tensor, gradients: torch.Tensor) -> None:
        """Form the gradient of one matrix and multiply it."""
        formed = self._correction.gradient(index, kept, gradients)
        self.dot += _dot(formed, self._gradient[index])
        self.squared += _dot(formed, formed)


def _dot(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return a sum of products whose rows are added in float64: over millions of entries float32 loses digits."""
    return float((one * other).sum(1).double().sum())
