"""The encoder: from examples to reference-whitened encodings, psi(z) = R0^(-1/2) phi(z).

phi(z) = P [grad Loss(z) / sqrt(V)] (arXiv:2410.17413, section 3), with P two-sided. Where V is factored the correction
is folded into the projections, and phi comes out of the hooks directly.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from proponent.observe.events import span
from proponent.schema.errors import EncodingError, ModelMismatchError
from proponent.schema.ids import content_id
from proponent.schema.settings import EncoderSettings

from .batches import TokenBudget, in_batches
from .checkpoint import Checkpoint
from .curvature import SecondMoment, Whitening, apply, diagnostics
from .gradients import Example, backpropagate
from .layers import Coverage, cover
from .moments import ElementwiseMoments, FactoredMoments, Moments, moments_from_sum
from .projection import gaussian
from .spread import main_device
from .visitors import ElementwiseSum, MomentSum, ProjectedSum, TokenShares

LEAST_COVERED = 0.5
"""Share of the parameters below which an encoder warns."""

_WHITENED_AT_ONCE = 256
"""Many rows at once make good use of every matrix that is read; batches are too small for that."""

_log = logging.getLogger(__name__)


class Encodings(NamedTuple):
    """Encodings of a batch, in the order of the examples."""

    vectors: torch.Tensor
    """psi, (b, d) float32; rows that could not be encoded are not finite or zero."""
    losses: torch.Tensor
    """Summed cross-entropy in nats, (b,) float32."""


class Projector:
    """A model with its corrected projections: gives phi."""

    def __init__(self, checkpoint: Checkpoint, settings: EncoderSettings, moments: Moments | None) -> None:
        self.checkpoint = checkpoint
        self.settings = settings.of_layers(checkpoint.facts.n_layers)
        self.moments = moments
        self.coverage: Coverage = cover(checkpoint.model, blocks=self.settings.blocks)
        self.budget = TokenBudget()
        self.device = main_device(checkpoint.model)
        self._groups = [layer.group for layer in self.coverage.layers]
        self._left, self._right, self.projection_hash = self._projections()
        # 1 / sqrt(V) (m, n) of every layer, where V does not factor.
        self.scales: list[torch.Tensor] | None = None
        if isinstance(moments, ElementwiseMoments):
            self.scales = [moments.inverse_root(layer.name).to(self.device) for layer in self.coverage.layers]

    def _projections(self) -> tuple[list[torch.Tensor], list[torch.Tensor], str]:
        side, seed = self.settings.side, self.settings.seed
        left, right, hashes = [], [], []
        for layer in self.coverage.layers:
            n_out, n_in = layer.shape
            pair = (
                gaussian(f"{layer.name}/left", side, n_out, seed=seed),
                gaussian(f"{layer.name}/right", side, n_in, seed=seed),
            )
            hashes += [content_id("matrix", matrix.numpy().tobytes()) for matrix in pair]
            if isinstance(self.moments, FactoredMoments):
                pair = tuple(  # type: ignore[assignment]
                    matrix * scale for matrix, scale in zip(pair, self.moments.inverse_roots(layer.name), strict=True)
                )
            left.append(pair[0].to(self.device))
            right.append(pair[1].to(self.device))
        return left, right, content_id("projection", *hashes)

    def phi(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return phi (b, groups, s * s) and losses (b,) of one batch, float32."""
        shape = (2 * self.settings.blocks, len(examples))
        visitor = (
            ProjectedSum(self._groups, self._left, self._right, shape)
            if self.scales is None
            else ElementwiseSum(self._groups, self._left, self._right, shape, self.scales)
        )
        losses = backpropagate(self.checkpoint.model, self.coverage.layers, examples, visitor)
        return visitor.phi(), losses

    def token_shares(self, example: Example, weights: torch.Tensor) -> torch.Tensor:
        """Return what each token, as an input, contributes to <weights, phi> of one example, (n_tokens,) float64.

        `weights` is (groups, s * s). Raises ModelMismatchError for a model whose layers hide which tokens they see.
        """
        if self.coverage.one_by_one:
            raise ModelMismatchError(
                "this model's experts do not tell which tokens they see; its tokens have no shares"
            )
        side = self.settings.side
        visitor = TokenShares(
            self._groups,
            self._left,
            self._right,
            weights.reshape(-1, side, side).to(self.device),
            n_tokens=len(example.token_ids),
            scales=self.scales,
        )
        backpropagate(self.checkpoint.model, self.coverage.layers, [example], visitor)
        return visitor.shares


