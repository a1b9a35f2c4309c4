"""What is taken from gradients as they pass: encodings, second moments, the shares of single tokens.

Notable: everything is a sum over positions of functions of x_t and y_t, so that their order and padding do not matter.
Letters as in gradients.py.
"""

from collections.abc import Sequence
from typing import Final

import torch

from .layers import CoveredLayer

_FORMED: Final = 1 << 27
"""Components of gradients that a GPU forms at once; a CPU forms matrix after matrix, each of which fits its cache."""


class ProjectedSum:
    """Adds up (P0 y_t)(P1 x_t)^T over positions and over the layers of a group: the encoding phi.

    `left` holds P0 (s, m) and `right` P1 (s, n) of every layer, with factored second moments folded in; `shape` is the
    number of groups and of examples.
    """

    def __init__(
        self,
        groups: Sequence[int],
        left: Sequence[torch.Tensor],
        right: Sequence[torch.Tensor],
        shape: tuple[int, int],
    ) -> None:
        self._groups = groups
        self._left = left
        self._right = right
        side = left[0].shape[0]
        self.total = torch.zeros(*shape, side, side, device=left[0].device)

    def forward(self, index: int, inputs: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
        """Project the inputs: (b, t, n) -> (b, t, s)."""
        return inputs.float() @ self._right[index].T

    def backward(self, index: int, kept: torch.Tensor, gradients: torch.Tensor) -> None:
        """Project the gradients and add their outer products with the kept inputs."""
        projected = gradients.float() @ self._left[index].T  # (b, t, s)
        self.total[self._groups[index]].baddbmm_(projected.transpose(1, 2), kept)

    def phi(self) -> torch.Tensor:
        """Return the encodings (b, groups, s * s)."""
        return self.total.flatten(2).transpose(0, 1)


class ElementwiseSum(ProjectedSum):
    """The encoding phi under second moments that do not factor.

    `scales` holds 1 / sqrt(V) (m, n) of every layer. Each example's gradient of one layer at a time is formed to be
    multiplied with it; a GPU forms those of several examples at once.
    """

    def __init__(
        self,
        groups: Sequence[int],
        left: Sequence[torch.Tensor],
        right: Sequence[torch.Tensor],
        shape: tuple[int, int],
        scales: Sequence[torch.Tensor],
    ) -> None:
        super().__init__(groups, left, right, shape)
        self._scales = scales

    def forward(self, index: int, inputs: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
        """Keep the inputs."""
        return inputs.float()

    def backward(self, index: int, kept: torch.Tensor, gradients: torch.Tensor) -> None:
        """Form, correct and project one example's gradient after the other."""
        total, scales = self.total[self._groups[index]], self._scales[index]
        at_once = max(1, _FORMED // scales.numel()) if gradients.is_cuda else 1
        for sums, y, x in zip(
            *(torch.split(every, at_once) for every in (total, gradients.float(), kept)), strict=True
        ):
            corrected = (y.transpose(1, 2) @ x).mul_(scales)  # (some, m, n)
            sums.add_(self._left[index] @ corrected @ self._right[index].T)


class TokenShares:
    """Splits <w, phi> into what each token's position as an input contributes; for one example.

    Since phi is a sum of (P0 y_t)(P1 x_t)^T over positions t, position t contributes (P0 y_t)^T W (P1 x_t), with W
    (s, s) the part of w that belongs to the layer's group. With `scales`, 1 / sqrt(V) (m, n), the product P0^T W P1 is
    formed and multiplied with them.
    """

    def __init__(
        self,
        groups: Sequence[int],
        left: Sequence[torch.Tensor],
        right: Sequence[torch.Tensor],
        weights: torch.Tensor,
        *,
        n_tokens: int,
        scales: Sequence[torch.Tensor] | None = None,
    ) -> None:
        self._groups = groups
        self._left = left
        self._right = right
        self._weights = weights  # (groups, s, s)
        self._scales = scales
        self.shares = torch.zeros(n_tokens, dtype=torch.float64)

    def forward(
        self, index: int, inputs: torch.Tensor, tokens: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Multiply the inputs with W, from the right: (1, t, n) -> (t, m), or (t, s) where V factors."""
        inner = self._weights[self._groups[index]] @ self._right[index]  # (s, n)
        if self._scales is not None:
            inner = (self._left[index].T @ inner).mul_(self._scales[index])  # (m, n)
        return inputs[0].float() @ inner.T, tokens

    def backward(self, index: int, kept: tuple[torch.Tensor, torch.Tensor | None], gradients: torch.Tensor) -> None:
        """Add every position's product with its gradient (1, t, m)."""
        projected, tokens = kept
        y = gradients[0].float()
        products = ((y if self._scales is not None else y @ self._left[index].T) * projected).sum(1).double().cpu()
        if tokens is None:
            self.shares += products
        else:
            self.shares.index_add_(0, tokens[0].cpu(), products)


class MomentSum:
    """Adds up the squares of every example's gradient by row and by column.

    The sum of squares of row i of y^T x is (y^T (x x^T) y)_ii, which needs no m x n matrix.
    """

    def __init__(self, layers: Sequence[CoveredLayer]) -> None:
        self.n_examples = 0
        self.rows = [torch.zeros(layer.shape[0], dtype=torch.float64) for layer in layers]
        self.columns = [torch.zeros(layer.shape[1], dtype=torch.float64) for layer in layers]

    def forward(self, index: int, inputs: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
        """Keep the inputs."""
        return inputs.float()

    def backward(self, index: int, kept: torch.Tensor, gradients: torch.Tensor) -> None:
        """Add the squares; the means over columns and over rows follow from the sums.

        An example that is not finite is left out, so that it does not spoil the others' sums.
        """
        y, x = gradients.float(), kept
        sound = torch.isfinite(y).flatten(1).all(1) & torch.isfinite(x).flatten(1).all(1)
        y, x = y[sound], x[sound]
        # Behind an input of zero a norm's gradient can be so large that its square overflows; it adds nothing.
        y = y.masked_fill((x == 0).all(2, keepdim=True), 0)
        n_out, n_in = y.shape[-1], x.shape[-1]
        rows = ((x @ x.transpose(1, 2) @ y) * y).sum((0, 1)) / n_in
        columns = ((y @ y.transpose(1, 2) @ x) * x).sum((0, 1)) / n_out
        self.rows[index] += rows.double().cpu()
        self.columns[index] += columns.double().cpu()

    def merge(self, other: "MomentSum") -> None:
        """Add the sums over other examples."""
        self.n_examples += other.n_examples
        for total, more in zip([*self.rows, *self.columns], [*other.rows, *other.columns], strict=True):
            total.add_(more)
