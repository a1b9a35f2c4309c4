"""Curvatures, group by group: the reference R0 with its whitening R0^(-1/2), a task's, and none.

Notable: with fewer rows than dimensions an unregularised R^(-1/2) is worse than none. R_train is shrunk towards a
scaled identity by the weight of Ledoit and Wolf (2004, "A well-conditioned estimator for large-dimensional covariance
matrices", lemma 3.2-3.4, for the second moment about zero), which needs only sums over the sample.

Encodings are stored whitened, psi = R0^(-1/2) phi, so any other curvature R is here R' = R0^(-1/2) R R0^(-1/2). A score
takes two things of it: R'^-1 on the query's side and, with unit norm, |R'^-1/2 u| of every stored unit vector.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

import torch

from proponent.schema.errors import EncodingError
from proponent.schema.settings import MOST_MIXING

_SHARE_DOMINATED: Final = 1000 / 65_536
"""Share of all components that a task takes down (arXiv:2410.17413, section 3: about 1000 of 65,536)."""


class SecondMoment:
    """Streaming sums from which a group's shrunk second moment is made; memory does not grow with the sample.

    They are kept, in float64, on the device that they are to be computed on.
    """

    def __init__(self, n_groups: int, dim: int, *, device: torch.device | str = "cpu") -> None:
        self.n_rows = 0
        self._outer = torch.zeros(n_groups, dim, dim, dtype=torch.float64, device=device)
        self._norm4 = torch.zeros(n_groups, dtype=torch.float64, device=device)

    def add(self, phi: torch.Tensor) -> None:
        """Add encodings (b, groups, dim)."""
        phi = phi.to(self._outer)
        self.n_rows += len(phi)
        self._outer += torch.einsum("bgi,bgj->gij", phi, phi)
        self._norm4 += phi.square().sum(2).square().sum(0)

    def effective_rows(self) -> torch.Tensor:
        """Return for each group as how many rows of equal norm the sample counts, (groups,) float64.

        (sum |x_i|^2)^2 / sum |x_i|^4 (Kish's effective sample size, with the squared norms as weights): a few passages
        with large gradients can outweigh all others.
        """
        squared = self._outer.diagonal(dim1=1, dim2=2).sum(1)
        return torch.where(self._norm4 > 0, squared.square() / self._norm4, 0.0)

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
        identity = torch.eye(dim, dtype=torch.float64, device=mean.device)
        shrunk = (1 - rho)[:, None, None] * mean + (rho * mu)[:, None, None] * identity
        return shrunk, rho


@dataclass(frozen=True)
class Whitening:
    """R0 by its eigenvectors (groups, dim, dim) and eigenvalues (groups, dim), float32 and float64."""

    vectors: torch.Tensor
    values: torch.Tensor

    @classmethod
    def of(cls, curvature: torch.Tensor) -> "Whitening":
        """Decompose R0 (groups, dim, dim) in float64, where it lies; what comes of it is on the CPU.

        Raises EncodingError when it is not positive definite.
        """
        # One by one: for many at once, a GPU's library turns to a method that is meant for small matrices.
        pairs = [torch.linalg.eigh(group) for group in curvature]
        values, vectors = (torch.stack([pair[side] for pair in pairs]).cpu() for side in (0, 1))
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


class Curvature(Protocol):
    """What scores are taken under, as what they need of it."""

    def inverse(self, psi: torch.Tensor) -> torch.Tensor:
        """Return R'^-1 psi of queries' vectors (q, d) float32, as (q, d) float32."""

    def norms(self, unit: torch.Tensor) -> torch.Tensor:
        """Return |R'^-1/2 u| of stored unit vectors (n, d) float32, as (n,) float32."""


class ReferenceCurvature:
    """R = R0, so R' = I: what encodings are whitened with."""

    def inverse(self, psi: torch.Tensor) -> torch.Tensor:
        """Return psi."""
        return psi

    def norms(self, unit: torch.Tensor) -> torch.Tensor:
        """Return the vectors' own norms."""
        return unit.square().sum(1).sqrt()


class IdentityCurvature:
    """R = I, no curvature: R'^-1 = R0 undoes the whitening."""

    def __init__(self, whitening: Whitening) -> None:
        self._matrix = whitening.power(1.0)

    def inverse(self, psi: torch.Tensor) -> torch.Tensor:
        """Return R0 psi."""
        return apply(self._matrix, _by_group(psi, len(self._matrix))).flatten(1)

    def norms(self, unit: torch.Tensor) -> torch.Tensor:
        """Return |R0^1/2 u|, which is |phi| / |psi|."""
        return (unit * self.inverse(unit)).sum(1).clamp_min(0).sqrt()


@dataclass(frozen=True)
class TaskCurvature:
    """R' = (1 - lambda) I + lambda mean(psi_q psi_q^T), block-diagonal, by the eigenpairs of its second term.

    With r the most queries that a group can tell apart, eigenpairs (sigma, Q) of lower rank end in zeros. R'^-1 =
    [I - Q diag(lambda sigma / (1 - lambda + lambda sigma)) Q^T] / (1 - lambda), by Woodbury's identity. Float64
    throughout: the norm of a vector near the span of Q is a difference of nearly equal numbers.
    """

    mixing: float
    """lambda, at least 0 and below 1."""
    values: torch.Tensor
    """sigma, (groups, r) float64, descending."""
    vectors: torch.Tensor
    """Q, (groups, dim, r) float64."""

    def inverse(self, psi: torch.Tensor) -> torch.Tensor:
        """Return R'^-1 psi of queries' vectors (q, d) float32, as (q, d) float32."""
        groups = _by_group(psi.double(), len(self.values))
        inside = torch.einsum("qgi,gir->qgr", groups, self.vectors) * self._weights()
        outside = groups - torch.einsum("qgr,gir->qgi", inside, self.vectors)
        return (outside.flatten(1) / (1 - self.mixing)).float()

    def norms(self, unit: torch.Tensor) -> torch.Tensor:
        """Return |R'^-1/2 u| of stored unit vectors (n, d) float32, as (n,) float32, in 2 d r operations each."""
        squared = torch.zeros(len(unit), dtype=torch.float64, device=unit.device)
        blocks = _by_group(unit, len(self.values)).unbind(1)
        for block, vectors, weights in zip(blocks, self.vectors, self._weights(), strict=True):
            exact = block.double()  # one group at a time: all of them in float64 would be twice what a scan holds
            squared += exact.square().sum(1) - (exact @ vectors).square() @ weights
        return (squared / (1 - self.mixing)).clamp_min(0).sqrt().float()

    def _weights(self) -> torch.Tensor:
        weighted = self.mixing * self.values
        return weighted / (1 - self.mixing + weighted)  # (groups, r)

    def state(self) -> dict[str, torch.Tensor]:
        """Return everything that was fitted, as tensors for safetensors."""
        mixing = torch.tensor([self.mixing], dtype=torch.float64)
        return {"mixing": mixing, "values": self.values, "vectors": self.vectors}

    @classmethod
    def restore(cls, state: dict[str, torch.Tensor]) -> "TaskCurvature":
        """Make a curvature again from its fitted state."""
        return cls(float(state["mixing"]), state["values"], state["vectors"])


class Mixing(NamedTuple):
    """How much of a task's curvature is mixed in."""

    value: float
    """lambda."""
    chosen: Literal["rule", "rule, capped", "by hand"]
    k: int | None
    """Components that the rule has the task dominate."""
    sigma_k: float | None
    """Eigenvalue of the k-th."""


def choose_mixing(values: torch.Tensor, *, dim: int) -> Mixing:
    """Return the lambda that lets a task dominate about the first k components of all groups together.

    In the whitened basis a component is dominated when lambda sigma > 1 - lambda, so lambda = 1 / (1 + sigma_k), with
    sigma_k the k-th of the pooled positive eigenvalues `values`, k = 1000 of 65,536 scaled to `dim` components and at
    most half the rank: the last eigenvalues of a few queries are noise, and dividing by them sends lambda to 1. It
    stays at most MOST_MIXING. A factor on all queries' vectors changes R' by no more than a factor, so the rule does
    not depend on their scale unless that bound takes hold.
    """
    pooled = values[values > 0].sort(descending=True).values
    k = max(1, min(round(_SHARE_DOMINATED * dim), len(pooled) // 2))
    sigma_k = float(pooled[k - 1])
    mixing = 1 / (1 + sigma_k)
    if mixing > MOST_MIXING:
        return Mixing(MOST_MIXING, "rule, capped", k, sigma_k)
    return Mixing(mixing, "rule", k, sigma_k)


def fit_task(psi: torch.Tensor, *, n_groups: int, mixing: float | None = None) -> tuple[TaskCurvature, dict[str, Any]]:
    """Fit a task's curvature on its queries' vectors (q, d) float32; return it with its diagnostics.

    The vectors enter with their norms, as phi enters R0. `mixing` sets lambda by hand. Raises EncodingError when a
    vector is not finite or all are zero.
    """
    if not torch.isfinite(psi).all() or not psi.any():
        raise EncodingError("a task's curvature needs queries whose gradients are finite and not zero")
    rows = _by_group(psi.double(), n_groups).transpose(0, 1) / len(psi) ** 0.5  # (groups, q, dim)
    # Of the rows themselves, not of their products: singular vectors stay orthogonal down to the smallest.
    _, singular, vectors = torch.linalg.svd(rows, full_matrices=False)
    # Equal queries differ in the last digits of float32, which are no directions of the task.
    noise = singular.amax(1, keepdim=True) * max(rows.shape[1:]) * torch.finfo(torch.float32).eps
    values = torch.where(singular > noise, singular.square(), 0.0)
    ranks = (values > 0).sum(1)
    kept = int(ranks.max())
    values, vectors = values[:, :kept], vectors[:, :kept].transpose(1, 2).contiguous()
    chosen = choose_mixing(values, dim=psi.shape[1]) if mixing is None else Mixing(mixing, "by hand", None, None)
    found = {
        "queries": len(psi),
        "mixing_chosen": chosen.chosen,
        "k": chosen.k,
        "sigma_k": chosen.sigma_k,
        "ranks": ranks.tolist(),
        "spectrum_quantiles_0_10_50_90_100": [_quantiles(group[group > 0]) for group in values],
    }
    return TaskCurvature(chosen.value, values, vectors), found


def _quantiles(values: torch.Tensor) -> list[float]:
    if not len(values):
        return [0.0] * 5
    shares = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    return [float(value) for value in torch.quantile(values, shares)]


def _by_group(vectors: torch.Tensor, n_groups: int) -> torch.Tensor:
    return vectors.reshape(len(vectors), n_groups, -1)


def diagnostics(moment: SecondMoment, rho: torch.Tensor, whitening: Whitening) -> dict[str, Any]:
    """Return what a reader needs to judge R0: sample, shrinkage, effective rank and spectrum of every group."""
    values = whitening.values
    effective = values.sum(1).square() / values.square().sum(1)
    quantiles = torch.quantile(values, torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64), dim=1).T
    return {
        "sample": moment.n_rows,
        "effective_sample": moment.effective_rows().tolist(),
        "shrinkage": "ledoit-wolf",
        "rho": rho.tolist(),
        "effective_rank": effective.tolist(),
        "spectrum_quantiles_0_10_50_90_100": quantiles.tolist(),
        "dimensions_per_group": values.shape[1],
    }