@dataclass(frozen=True)
class Encoder:
    """A projector with its whitening: gives psi."""

    projector: Projector
    whitening: Whitening
    inverse_root: torch.Tensor
    """R0^(-1/2), (groups, s * s, s * s) float32."""

    @property
    def context_length(self) -> int:
        """Most tokens that the model reads at once."""
        return self.projector.checkpoint.facts.context_length

    def encode(self, examples: Sequence[Example], *, progress: Callable[[int], object] = lambda _n: None) -> Encodings:
        """Encode examples of any number and length, whatever batches they end up in.

        An example that has no loss or that the model cannot read gets a zero vector, one whose loss is not finite a
        vector that is not; the others are not touched by it. `progress` is told how many examples each step has done.
        """
        projector = self.projector
        vectors = torch.zeros(len(examples), projector.settings.dim, device=projector.device)
        losses = torch.zeros(len(examples))
        sound = [example if self.can_read(example) else Example(()) for example in examples]
        budget, one_by_one = projector.budget, projector.coverage.one_by_one
        with span("model", examples=len(examples)):
            for places, (phi, loss) in in_batches(sound, projector.phi, budget=budget, one_by_one=one_by_one):
                vectors[places] = phi.flatten(1)
                losses[places] = loss.cpu()
                progress(len(places))
            for some in torch.split(vectors, _WHITENED_AT_ONCE):
                some.copy_(self._whitened(some))
        return Encodings(vectors.cpu(), losses)

    def _whitened(self, phi: torch.Tensor) -> torch.Tensor:
        """Return R0^(-1/2) phi of vectors (b, d)."""
        n_groups, size = self.inverse_root.shape[:2]
        return apply(self.inverse_root, phi.view(len(phi), n_groups, size)).flatten(1)

    def can_read(self, example: Example) -> bool:
        """Whether the example fits the model's context and has no tokens outside its vocabulary."""
        vocabulary = self.projector.checkpoint.model.get_input_embeddings().num_embeddings
        ids = example.token_ids
        return len(ids) <= self.context_length and all(0 <= token < vocabulary for token in ids)

    def token_shares(self, example: Example, vector: torch.Tensor) -> torch.Tensor:
        """Return what each token of an example contributes to <vector, psi>, (n_tokens,) float64; vector is (d,).

        The shares are those of positions as inputs, through everything that was computed from them in one layer after
        the other; they add up to the dot product.
        """
        groups = vector.reshape(1, len(self.whitening.values), -1).to(self.inverse_root)
        return self.projector.token_shares(example, apply(self.inverse_root, groups)[0])


def estimate_moments(checkpoint: Checkpoint, examples: Sequence[Example]) -> FactoredMoments:
    """Estimate second moments from a sample of passages, for want of an optimizer's."""
    coverage = cover(checkpoint.model, blocks=1)
    layers = coverage.layers

    def moments_of(some: Sequence[Example]) -> MomentSum:
        found = MomentSum(layers)
        backpropagate(checkpoint.model, layers, some, found)
        found.n_examples = len(some)
        return found

    total = MomentSum(layers)
    for _, found in in_batches(examples, moments_of, budget=TokenBudget(), one_by_one=coverage.one_by_one):
        total.merge(found)
    if not total.n_examples:
        raise EncodingError("no passage of the sample has a loss to estimate second moments from")
    return moments_from_sum(total, layers)


def fit(
    projector: Projector, examples: Sequence[Example], *, progress: Callable[[int], object] = lambda _n: None
) -> tuple[Encoder, dict[str, Any]]:
    """Fit the reference curvature on a sample; return the encoder and the curvature's diagnostics.

    Passages whose gradients are not finite are left out. `progress` is told how many passages each step has done.
    """
    settings, coverage = projector.settings, projector.coverage
    moment = SecondMoment(2 * settings.blocks, settings.side**2, device=projector.device)
    for places, (phi, _) in in_batches(
        examples, projector.phi, budget=projector.budget, one_by_one=coverage.one_by_one
    ):
        moment.add(phi[torch.isfinite(phi).all(2).all(1)])
        progress(len(places))
    curvature, rho = moment.shrunk()
    # A group without a matrix has no gradient to whiten.
    curvature[coverage.empty_groups] = torch.eye(settings.side**2).to(curvature)
    whitening = Whitening.of(curvature)
    _warn(moment.n_rows, settings, coverage)
    return Encoder(projector, whitening, whitening.power(-0.5).to(projector.device)), diagnostics(
        moment, rho, whitening
    )


def _warn(n_rows: int, settings: EncoderSettings, coverage: Coverage) -> None:
    if n_rows < settings.side**2:
        _log.warning(
            "the curvature is fitted on %d passages for %d dimensions a block; a smaller --side may serve better",
            n_rows,
            settings.side**2,
        )
    if coverage.share < LEAST_COVERED:
        _log.warning(
            "the encoder sees %.1f %% of the model's parameters; `proponent model show` says which it does not",
            100 * coverage.share,
        )


def encoder_state(encoder: Encoder) -> dict[str, torch.Tensor]:
    """Return everything that was fitted, as tensors for safetensors."""
    state = {"whitening.vectors": encoder.whitening.vectors, "whitening.values": encoder.whitening.values}
    moments = encoder.projector.moments
    if isinstance(moments, FactoredMoments):  # those of every single weight stay in their file
        state |= {f"{name}.row": tensor for name, tensor in moments.rows.items()}
        state |= {f"{name}.col": tensor for name, tensor in moments.columns.items()}
    return state


def restore_whitening(state: dict[str, torch.Tensor]) -> Whitening:
    """Return the whitening that is part of an encoder's fitted state."""
    return Whitening(state["whitening.vectors"], state["whitening.values"])


def factored_moments(kind: str, state: dict[str, torch.Tensor]) -> FactoredMoments:
    """Return the factored moments that are part of an encoder's fitted state."""
    rows = {name.removesuffix(".row"): tensor for name, tensor in state.items() if name.endswith(".row")}
    columns = {name.removesuffix(".col"): tensor for name, tensor in state.items() if name.endswith(".col")}
    return FactoredMoments(kind, rows, columns)


def restore_encoder(
    checkpoint: Checkpoint,
    settings: EncoderSettings,
    *,
    moments: Moments | None,
    state: dict[str, torch.Tensor],
    projection_hash: str,
) -> Encoder:
    """Make an encoder again from its fitted state and its moments.

    Raises ModelMismatchError when this machine does not make the same projections.
    """
    projector = Projector(checkpoint, settings, moments)
    if projector.projection_hash != projection_hash:
        raise ModelMismatchError("the random projections of this machine differ from those that the lake was made with")
    whitening = restore_whitening(state)
    return Encoder(projector, whitening, whitening.power(-0.5).to(projector.device))
