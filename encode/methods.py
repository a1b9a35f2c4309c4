"""Attribution methods as what they do with the same stored encodings.

| method | second moments | curvature | unit norm | score of a passage m for a query q |
| --- | --- | --- | --- | --- |
| trackstar | yes | R0 | yes | <psi_m / |psi_m|, psi_q / |psi_q|> |
| logra | no | R0 | yes | the same |
| trak | no | R0, inverse on the query's side | no | |psi_m| <psi_m / |psi_m|, psi_q> |
| graddot | no | none | no | |psi_m| <psi_m / |psi_m|, R0 psi_q> = <phi_m, phi_q> |

Since psi = R0^(-1/2) phi, <phi_m, R0^-1 phi_q> = <psi_m, psi_q> and <phi_m, phi_q> = <psi_m, R0 psi_q>: a method is a
choice of the query's vector and of whether a passage's stored norm counts.
"""

from dataclasses import dataclass
from typing import Final

import torch

from proponent.schema.errors import ModelMismatchError

from .encoder import Encoder


@dataclass(frozen=True)
class Method:
    """What a method needs of an encoder and does with a query."""

    name: str
    needs_moments: bool
    """Whether it is defined with the optimizer's second moments (True) or without (False)."""
    unit_norm: bool
    """Whether passages and query are normalised."""
    whitened: bool
    """Whether the curvature counts; else the query's psi is multiplied by R0."""


METHODS: Final = {
    method.name: method
    for method in (
        Method("trackstar", needs_moments=True, unit_norm=True, whitened=True),
        Method("logra", needs_moments=False, unit_norm=True, whitened=True),
        Method("trak", needs_moments=False, unit_norm=False, whitened=True),
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


def query_vectors(method: Method, encoder: Encoder, psi: torch.Tensor) -> torch.Tensor:
    """Return the vectors (q, d) that a method takes dot products with, from queries' psi (q, d)."""
    if not method.whitened:
        psi = encoder.unwhiten(psi)
    return psi / psi.norm(dim=1, keepdim=True) if method.unit_norm else psi
