"""Per-example loss gradients of linear layers, seen through hooks and never formed.

Notable: weights are frozen and gradients flow to activations alone. For a layer with inputs x_t and output gradients
y_t the weight's gradient is sum_t y_t x_t^T; a visitor gets x and y of every layer and takes from them what it needs,
so that a weight-sized buffer never exists. Letters: b examples, t tokens, m outputs, n inputs, s projected side.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional

from .layers import CoveredLayer

_IGNORED = -100


@dataclass(frozen=True)
class Example:
    """Token ids, and how many of the last ones carry the loss (None: every token but the first)."""

    token_ids: tuple[int, ...]
    n_target: int | None = None

    @property
    def n_loss(self) -> int:
        """Tokens whose loss is taken; the first token of all is predicted from nothing and never counts."""
        predicted = len(self.token_ids) - 1
        return predicted if self.n_target is None else min(self.n_target, predicted)


class Visitor(Protocol):
    """Receives a layer's inputs when it is run and its output gradients when it is passed backwards."""

    def forward(self, index: int, inputs: torch.Tensor) -> torch.Tensor:
        """Take the inputs (b, t, n) of layer `index`; what it returns is kept until `backward`."""

    def backward(self, index: int, kept: torch.Tensor, gradients: torch.Tensor) -> None:
        """Take what `forward` kept and the gradients (b, t, m) of the layer's output."""


class ProjectedSum:
    """A visitor that adds up (P0 y_t)(P1 x_t)^T over tokens and over the layers of a group: the encoding phi.

    `left` holds P0 (s, m) and `right` P1 (s, n) of every layer, with the optimizer's correction folded in.
    """

    def __init__(
        self, groups: Sequence[int], left: Sequence[torch.Tensor], right: Sequence[torch.Tensor], n_examples: int
    ) -> None:
        self._groups = groups
        self._left = left
        self._right = right
        side = left[0].shape[0]
        self.total = torch.zeros(n_examples, max(groups) + 1, side, side, device=left[0].device)

    def forward(self, index: int, inputs: torch.Tensor) -> torch.Tensor:
        """Project the inputs: (b, t, n) -> (b, t, s)."""
        return inputs.float() @ self._right[index].T

    def backward(self, index: int, kept: torch.Tensor, gradients: torch.Tensor) -> None:
        """Project the gradients and add their outer products with the kept inputs."""
        projected = gradients.float() @ self._left[index].T  # (b, t, s)
        self.total[:, self._groups[index]] += projected.transpose(1, 2) @ kept  # (b, s, s)

    def phi(self) -> torch.Tensor:
        """Return the encodings (b, groups, s * s)."""
        return self.total.flatten(2)


class MomentSum:
    """A visitor that adds up the squares of every example's gradient by row and by column.

    The sum of squares of row i of y^T x is (y^T (x x^T) y)_ii, which needs no m x n matrix.
    """

    def __init__(self, layers: Sequence[CoveredLayer]) -> None:
        self.rows = [torch.zeros(layer.module.out_features, dtype=torch.float64) for layer in layers]
        self.columns = [torch.zeros(layer.module.in_features, dtype=torch.float64) for layer in layers]

    def forward(self, index: int, inputs: torch.Tensor) -> torch.Tensor:
        """Keep the inputs."""
        return inputs.float()

    def backward(self, index: int, kept: torch.Tensor, gradients: torch.Tensor) -> None:
        """Add the squares; the means over columns and over rows follow from the sums.

        An example that is not finite is left out, so that it does not spoil the others' sums.
        """
        y, x = gradients.float(), kept
        sound = torch.isfinite(y).flatten(1).all(1) & torch.isfinite(x).flatten(1).all(1)
        y, x = y[sound], x[sound]
        n_out, n_in = y.shape[-1], x.shape[-1]
        rows = ((x @ x.transpose(1, 2) @ y) * y).sum((0, 1)) / n_in
        columns = ((y @ y.transpose(1, 2) @ x) * x).sum((0, 1)) / n_out
        self.rows[index] += rows.double().cpu()
        self.columns[index] += columns.double().cpu()


def backpropagate(
    model: nn.Module, layers: Sequence[CoveredLayer], examples: Sequence[Example], visitor: Visitor
) -> torch.Tensor:
    """Run the examples forwards and backwards past the visitor; return their losses (b,) in nats, float32.

    The loss of an example is the sum of its tokens' cross-entropies. Padding is on the right and carries no loss, so
    that under causal attention it has no gradient and no influence on an example's own tokens.
    """
    device = next(model.parameters()).device
    ids, mask, labels = (tensor.to(device) for tensor in _pad(examples))
    with _visited(layers, visitor), torch.enable_grad():
        embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()  # type: ignore[operator]
        logits = model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).logits
        losses = functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), labels[:, 1:], reduction="none", ignore_index=_IGNORED
        ).sum(1)
        torch.autograd.grad(losses.sum(), embeddings)
    return losses.detach()


def _pad(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    width = max(len(example.token_ids) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, _IGNORED)
    for row, example in enumerate(examples):
        n = len(example.token_ids)
        ids[row, :n] = torch.tensor(example.token_ids)
        mask[row, :n] = 1
        labels[row, n - example.n_loss : n] = ids[row, n - example.n_loss : n]
    return ids, mask, labels


@contextmanager
def _visited(layers: Sequence[CoveredLayer], visitor: Visitor) -> Iterator[None]:
    handles = []
    for index, layer in enumerate(layers):

        def hook(
            _module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor, index: int = index
        ) -> None:
            kept = visitor.forward(index, inputs[0].detach())
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda gradients: visitor.backward(index, kept, gradients.detach())
            )

        handles.append(layer.module.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
