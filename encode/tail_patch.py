"""Tail-patch: what one more optimizer step on one passage does to a target's probability (arXiv:2410.17413).

The step is taken from the checkpoint as it is, and undone. It follows the gradient of the passage's mean loss a token:

    adam    w <- w - lr g / sqrt(V)        V the second moments that training left, not moved by g; no momentum
    sgd     w <- w - lr g

Notable: Adam steps the matrices whose moments are known, those that an encoder sees; SGD steps all that training moved.
Weights are put back from a copy, bit by bit, and their hash is compared at the end.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch.nn import functional

from proponent.schema.errors import EncodingError, ModelError, ModelMismatchError

from .gradients import Example
from .layers import CoveredLayer, cover, trained_parameters
from .moments import FactoredMoments, Moments

ADAM: Final = "adam"
SGD: Final = "sgd"
DEFAULT_LR: Final = {ADAM: 1e-4, SGD: 1e-2}
"""Steps so small that they change probabilities about in proportion to them."""


class Change(NamedTuple):
    """What a step did to a target."""

    log_probability: float
    """Change of the summed log-probability of the target's tokens, in nats."""
    probability: float
    """Change of the probability of the whole target."""


@dataclass(frozen=True)
class _Stepped:
    """A parameter that the step moves, and its weights before."""

    name: str
    parameter: torch.Tensor
    before: torch.Tensor
    layers: tuple[CoveredLayer, ...] = ()
    """The matrices in it, where it has moments."""


class TokenLosses(NamedTuple):
    """What a model makes of the tokens that carry an example's loss."""

    losses: torch.Tensor
    """Cross-entropies (n_loss,) float32, in nats."""
    likeliest: torch.Tensor
    """Whether each is the token that the model finds likeliest there (n_loss,) bool."""


def token_losses(model: Any, example: Example) -> TokenLosses:
    """Return the losses of an example's tokens, each after all before it."""
    ids = torch.tensor([example.token_ids], device=next(model.parameters()).device)
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    losses = functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    return TokenLosses(losses[-example.n_loss :], (logits.argmax(-1) == ids[0, 1:])[-example.n_loss :])


class TailPatch:
    """Takes one step at a time from a model's weights; use it in a with block, which puts them back whatever happens.

    The model is in float32, since a step would be lost in less. Raises ModelMismatchError for another.
    """

    def __init__(self, model: Any, *, lr: float, moments: Moments | None = None) -> None:
        parameters = dict(model.named_parameters())
        if any(parameter.dtype != torch.float32 for parameter in parameters.values()):
            raise ModelMismatchError("a tail-patch needs the model in float32; its steps are lost in less")
        self._model = model
        self.lr = lr
        self._moments = moments
        self._parameters: dict[str, torch.Tensor] = parameters
        self._device = next(model.parameters()).device
        layers: dict[str, list[CoveredLayer]] = {}
        for layer in cover(model, blocks=1).layers if moments else ():
            layers.setdefault(layer.parameter, []).append(layer)
        self._layers = {name: tuple(found) for name, found in layers.items()}
        self.names = [*self._layers] if moments else [*trained_parameters(model)]
        """Names of the parameters that a step moves."""
        self._stepped: list[_Stepped] = []
        self._scales: dict[str, tuple[torch.Tensor, ...]] = {}
        self._log_probabilities: dict[Example, float] = {}
        self._hash = ""

    @property
    def share(self) -> float:
        """Parameters that a step moves, over all that training moved."""
        sizes = trained_parameters(self._model)
        return sum(sizes[name] for name in self.names) / sum(sizes.values())

    def __enter__(self) -> "TailPatch":
        self._hash = weights_hash(self._model)
        self._stepped = [
            _Stepped(name, self._parameters[name], self._parameters[name].detach().clone(), self._layers.get(name, ()))
            for name in self.names
        ]
        self._scales = {layer.name: self._scale(layer) for one in self._stepped for layer in one.layers}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_exception: object) -> None:
        self._put_back()
        self._stepped, self._scales = [], {}
        if weights_hash(self._model) != self._hash and kind is None:
            raise ModelError("the model's weights are not those before the tail-patch; load the model anew")

    def changes(self, passage: Example, targets: Sequence[Example]) -> list[Change]:
        """Step on a passage and return what that does to each target; the weights are the same bits afterwards.

        Raises EncodingError for a passage that has no gradient, or one that is not finite.
        """
        before = [self._before(target) for target in targets]
        with self.stepped(passage):
            after = [self._log_probability(target) for target in targets]
        return [Change(new - old, math.exp(new) - math.exp(old)) for old, new in zip(before, after, strict=True)]

    @contextmanager
    def stepped(self, passage: Example) -> Iterator[None]:
        """Have the model stand one step on a passage further for as long as the context lasts; raises as `changes`."""
        try:
            self._step(passage)
            yield
        finally:
            self._put_back()

    def log_probability(self, target: Example) -> float:
        """Return the summed log-probability of a target's tokens before any step, in nats."""
        return self._before(target)

    def _before(self, target: Example) -> float:
        if target not in self._log_probabilities:
            self._log_probabilities[target] = self._log_probability(target)
        return self._log_probabilities[target]

    @torch.no_grad()
    def _log_probability(self, target: Example) -> float:
        # One at a time: in a batch of other shapes the same target would have other last bits before and after.
        return -float(token_losses(self._model, target).losses.double().sum())

    def _step(self, passage: Example) -> None:
        if passage.n_loss < 1:
            raise EncodingError("a passage of one token has no loss to step on")
        weights = [one.parameter for one in self._stepped]
        with _differentiable(weights), torch.enable_grad():
            loss = token_losses(self._model, passage).losses.mean()
            gradients: Sequence[torch.Tensor | None] = torch.autograd.grad(loss, weights, allow_unused=True)
        if not torch.isfinite(loss):
            raise EncodingError("the loss of a passage is not finite")
        with torch.no_grad():
            for one, gradient in zip(self._stepped, gradients, strict=True):
                if gradient is None:  # an expert that got no token
                    continue
                step = gradient.clone()
                for layer in one.layers:
                    for scale in self._scales[layer.name]:
                        layer.matrix(step).mul_(scale)
                one.parameter.sub_(step, alpha=self.lr)

    def _scale(self, layer: CoveredLayer) -> tuple[torch.Tensor, ...]:
        """Return what a gradient (m, n) is multiplied with to be divided by sqrt(V)."""
        if isinstance(self._moments, FactoredMoments):
            rows, columns = self._moments.inverse_roots(layer.name)
            return rows.to(self._device)[:, None], columns.to(self._device)
        assert self._moments is not None
        return (self._moments.inverse_root(layer.name).to(self._device),)

    @torch.no_grad()
    def _put_back(self) -> None:
        for one in self._stepped:
            one.parameter.copy_(one.before)


@contextmanager
def _differentiable(weights: Sequence[torch.Tensor]) -> Iterator[None]:
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(False)


def weights_hash(model: Any) -> str:
    """Return a hash of the bits of all parameters."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(memoryview(parameter.detach().cpu().contiguous().view(torch.uint8).numpy()).cast("B"))
    return digest.hexdigest()
