"""The encoder: from examples to reference-whitened encodings, psi(z) = R0^(-1/2) phi(z).

phi(z) = P [grad Loss(z) / sqrt(V)] (arXiv:2410.17413, section 3), with P two-sided and V factored, so that the
correction is folded into the projections and phi comes out of the hooks directly.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from proponent.schema.errors import EncodingError, ModelMismatchError
from proponent.schema.ids import content_id
from proponent.schema.settings import EncoderSettings

from .checkpoint import Checkpoint
from .curvature import SecondMoment, Whitening, apply, diagnostics
from .gradients import Example, MomentSum, ProjectedSum, backpropagate
from .layers import Coverage, cover
from .moments import FactoredMoments, moments_from_sum
from .projection import gaussian

BATCH_TOKENS = 2048
"""Padded tokens of one forward pass."""

_log = logging.getLogger(__name__)


class Encodings(NamedTuple):
    """Encodings of a batch, in the order of the examples."""

    vectors: torch.Tensor
    """psi, (b, d) float32; rows that could not be encoded are not finite or zero."""
    losses: torch.Tensor
    """Summed cross-entropy in nats, (b,) float32."""


class Projector:
    """A model with its corrected projections: gives phi."""

    def __init__(self, checkpoint: Checkpoint, settings: EncoderSettings, moments: FactoredMoments | None) -> None:
        self.checkpoint = checkpoint
        self.settings = settings
        self.moments = moments
        self.coverage: Coverage = cover(checkpoint.model, blocks=settings.blocks)
        self._groups = [layer.group for layer in self.coverage.layers]
        self._left, self._right, self.projection_hash = self._projections()

    def _projections(self) -> tuple[list[torch.Tensor], list[torch.Tensor], str]:
        side, seed = self.settings.side, self.settings.seed
        device = next(self.checkpoint.model.parameters()).device
        left, right, hashes = [], [], []
        for layer in self.coverage.layers:
            n_out, n_in = layer.module.weight.shape
            pair = (
                gaussian(f"{layer.name}/left", side, n_out, seed=seed),
                gaussian(f"{layer.name}/right", side, n_in, seed=seed),
            )
            hashes += [content_id("matrix", matrix.numpy().tobytes()) for matrix in pair]
            if self.moments is not None:
                pair = tuple(  # type: ignore[assignment]
                    matrix * scale for matrix, scale in zip(pair, self.moments.inverse_roots(layer.name), strict=True)
                )
            left.append(pair[0].to(device))
            right.append(pair[1].to(device))
        return left, right, content_id("projection", *hashes)

    def phi(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return phi (b, groups, s * s) and losses (b,) of one batch, float32."""
        visitor = ProjectedSum(self._groups, self._left, self._right, len(examples))
        losses = backpropagate(self.checkpoint.model, self.coverage.layers, examples, visitor)
        return visitor.phi(), losses


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

        An example without a loss, or whose loss is not finite, gets a zero vector or one that is not finite; the
        others are not touched by it. `progress` is told how many examples each step has done.
        """
        vectors = torch.zeros(len(examples), self.projector.settings.dim)
        losses = torch.zeros(len(examples))
        for places in batches(examples):
            phi, loss = self.projector.phi([examples[place] for place in places])
            vectors[places] = apply(self.inverse_root, phi).flatten(1).cpu()
            losses[places] = loss.cpu()
            progress(len(places))
        return Encodings(vectors, losses)


def batches(examples: Sequence[Example], *, max_tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Yield the places of examples that have a loss, grouped by length into batches of at most `max_tokens`."""
    order = sorted(
        (place for place, example in enumerate(examples) if example.n_loss > 0),
        key=lambda place: len(examples[place].token_ids),
    )
    batch: list[int] = []
    for place in order:
        if batch and len(examples[place].token_ids) * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def estimate_moments(checkpoint: Checkpoint, settings: EncoderSettings, examples: Sequence[Example]) -> FactoredMoments:
    """Estimate second moments from a sample of passages, for want of an optimizer's."""
    layers = cover(checkpoint.model, blocks=settings.blocks).layers
    total = MomentSum(layers)
    n_examples = 0
    for places in batches(examples):
        backpropagate(checkpoint.model, layers, [examples[place] for place in places], total)
        n_examples += len(places)
    if not n_examples:
        raise EncodingError("no passage of the sample has a loss to estimate second moments from")
    return moments_from_sum(total, layers, n_examples)


def fit(
    projector: Projector, examples: Sequence[Example], *, progress: Callable[[int], object] = lambda _n: None
) -> tuple[Encoder, dict[str, Any]]:
    """Fit the reference curvature on a sample; return the encoder and the curvature's diagnostics.

    Passages whose gradients are not finite are left out. `progress` is told how many passages each step has done.
    """
    settings = projector.settings
    moment = SecondMoment(2 * settings.blocks, settings.side**2)
    for places in batches(examples):
        phi, _ = projector.phi([examples[place] for place in places])
        moment.add(phi[torch.isfinite(phi).all(2).all(1)])
        progress(len(places))
    curvature, rho = moment.shrunk()
    whitening = Whitening.of(curvature)
    if moment.n_rows < settings.side**2:
        _log.warning(
            "the curvature is fitted on %d passages for %d dimensions a block; a smaller --side may serve better",
            moment.n_rows,
            settings.side**2,
        )
    return Encoder(projector, whitening, whitening.power(-0.5)), diagnostics(moment, rho, whitening)


def encoder_state(encoder: Encoder) -> dict[str, torch.Tensor]:
    """Return everything that was fitted, as tensors for safetensors."""
    state = {"whitening.vectors": encoder.whitening.vectors, "whitening.values": encoder.whitening.values}
    moments = encoder.projector.moments
    if moments is not None:
        state |= {f"{name}.row": tensor for name, tensor in moments.rows.items()}
        state |= {f"{name}.col": tensor for name, tensor in moments.columns.items()}
    return state


def restore_encoder(
    checkpoint: Checkpoint,
    settings: EncoderSettings,
    *,
    moments_kind: str,
    state: dict[str, torch.Tensor],
    projection_hash: str,
) -> Encoder:
    """Make an encoder again from its fitted state.

    Raises ModelMismatchError when this machine does not make the same projections.
    """
    moments = None
    if moments_kind != "none":
        rows = {name.removesuffix(".row"): tensor for name, tensor in state.items() if name.endswith(".row")}
        columns = {name.removesuffix(".col"): tensor for name, tensor in state.items() if name.endswith(".col")}
        moments = FactoredMoments(moments_kind, rows, columns)
    projector = Projector(checkpoint, settings, moments)
    if projector.projection_hash != projection_hash:
        raise ModelMismatchError("the random projections of this machine differ from those that the lake was made with")
    whitening = Whitening(state["whitening.vectors"], state["whitening.values"])
    return Encoder(projector, whitening, whitening.power(-0.5))
