"""Every method's score, computed from what a lake stores, is its definition from phi and R0."""

from collections.abc import Callable

import pytest
import torch

from proponent.encode.checkpoint import Checkpoint
from proponent.encode.encoder import Encoder, Projector, fit
from proponent.encode.gradients import Example
from proponent.encode.methods import METHODS, query_vectors, require_moments
from proponent.encode.tokens import passage_examples
from proponent.schema import settings as settings_module
from proponent.schema.errors import ModelMismatchError
from proponent.schema.settings import EncoderSettings


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint, settings: EncoderSettings, sentences: list[str]) -> Encoder:
    """An encoder without second moments."""
    return fit(Projector(checkpoint, settings, None), passage_examples(checkpoint.tokenizer, sentences))[0]


def whiten(encoder: Encoder, phi: torch.Tensor, exponent: float) -> torch.Tensor:
    """Return R0^exponent phi, flattened, in float64."""
    vectors, values = encoder.whitening.vectors.double(), encoder.whitening.values
    return torch.einsum("gij,gj,gkj,bgk->bgi", vectors, values.pow(exponent), vectors, phi).flatten(1)


def cosine(passages: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    return passages @ query / passages.norm(dim=1) / query.norm()


def direct_scores(method: str, encoder: Encoder, phi: torch.Tensor) -> torch.Tensor:
    """Score all passages but the last example, the query, by the method's definition."""
    flat = phi.flatten(1)
    psi = whiten(encoder, phi, -0.5)
    if method in ("trackstar", "logra"):
        return cosine(psi[:-1], psi[-1])
    if method == "trak":
        return flat[:-1] @ whiten(encoder, phi, -1.0)[-1]
    return flat[:-1] @ flat[-1]


@pytest.mark.parametrize("name", METHODS)
def test_scores_from_stored_encodings_are_the_methods_definition(
    name: str, encoder: Encoder, plain: Encoder, examples: list[Example], exact_phi: Callable[..., torch.Tensor]
) -> None:
    method = METHODS[name]
    used = encoder if method.needs_moments else plain
    vectors = used.encode(examples).vectors
    norms = vectors[:-1].norm(dim=1)
    scores = vectors[:-1] / norms[:, None] @ query_vectors(method, used, vectors[-1:])[0]
    if not method.unit_norm:
        scores = scores * norms
    projector = used.projector
    phi = exact_phi(projector.checkpoint, projector.settings, projector.moments, examples)
    exact = direct_scores(name, used, phi)
    assert float((scores.double() - exact).norm() / exact.norm()) <= 1e-4


def test_unit_norm_scores_are_cosines(encoder: Encoder, examples: list[Example]) -> None:
    vectors = encoder.encode(examples).vectors
    query = query_vectors(METHODS["trackstar"], encoder, vectors[-1:])[0]
    scores = vectors / vectors.norm(dim=1, keepdim=True) @ query
    assert scores.abs().max() <= 1 + 1e-5
    assert float(scores[-1]) == pytest.approx(1, abs=1e-5)


def test_the_names_are_those_that_the_settings_allow() -> None:
    assert tuple(METHODS) == settings_module.METHODS
    assert all(name == method.name for name, method in METHODS.items())


@pytest.mark.parametrize(("name", "moments"), [("trackstar", "none"), ("trak", "estimated"), ("graddot", "adafactor")])
def test_a_method_refuses_an_encoder_that_it_is_not_defined_with(name: str, moments: str) -> None:
    with pytest.raises(ModelMismatchError, match=f"{name}.*'enc' has '{moments}'.*proponent encode LAKE"):
        require_moments(METHODS[name], encoder="enc", moments=moments)


@pytest.mark.parametrize(("name", "moments"), [("trackstar", "adam-factored"), ("logra", "none")])
def test_a_method_takes_an_encoder_that_it_is_defined_with(name: str, moments: str) -> None:
    require_moments(METHODS[name], encoder="enc", moments=moments)
