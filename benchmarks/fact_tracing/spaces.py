"""Encodings in the eigenbasis of their second moment, where any shrinkage of the curvature is a scaling.

Notable: the mathematics of the curvature is the project's own (`encode/curvature.py`); what is here turns its parts on
and off. Vectors are tensors float32 on a GPU where there is one; scores are arrays (queries, passages) float32.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from proponent.encode.checkpoint import device_here
from proponent.encode.curvature import SecondMoment, TaskCurvature, fit_task


class Split(NamedTuple):
    """Encodings of everything, (n, groups, dim) float32 each."""

    passages: torch.Tensor
    facts: torch.Tensor
    task: torch.Tensor
    otherwise: torch.Tensor

    @classmethod
    def of(cls, phi: np.ndarray, sizes: tuple[int, int, int, int]) -> "Split":
        """Split what was encoded as one array."""
        return cls(*torch.from_numpy(phi).to(device_here()).split(sizes))


@dataclass(frozen=True)
class Space:
    """Encodings, rotated group by group into the eigenbasis of a second moment of the passages."""

    split: Split
    values: torch.Tensor
    """Eigenvalues of the second moment, (groups, dim) float64."""
    rho: torch.Tensor
    """Ledoit and Wolf's shrinkage, (groups,)."""

    @classmethod
    def of(cls, split: Split, sample: torch.Tensor | None = None) -> "Space":
        """Rotate; `sample` are the vectors that the moment is taken of, by default the passages."""
        rows = split.passages if sample is None else sample
        moment = SecondMoment(rows.shape[1], rows.shape[2], device=rows.device)
        for part in rows.split(512):
            moment.add(part)
        shrunk, rho = moment.shrunk()
        values, vectors = (torch.stack(side) for side in zip(*map(torch.linalg.eigh, shrunk), strict=True))
        basis = vectors.float()
        rotated = Split(*(torch.einsum("ngi,gij->ngj", one, basis) for one in split))
        mu = values.mean(1, keepdim=True)
        bare = (values - rho[:, None] * mu) / (1 - rho[:, None]).clamp_min(1e-12)  # as it was before shrinking
        return cls(rotated, bare.clamp_min(0), rho)

    def damped(self, rho: float | torch.Tensor | None = None) -> torch.Tensor:
        """Return the eigenvalues of R0 under a shrinkage, by default Ledoit and Wolf's; (groups, dim)."""
        weight = torch.as_tensor(self.rho if rho is None else rho, device=self.rho.device).expand(len(self.rho))[
            :, None
        ]
        return (1 - weight) * self.values + weight * self.values.mean(1, keepdim=True)

    def whitened(self, rho: float | torch.Tensor | None = None, power: float = -0.5) -> Split:
        """Return everything times R0 to a power."""
        scale = self.damped(rho).pow(power).float()
        return Split(*(one * scale for one in self.split))


def flat(vectors: torch.Tensor) -> torch.Tensor:
    """Join groups: (n, groups, dim) -> (n, d)."""
    return vectors.reshape(len(vectors), -1)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Return rows of length one."""
    rows = flat(vectors)
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)


def dots(queries: torch.Tensor, passages: torch.Tensor) -> np.ndarray:
    """Return dot products; queries are normalised, which changes no order."""
    return _scores(unit(queries) @ flat(passages).T)


def cosines(queries: torch.Tensor, passages: torch.Tensor) -> np.ndarray:
    """Return cosines."""
    return _scores(unit(queries) @ unit(passages).T)


def between(queries: torch.Tensor, passages: torch.Tensor, exponent: float) -> np.ndarray:
    """Return cosines times the passage's length to an exponent: 0 is the cosine, 1 the dot product."""
    lengths: np.ndarray = flat(passages).norm(dim=1).cpu().numpy()
    return cosines(queries, passages) * lengths**exponent


def fit(task: torch.Tensor, mixing: float | None = None) -> TaskCurvature:
    """Fit a task's curvature on whitened queries; `mixing` is lambda, by default the rule's."""
    # On the CPU, as the project fits them: singular vectors of many matrices are no work for a GPU.
    fitted = fit_task(flat(task).cpu(), n_groups=task.shape[1], mixing=mixing)[0]
    return replace(fitted, values=fitted.values.to(task.device), vectors=fitted.vectors.to(task.device))


def under(task: TaskCurvature, queries: torch.Tensor, passages: torch.Tensor) -> np.ndarray:
    """Return cosines under a task's curvature, of whitened queries and passages."""
    psi, units = flat(queries), unit(passages)
    inverse = task.inverse(psi)
    lengths = (psi.double() * inverse.double()).sum(1, keepdim=True).sqrt()
    return _scores((inverse / lengths).float() @ units.T / task.norms(units))


def _scores(found: torch.Tensor) -> np.ndarray:
    scores: np.ndarray = found.cpu().numpy()
    return scores
