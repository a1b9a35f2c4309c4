"""Attribution methods as what they do with the same stored encodings.

| method | second moments | curvature | unit norm | score of a passage m for a query q |
| --- | --- | --- | --- | --- |
| trackstar | yes | R0, or a task's | yes | <u_m, R'^-1 psi_q> / (|R'^-1/2 u_m| |R'^-1/2 psi_q|) |
| logra | no | R0, or a task's | yes | the same |
| trak | no | R0, or a task's, inverse on the query's side | no | |psi_m| <u_m, R'^-1 psi_q> |
| gradcos | no | none | yes | as trackstar's, with R'^-1 = R0: <phi_m, phi_q> / (|phi_m| |phi_q|) |
| graddot | no | none | no | as trak's, with R'^-1 = R0: <phi_m, phi_q> |

u_m = psi_m / |psi_m| is what is stored, beside |psi_m|. Since psi = R0^(-1/2) phi, <phi_m, R^-1 phi_q> =
<psi_m, R'^-1 psi_q>: a method is a choice of the curvature and of what a passage's score is multiplied with, its stored
norm or one over the norm of u_m under the curvature. Under R0 itself R'^-1 = I, and that norm is 1.
"""

from dataclasses import dataclass
from typing import Final

import torch

from proponent.schema.errors import ModelMismatchError

from .curvature import Curvature


@dataclass(frozen=True)
class Method:
    """What a method needs of an encoder and does with a query."""

    name: str
    needs_moments: bool
    """Whether it is defined with the optimizer's second moments (True) or without (False)."""
    unit_norm: bool
    """Whether passages and query are normalised."""
    whitened: bool
    """Whether a curvature counts; else R = I."""


METHODS: Final = {
    method.name: method
    for method in (
        Method("trackstar", needs_moments=True, unit_norm=True, whitened=True),
        Method("logra", needs_moments=False, unit_norm=True, whitened=True),
        Method("trak", needs_moments=False, unit_norm=False, whitened=True),
        Method("gradcos", needs_moments=False, unit_norm=True, whitened=False),
        Method("graddot", needs_moments=False, unit_norm=False, whitened=False),
    )
}


def require_moments(method: Method, *, encoder: str, moments: str) -> None:
    """Raise ModelMismatchError unless an encoder's second moments are what a method is defined with."""
    if method.needs_moments == (moments != "none"):
        return
    wanted, flag = ("with", "auto") if method.needs_moments else ("without", "none")
    raise ModelMismatchError(
        f"method {method.name!r} takes an encoder {wanted} second moments, {encoder!r} has {moments!r}; "
        f"make one with `proponent encode LAKE --model NAME --moments {flag}`"
    )


def query_vectors(method: Method, curvature: Curvature, psi: torch.Tensor) -> torch.Tensor:
    """Return the vectors (q, d) that a method takes dot products with, from queries' psi (q, d).

    With unit norm they are R'^-1 psi / |R'^-1/2 psi|, and a passage's dot product is divided by its own norm.
    """
    vectors = curvature.inverse(psi)
    if not method.unit_norm:
        return vectors
    squared = (psi.double() * vectors.double()).sum(1, keepdim=True)  # <psi, R'^-1 psi>
    return (vectors / squared.sqrt()).float()
