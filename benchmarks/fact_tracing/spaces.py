"""Encodings in the eigenbasis of their second moment, where any shrinkage of the curvature is a scaling.

Notable: the mathematics of the curvature is the project's own (`encode/curvature.py`); what is here turns its parts on
and off. Scores are matrices (queries, passages) float32.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from proponent.encode.curvature import SecondMoment, TaskCurvature, fit_task


class Split(NamedTuple):
    """Encodings of everything, (n, groups, dim) float32 each."""

    passages: np.ndarray
    facts: np.ndarray
    task: np.ndarray
    otherwise: np.ndarray

    @classmethod
    def of(cls, phi: np.ndarray, sizes: tuple[int, int, int, int]) -> "Split":
        """Split what was encoded as one array."""
        return cls(*np.split(phi, np.cumsum(sizes)[:-1]))


@dataclass(frozen=True)
class Space:
    """Encodings, rotated group by group into the eigenbasis of a second moment of the passages."""

    split: Split
    values: np.ndarray
    """Eigenvalues of the second moment, (groups, dim) float64."""
    rho: np.ndarray
    """Ledoit and Wolf's shrinkage, (groups,)."""

    @classmethod
    def of(cls, split: Split, sample: np.ndarray | None = None) -> "Space":
        """Rotate; `sample` are the vectors that the moment is taken of, by default the passages."""
        rows = split.passages if sample is None else sample
        moment = SecondMoment(rows.shape[1], rows.shape[2])
        for part in torch.from_numpy(rows).split(512):
            moment.add(part)
        shrunk, rho = moment.shrunk()
        values, vectors = torch.linalg.eigh(shrunk)
        basis = vectors.float().numpy()
        rotated = Split(*(np.einsum("ngi,gij->ngj", one, basis, optimize=True) for one in split))
        mu = values.mean(1, keepdim=True)
        bare = (values - rho[:, None] * mu) / (1 - rho[:, None]).clamp_min(1e-12)  # as it was before shrinking
        return cls(rotated, bare.clamp_min(0).numpy(), rho.numpy())

    def damped(self, rho: float | np.ndarray | None = None) -> np.ndarray:
        """Return the eigenvalues of R0 under a shrinkage, by default Ledoit and Wolf's; (groups, dim)."""
        weight = np.broadcast_to(self.rho if rho is None else rho, self.rho.shape)[:, None]
        return (1 - weight) * self.values + weight * self.values.mean(1, keepdims=True)

    def whitened(self, rho: float | np.ndarray | None = None, power: float = -0.5) -> Split:
        """Return everything times R0 to a power."""
        scale = np.power(self.damped(rho), power).astype(np.float32)
        return Split(*(one * scale for one in self.split))


def flat(vectors: np.ndarray) -> np.ndarray:
    """Join groups: (n, groups, dim) -> (n, d)."""
    return vectors.reshape(len(vectors), -1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return rows of length one."""
    rows = flat(vectors)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-30)


def dots(queries: np.ndarray, passages: np.ndarray) -> np.ndarray:
    """Return dot products; queries are normalised, which changes no order."""
    return unit(queries) @ flat(passages).T


def cosines(queries: np.ndarray, passages: np.ndarray) -> np.ndarray:
    """Return cosines."""
    return unit(queries) @ unit(passages).T


def between(queries: np.ndarray, passages: np.ndarray, exponent: float) -> np.ndarray:
    """Return cosines times the passage's length to an exponent: 0 is the cosine, 1 the dot product."""
    return cosines(queries, passages) * np.linalg.norm(flat(passages), axis=1) ** exponent


def fit(task: np.ndarray, mixing: float | None = None) -> TaskCurvature:
    """Fit a task's curvature on whitened queries; `mixing` is lambda, by default the rule's."""
    return fit_task(torch.from_numpy(np.ascontiguousarray(flat(task))), n_groups=task.shape[1], mixing=mixing)[0]


def under(task: TaskCurvature, queries: np.ndarray, passages: np.ndarray) -> np.ndarray:
    """Return cosines under a task's curvature, of whitened queries and passages."""
    psi, units = torch.from_numpy(flat(queries)), torch.from_numpy(unit(passages))
    inverse = task.inverse(psi)
    lengths = (psi.double() * inverse.double()).sum(1, keepdim=True).sqrt()
    return ((inverse / lengths).float() @ units.T / task.norms(units)).numpy()
