"""Every method's score, computed from what a lake stores, is its definition from phi and R."""

from collections.abc import Callable

import pytest
import torch

from proponent.encode.checkpoint import Checkpoint
from proponent.encode.curvature import Curvature, IdentityCurvature, ReferenceCurvature, fit_task
from proponent.encode.encoder import Encoder, Projector, fit
from proponent.encode.gradients import Example
from proponent.encode.methods import METHODS, Method, query_vectors, require_moments
from proponent.encode.tokens import passage_examples
from proponent.schema import settings as settings_module
from proponent.schema.errors import ModelMismatchError
from proponent.schema.settings import EncoderSettings


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint, settings: EncoderSettings, sentences: list[str]) -> Encoder:
    """An encoder without second moments."""
    return fit(Projector(checkpoint, settings, None), passage_examples(checkpoint.tokenizer, sentences))[0]


def blocks(encoder: Encoder) -> torch.Tensor:
    """Return R0 as a block-diagonal matrix (d, d) float64."""
    vectors, values = encoder.whitening.vectors.double(), encoder.whitening.values
    return torch.block_diag(*torch.einsum("gij,gj,gkj->gik", vectors, values, vectors))


def mixed(encoder: Encoder, phi: torch.Tensor, mixing: float) -> torch.Tensor:
    """Return R = (1 - lambda) R0 + lambda mean(phi phi^T), by group, from queries' phi (q, groups, dim)."""
    moment = torch.einsum("qgi,qgj->gij", phi, phi) / len(phi)
    return (1 - mixing) * blocks(encoder) + mixing * torch.block_diag(*moment)


def direct_scores(method: Method, curvature: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
    """Score all passages but the last example, the query, by the method's definition under R (d, d)."""
    inverse = torch.linalg.inv(curvature)
    products = phi @ inverse @ phi[-1]
    if not method.unit_norm:
        return products[:-1]
    squared = torch.einsum("ni,ij,nj->n", phi, inverse, phi)
    return (products / (squared * squared[-1]).sqrt())[:-1]


def stored_scores(method: Method, curvature: Curvature, psi: torch.Tensor) -> torch.Tensor:
    """Score all rows of psi but the last, the query, from what a lake stores of them."""
    norms = psi[:-1].norm(dim=1)
    unit = psi[:-1] / norms[:, None]
    scores = unit @ query_vectors(method, curvature, psi[-1:])[0]
    return scores / curvature.norms(unit) if method.unit_norm else scores * norms


METHODS_AND_CURVATURES = [
    (name, curvature)
    for name, method in METHODS.items()
    for curvature in (["reference", "task", "identity"] if method.whitened else ["identity"])
]


@pytest.mark.parametrize(("name", "kind"), METHODS_AND_CURVATURES)
def test_scores_from_stored_encodings_are_the_methods_definition(
    name: str,
    kind: str,
    encoder: Encoder,
    plain: Encoder,
    examples: list[Example],
    exact_phi: Callable[..., torch.Tensor],
) -> None:
    method = METHODS[name]
    used = encoder if method.needs_moments else plain
    psi = used.encode(examples).vectors
    projector = used.projector
    phi = exact_phi(projector.checkpoint, projector.settings, projector.moments, examples)
    curvature: Curvature = ReferenceCurvature() if kind == "reference" else IdentityCurvature(used.whitening)
    matrix = blocks(used) if kind == "reference" else torch.eye(psi.shape[1], dtype=torch.float64)
    if kind == "task":
        curvature, _ = fit_task(psi[-4:], n_groups=phi.shape[1])
        matrix = mixed(used, phi[-4:], curvature.mixing)
    scores, exact = stored_scores(method, curvature, psi), direct_scores(method, matrix, phi.flatten(1))
    assert float((scores.double() - exact).norm() / exact.norm()) <= 1e-4


@pytest.mark.parametrize("curvature", ["reference", "task", "identity"])
def test_unit_norm_scores_are_cosines_under_every_curvature(
    curvature: str, encoder: Encoder, examples: list[Example]
) -> None:
    psi = encoder.encode([*examples, examples[-1]]).vectors
    task, _ = fit_task(psi[-3:], n_groups=len(encoder.whitening.values))
    identity = IdentityCurvature(encoder.whitening)
    taken: Curvature = {"reference": ReferenceCurvature(), "task": task, "identity": identity}[curvature]
    scores = stored_scores(METHODS["trackstar"], taken, psi)
    assert scores.abs().max() <= 1 + 1e-5
    assert float(scores[-1]) == pytest.approx(1, abs=1e-5)


def test_the_names_are_those_that_the_settings_allow() -> None:
    assert tuple(METHODS) == settings_module.METHODS
    assert all(name == method.name for name, method in METHODS.items())
    without = {name for name, method in METHODS.items() if not method.whitened}
    assert without == set(settings_module.METHODS_WITHOUT_CURVATURE)


@pytest.mark.parametrize(("name", "moments"), [("trackstar", "none"), ("trak", "estimated"), ("graddot", "adafactor")])
def test_a_method_refuses_an_encoder_that_it_is_not_defined_with(name: str, moments: str) -> None:
    with pytest.raises(ModelMismatchError, match=f"{name}.*'enc' has '{moments}'.*proponent encode LAKE"):
        require_moments(METHODS[name], encoder="enc", moments=moments)


@pytest.mark.parametrize(("name", "moments"), [("trackstar", "adam-factored"), ("logra", "none")])
def test_a_method_takes_an_encoder_that_it_is_defined_with(name: str, moments: str) -> None:
    require_moments(METHODS[name], encoder="enc", moments=moments)
