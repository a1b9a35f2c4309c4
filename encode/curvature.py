"""The reference curvature R0 and the whitening R0^(-1/2), group by group.

Notable: with fewer rows than dimensions an unregularised R^(-1/2) is worse than none. R_train is shrunk towards a
scaled identity by the weight of Ledoit and Wolf (2004, "A well-conditioned estimator for large-dimensional covariance
matrices", lemma 3.2-3.4, for the second moment about zero), which needs only sums over the sample.
"""

from dataclasses import dataclass
from typing import Any

import torch

from proponent.schema.errors import EncodingError


class SecondMoment:
    """Streaming sums from which a group's shrunk second moment is made; memory does not grow with the sample."""

    def __init__(self, n_groups: int, dim: int) -> None:
        self.n_rows = 0
        self._outer = torch.zeros(n_groups, dim, dim, dtype=torch.float64)
        self._norm4 = torch.zeros(n_groups, dtype=torch.float64)

    def add(self, phi: torch.Tensor) -> None:
        """Add encodings (b, groups, dim)."""
        phi = phi.double().cpu()
        self.n_rows += len(phi)
        self._outer += torch.einsum("bgi,bgj->gij", phi, phi)
        self._norm4 += phi.square().sum(2).square().sum(0)

    def shrunk(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return R0 = (1 - rho) S + rho mu I, as (groups, dim, dim), and rho (groups,), both float64.

        With S the mean outer product, mu = tr S / p, d^2 = |S - mu I|^2 and b^2 = (sum_i |x_i|^4 / n - |S|^2) / n, rho
        is min(b^2, d^2) / d^2.
        """
        if self.n_rows < 2:
            raise EncodingError(f"a curvature needs at least 2 encodable passages, not {self.n_rows}")
        dim = self._outer.shape[-1]
        mean = self._outer / self.n_rows
        mu = mean.diagonal(dim1=1, dim2=2).sum(1) / dim
        squared = mean.square().sum((1, 2))
        spread = squared - dim * mu.square()
        error = (self._norm4 / self.n_rows - squared) / self.n_rows
        rho = torch.where(spread > 0, (error / spread.clamp_min(torch.finfo(spread.dtype).tiny)), 1.0).clamp(0.0, 1.0)
        identity = torch.eye(dim, dtype=torch.float64)
        shrunk = (1 - rho)[:, None, None] * mean + (rho * mu)[:, None, None] * identity
        return shrunk, rho


@dataclass(frozen=True)
class Whitening:
    """R0 by its eigenvectors (groups, dim, dim) and eigenvalues (groups, dim), float32 and float64."""

    vectors: torch.Tensor
    values: torch.Tensor

    @classmethod
    def of(cls, curvature: torch.Tensor) -> "Whitening":
        """Decompose R0 (groups, dim, dim) in float64. Raises EncodingError when it is not positive definite."""
        values, vectors = torch.linalg.eigh(curvature)
        floor = values.amax(1, keepdim=True) * torch.finfo(torch.float32).eps ** 2
        if not torch.isfinite(values).all() or (values <= floor).any():
            raise EncodingError("the curvature is singular: the sample's gradients are zero or not finite")
        return cls(vectors.float(), values)

    def power(self, exponent: float) -> torch.Tensor:
        """Return R0 to a power, (groups, dim, dim) float32."""
        vectors = self.vectors.double()
        return (vectors * self.values.pow(exponent)[:, None, :] @ vectors.transpose(1, 2)).float()


def apply(matrix: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Multiply vectors (b, groups, dim) by a symmetric block-diagonal matrix (groups, dim, dim)."""
    return torch.einsum("bgi,gij->bgj", vectors, matrix)


def diagnostics(moment: SecondMoment, rho: torch.Tensor, whitening: Whitening) -> dict[str, Any]:
    """Return what a reader needs to judge R0: sample, shrinkage, effective rank and spectrum of every group."""
    values = whitening.values
    effective = values.sum(1).square() / values.square().sum(1)
    quantiles = torch.quantile(values, torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64), dim=1).T
    return {
        "sample": moment.n_rows,
        "shrinkage": "ledoit-wolf",
        "rho": rho.tolist(),
        "effective_rank": effective.tolist(),
        "spectrum_quantiles_0_10_50_90_100": quantiles.tolist(),
        "dimensions_per_group": values.shape[1],
    }
