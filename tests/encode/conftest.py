"""A loaded tiny model, its examples, a fitted encoder, and encodings worked out the long way in float64."""

import copy
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from proponent.encode.checkpoint import Checkpoint, load_checkpoint, read_facts
from proponent.encode.encoder import Encoder, Projector, estimate_moments, fit
from proponent.encode.gradients import Example
from proponent.encode.moments import FactoredMoments
from proponent.encode.projection import gaussian
from proponent.encode.tokens import passage_examples
from proponent.schema.settings import EncoderSettings


@pytest.fixture(scope="session")
def checkpoint(checkpoint_dir: Path) -> Checkpoint:
    return load_checkpoint(read_facts(checkpoint_dir))


@pytest.fixture(scope="session")
def settings() -> EncoderSettings:
    return EncoderSettings(blocks=2, side=8, seed=3)


@pytest.fixture(scope="session")
def examples(checkpoint: Checkpoint, sentences: list[str]) -> list[Example]:
    """Passages of different lengths, and a query whose loss is on its last four tokens."""
    passages = passage_examples(checkpoint.tokenizer, sentences)
    return [*passages[:20], Example(passages[20].token_ids, n_target=4)]


@pytest.fixture(scope="session")
def encoder(checkpoint: Checkpoint, settings: EncoderSettings, sentences: list[str]) -> Encoder:
    """An encoder with estimated second moments, fitted on all sentences."""
    sample = passage_examples(checkpoint.tokenizer, [*sentences, *(text.upper() for text in sentences)])
    moments = estimate_moments(checkpoint, settings, sample)
    return fit(Projector(checkpoint, settings, moments), sample)[0]


@pytest.fixture(scope="session")
def full_gradients() -> Callable[[Any, Sequence[Example]], dict[str, torch.Tensor]]:
    """Every example's gradient of every weight matrix in attention and MLP, (b, m, n) float64, one at a time."""

    def gradients(model: Any, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        model = copy.deepcopy(model).double()
        weights = {
            name: parameter.requires_grad_()
            for name, parameter in model.named_parameters()
            if re.search(r"layers\.\d+\.(self_attn|mlp)\.\w+\.weight", name)
        }
        rows: list[tuple[torch.Tensor, ...]] = []
        for example in examples:
            ids = torch.tensor([example.token_ids])
            losses = functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
            taken = losses if example.n_target is None else losses[-example.n_target :]
            rows.append(torch.autograd.grad(taken.sum(), list(weights.values())))
        return {name: torch.stack(columns) for name, *columns in zip(weights, *rows, strict=True)}

    return gradients


@pytest.fixture(scope="session")
def exact_phi(full_gradients: Callable[..., dict[str, torch.Tensor]]) -> Callable[..., torch.Tensor]:
    """phi (b, groups, s * s) in float64 by the definition: form, correct, project, sum by group."""

    def phi(
        checkpoint: Checkpoint, settings: EncoderSettings, moments: FactoredMoments | None, examples: Sequence[Example]
    ) -> torch.Tensor:
        n_layers = checkpoint.model.config.num_hidden_layers
        side = settings.side
        total = torch.zeros(len(examples), 2 * settings.blocks, side, side, dtype=torch.float64)
        for name, gradient in full_gradients(checkpoint.model, examples).items():
            corrected = gradient
            if moments is not None:
                rows, columns = moments.rows[name].double(), moments.columns[name].double()
                corrected = gradient / (torch.outer(rows, columns) / rows.mean()).sqrt()
            left = gaussian(f"{name}/left", side, gradient.shape[1], seed=settings.seed).double()
            right = gaussian(f"{name}/right", side, gradient.shape[2], seed=settings.seed).double()
            layer = int(name.split(".")[2])
            total[:, 2 * (layer * settings.blocks // n_layers) + (".mlp." in name)] += left @ corrected @ right.T
        return total.flatten(2)

    return phi
