"""Full gradients are those of autograd in float64, corrected by V and neither projected nor whitened."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from proponent.encode.checkpoint import Checkpoint, load_checkpoint, read_facts
from proponent.encode.encoder import Projector, estimate_moments
from proponent.encode.full_gradients import add_scaled, compare, full_gradient, norm
from proponent.encode.gradients import Example
from proponent.encode.layers import cover
from proponent.encode.moments import ElementwiseMoments, Moments
from proponent.schema.settings import EncoderSettings

SOME = ("llama", "llama, tied embeddings", "llama, biases", "gpt2", "mixtral", "gpt-oss")
"""Tied and untied output layers, transposed weights, experts in modules of their own and in one parameter."""


def moments_of(kind: str, projector: Projector, examples: list[Example]) -> Moments | None:
    if kind == "none":
        return None
    if kind == "factored":
        return estimate_moments(projector.checkpoint, examples)
    draw = torch.Generator().manual_seed(1)
    layers = projector.coverage.layers
    return ElementwiseMoments({one.name: torch.rand(one.shape, generator=draw) + 0.1 for one in layers})


def corrected(name: str, gradient: torch.Tensor, moments: Moments | None) -> torch.Tensor:
    """Divide gradients (b, m, n) by sqrt(V), in float64."""
    if isinstance(moments, ElementwiseMoments):
        return gradient / moments.values[name].double().sqrt()
    if moments is None:
        return gradient
    rows, columns = moments.rows[name].double(), moments.columns[name].double()
    if not rows.any():
        return 0 * gradient  # an expert that no example reached
    rows, columns = (side.clamp_min(1e-8 * side.mean()) for side in (rows, columns))
    return gradient / (torch.outer(rows, columns) / rows.mean()).sqrt()


def require_exact(projector: Projector, exact: dict[str, torch.Tensor], examples: list[Example]) -> None:
    """Compare every example with the first, which stands for the query."""
    names = [layer.name for layer in projector.coverage.layers]
    whole = torch.cat([corrected(name, exact[name], projector.moments).flatten(1) for name in names], dim=1)
    query = full_gradient(projector, examples[:2], [0.5, -2.0])
    expected = 0.5 * whole[0] - 2 * whole[1]
    assert [tuple(matrix.shape) for matrix in query] == [layer.shape for layer in projector.coverage.layers]
    found = torch.cat([matrix.flatten() for matrix in query]).double()
    assert float((found - expected).norm() / expected.norm()) <= 1e-5
    assert norm(query) == pytest.approx(float(expected.norm()), rel=1e-5)
    for example, gradient in zip(examples, whole, strict=True):
        dot, length = compare(projector, example, query)
        assert length == pytest.approx(float(gradient.norm()), rel=1e-5)
        cosine = float(gradient @ expected / (gradient.norm() * expected.norm()))
        assert dot / (length * norm(query)) == pytest.approx(cosine, abs=1e-5)


@pytest.mark.parametrize("architecture", SOME)
@pytest.mark.parametrize("kind", ["none", "factored", "elementwise"])
def test_full_gradients_are_autograds(
    make_model: Callable[..., Any],
    make_projector: Callable[..., Projector],
    full_gradients: Callable[..., dict[str, torch.Tensor]],
    examples: list[Example],
    architecture: str,
    kind: str,
) -> None:
    model, some = make_model(architecture), [*examples[:3], examples[-1]]
    plain = make_projector(model)
    projector = make_projector(model, moments_of(kind, plain, some))
    require_exact(projector, full_gradients(model, some), some)


def test_those_of_adapters_are_the_adapters(
    tmp_path: Path,
    checkpoint_dir: Path,
    settings: EncoderSettings,
    full_gradients: Callable[..., dict[str, torch.Tensor]],
    examples: list[Example],
) -> None:
    base = AutoModelForCausalLM.from_pretrained(checkpoint_dir)
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(checkpoint_dir)}))
    checkpoint = load_checkpoint(read_facts(tmp_path / "adapter"))
    some = examples[:3]
    projector = Projector(checkpoint, settings, estimate_moments(checkpoint, some))
    assert all("lora_" in layer.parameter for layer in projector.coverage.layers)
    require_exact(projector, full_gradients(checkpoint.model, some), some)


def test_what_the_encoder_does_not_see_counts_for_nothing(
    checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example]
) -> None:
    projector = Projector(checkpoint, settings, None)
    query = full_gradient(projector, examples[:1], [1.0])
    assert sum(matrix.numel() for matrix in query) == sum(
        layer.size for layer in cover(checkpoint.model, blocks=1).layers
    )


def test_an_example_is_its_own_nearest(
    checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example]
) -> None:
    projector = Projector(checkpoint, settings, None)
    query = full_gradient(projector, examples[4:5], [1.0])
    dot, length = compare(projector, examples[4], query)
    assert dot == pytest.approx(length**2, rel=1e-5)
    cosines = [compare(projector, one, query) for one in examples[:8]]
    assert max(range(8), key=lambda place: cosines[place].dot / cosines[place].norm) == 4


def test_scaled_gradients_add_up(checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example]) -> None:
    projector = Projector(checkpoint, settings, None)
    both = full_gradient(projector, examples[:2], [2.0, -0.5])
    total = None
    for example, scale in zip(examples[:2], [2.0, -0.5], strict=True):
        total = add_scaled(total, full_gradient(projector, [example], [1.0]), scale)
    assert total is not None
    for found, expected in zip(total, both, strict=True):
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_nothing_is_left_behind(checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example]) -> None:
    projector = Projector(checkpoint, settings, None)
    compare(projector, examples[0], full_gradient(projector, examples[:1], [1.0]))
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in checkpoint.model.parameters())
    assert not any(module._forward_hooks for module in checkpoint.model.modules())
