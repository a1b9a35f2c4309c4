"""Encodings of every promised architecture are what their definition says, whatever company an example is in."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from proponent.encode.causality import require_causal
from proponent.encode.encoder import Projector, estimate_moments, fit
from proponent.encode.gradients import Example
from proponent.encode.layers import cover, freeze
from proponent.encode.moments import ElementwiseMoments
from proponent.schema.errors import ModelMismatchError
from proponent.schema.settings import EncoderSettings

LINEAR = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
GATED = [*LINEAR, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
FUSED = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
SHARED = [f"mlp.shared_expert{part}" for part in (".gate_proj", ".up_proj", ".down_proj", "_gate")]
NEOX = ["attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]
COVERED = {
    "phi3": ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"],
    "gpt2": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
    "gpt-neox": NEOX,
    "bloom": ["self_attention.query_key_value", "self_attention.dense", *NEOX[2:]],
    "opt": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2"],
    "mixtral": [*LINEAR, *FUSED],
    "qwen2-moe": [*LINEAR, *FUSED, *SHARED],
    "qwen3-moe": [*LINEAR, *FUSED],
    "gpt-oss": [*LINEAR, *FUSED],
    "phimoe": [*LINEAR, *FUSED],
    "falcon": ["self_attention.query_key_value", "self_attention.dense", *NEOX[2:]],
}
"""Matrices of one layer by architecture; those that are not named here have Llama's."""
WITHOUT_SDPA = {"gemma2", "bloom", "gpt-oss"}
ROUTED = {"mixtral", "qwen2-moe", "qwen3-moe", "gpt-oss", "phimoe"}


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the largest error of a row, relative to the row's norm."""
    found, exact = found.double().flatten(1), exact.double().flatten(1)
    return float(((found - exact).norm(dim=1) / exact.norm(dim=1)).max())


@pytest.fixture(scope="module")
def model(architecture: str, make_model: Callable[..., Any]) -> Any:
    return make_model(architecture)


@pytest.fixture(scope="module")
def some(examples: list[Example]) -> list[Example]:
    """Passages of different lengths, one of them twice, and a query."""
    return [*examples[:3], examples[1], examples[-1]]


@pytest.fixture(scope="module")
def projector(
    model: Any, make_projector: Callable[..., Projector], settings: EncoderSettings, some: list[Example]
) -> Projector:
    """A projector with second moments, as TrackStar has."""
    bare = make_projector(model)
    return make_projector(model, estimate_moments(bare.checkpoint, some))


@pytest.fixture(scope="module")
def exact(projector: Projector, exact_phi: Callable[..., torch.Tensor], some: list[Example]) -> torch.Tensor:
    return exact_phi(projector.checkpoint, projector.settings, projector.moments, some)


def test_every_matrix_of_attention_and_mlp_is_covered(architecture: str, model: Any) -> None:
    coverage = cover(model, blocks=2)
    found = {layer.parameter.split(".1.", 1)[1] for layer in coverage.layers if ".1." in layer.parameter}
    expected = {name if "experts." in name else f"{name}.weight" for name in COVERED.get(architecture, GATED)}
    assert found == expected
    left_out = [name for name, parameter in model.named_parameters() if parameter.ndim > 1 and ".1." in name]
    routers = {name for name in left_out if name not in {layer.parameter for layer in coverage.layers}}
    assert all(name.endswith(("mlp.gate.weight", "mlp.router.weight", "proj_bias")) for name in routers)


def test_it_is_known_to_be_causal(model: Any) -> None:
    require_causal(model)
    assert not any(module._forward_hooks for module in model.modules())


def test_phi_is_the_projection_of_the_full_corrected_gradient(
    projector: Projector, exact: torch.Tensor, some: list[Example]
) -> None:
    assert relative_error(projector.phi(some)[0], exact) <= 1e-5


def test_phi_without_second_moments_is_the_projection_of_the_full_gradient(
    model: Any, make_projector: Callable[..., Projector], exact_phi: Callable[..., torch.Tensor], some: list[Example]
) -> None:
    projector = make_projector(model)
    assert (
        relative_error(projector.phi(some)[0], exact_phi(projector.checkpoint, projector.settings, None, some)) <= 1e-5
    )


def test_phi_under_moments_of_every_weight_is_the_projection_of_the_full_corrected_gradient(
    model: Any, make_projector: Callable[..., Projector], exact_phi: Callable[..., torch.Tensor], some: list[Example]
) -> None:
    generator = torch.Generator().manual_seed(0)
    values = {
        layer.name: torch.rand(layer.shape, generator=generator).square() + 1e-3
        for layer in cover(model, blocks=2).layers
    }
    projector = make_projector(model, ElementwiseMoments(values))
    expected = exact_phi(projector.checkpoint, projector.settings, projector.moments, some)
    assert relative_error(projector.phi(some)[0], expected) <= 1e-5


def test_psi_is_the_whitened_phi(
    projector: Projector, exact: torch.Tensor, some: list[Example], examples: list[Example]
) -> None:
    encoder, _ = fit(projector, examples)
    vectors, values = encoder.whitening.vectors.double(), encoder.whitening.values
    root = vectors * values.pow(-0.5)[:, None, :] @ vectors.transpose(1, 2)
    expected = torch.einsum("gij,bgj->bgi", root, exact)
    assert relative_error(encoder.encode(some).vectors, expected) <= 1e-5


def test_sdpa_attention_gives_the_same_as_eager(
    architecture: str,
    make_model: Callable[..., Any],
    make_projector: Callable[..., Projector],
    projector: Projector,
    exact: torch.Tensor,
    some: list[Example],
) -> None:
    if architecture in WITHOUT_SDPA:
        pytest.skip("transformers has no SDPA attention for it")
    other = make_projector(make_model(architecture, attention="sdpa"), projector.moments)
    assert relative_error(other.phi(some)[0], exact) <= 1e-5


def test_an_encoding_does_not_depend_on_its_batch(projector: Projector, some: list[Example]) -> None:
    alone = torch.cat([projector.phi([example])[0] for example in some])
    longest = Example(tuple(range(2, 66)))
    assert relative_error(projector.phi([some[0], longest])[0][:1], alone[:1]) <= 1e-5
    assert relative_error(projector.phi(some[::-1])[0].flip(0), alone) <= 1e-5


def test_bfloat16_is_exact_to_its_own_precision(
    architecture: str,
    make_model: Callable[..., Any],
    make_projector: Callable[..., Projector],
    exact_phi: Callable[..., torch.Tensor],
    some: list[Example],
) -> None:
    """Over all examples, with weights of the usual spread, where rounding cannot choose a route or a side of ReLU."""
    config: dict[str, Any] = {"num_experts_per_tok": 4} if architecture in ROUTED else {}
    if architecture == "opt":
        config = {"activation_function": "gelu"}
    projector = make_projector(make_model(architecture, spread=0.02, **config).bfloat16())
    expected = exact_phi(projector.checkpoint, projector.settings, None, some)
    found = projector.phi(some)[0].double().flatten(1)
    assert float((found - expected.flatten(1)).norm() / expected.norm()) <= 2e-2


def test_the_shares_of_tokens_add_up_to_the_score(
    projector: Projector, some: list[Example], examples: list[Example]
) -> None:
    encoder, _ = fit(projector, examples)
    found = encoder.encode(some).vectors
    query = found[-1] / found[-1].norm()
    for example, vector in zip(some[:3], found, strict=False):
        shares = encoder.token_shares(example, query) / vector.norm()
        assert shares.shape == (len(example.token_ids),)
        assert shares.sum() == pytest.approx(float(query @ vector / vector.norm()), abs=1e-5)


def test_a_tokens_share_is_that_of_its_position_in_every_layers_input(
    make_model: Callable[..., Any], make_projector: Callable[..., Projector], examples: list[Example]
) -> None:
    projector = make_projector(make_model("llama"))
    weights = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    found = projector.token_shares(examples[0], weights)

    layers = projector.coverage.layers
    inputs, outputs = [torch.empty(0)] * len(layers), [torch.empty(0)] * len(layers)
    model = copy.deepcopy(projector.checkpoint.model).requires_grad_(True)

    def remember(index: int, module: nn.Module, given: tuple[torch.Tensor], output: torch.Tensor) -> None:
        output.retain_grad()
        inputs[index], outputs[index] = given[0].detach(), output

    for index, layer in enumerate(layers):
        module = model.get_submodule(layer.parameter.removesuffix(".weight"))
        module.register_forward_hook(partial(remember, index))
    ids = torch.tensor([examples[0].token_ids])
    functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum").backward()
    expected = torch.zeros(ids.shape[1])
    for index, layer in enumerate(layers):
        y = outputs[index].grad[0] @ projector._left[index].T  # type: ignore[index]
        x = inputs[index][0] @ projector._right[index].T
        expected += torch.einsum("ti,ij,tj->t", y, weights[layer.group].reshape(8, 8), x).detach()
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert found[-1] == 0  # nothing that has a loss reads the last token


def test_gradient_checkpointing_changes_nothing(
    make_model: Callable[..., Any], make_projector: Callable[..., Projector], some: list[Example]
) -> None:
    model = make_model("llama")
    expected, _ = make_projector(model).phi(some)
    model.activation_checkpointing_enable()
    torch.testing.assert_close(make_projector(model).phi(some)[0], expected)
    model.train()  # transformers recomputes activations in this mode alone; the model has no dropout
    torch.testing.assert_close(make_projector(model).phi(some)[0], expected)


class Expert(nn.Module):
    """One expert as a module of its own, as checkpoints had them before they were fused."""

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor) -> None:
        super().__init__()
        self.gate_up = nn.Linear(gate_up.shape[1], gate_up.shape[0], bias=False)
        self.down = nn.Linear(down.shape[1], down.shape[0], bias=False)
        self.gate_up.weight.data, self.down.weight.data = gate_up, down

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(states).chunk(2, dim=-1)
        hidden: torch.Tensor = self.down(functional.silu(gate) * up)
        return hidden


class Experts(nn.ModuleList):
    """A list of experts, each of which sees the tokens that were routed to it and not whose they are."""

    def forward(self, states: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(states)
        for index, expert in enumerate(self):
            rows, slots = torch.where(chosen == index)
            if len(rows):
                total = total.index_add(0, rows, expert(states[rows]) * weights[rows, slots, None])
        return total


def test_experts_as_modules_are_exact_too(
    make_model: Callable[..., Any],
    make_projector: Callable[..., Projector],
    settings: EncoderSettings,
    exact_phi: Callable[..., torch.Tensor],
    some: list[Example],
    examples: list[Example],
) -> None:
    model = make_model("mixtral")
    for layer in model.model.layers:
        fused = layer.mlp.experts
        pairs = zip(fused.gate_up_proj.data, fused.down_proj.data, strict=True)
        layer.mlp.experts = Experts(Expert(up, down) for up, down in pairs)
    freeze(model)
    projector = make_projector(model)
    assert projector.coverage.one_by_one
    expected = exact_phi(projector.checkpoint, settings, None, some)
    encoder, _ = fit(projector, examples)
    identity = torch.eye(64).expand(4, -1, -1)
    found = replace(encoder, inverse_root=identity).encode(some).vectors
    assert relative_error(found, expected) <= 1e-5
    moments = estimate_moments(projector.checkpoint, some)
    assert len(moments.rows) == len(projector.coverage.layers)
    with pytest.raises(ModelMismatchError, match="does not see every token of a batch"):
        projector.phi(some)  # several at once would mix their gradients
    with pytest.raises(ModelMismatchError, match="tokens have no shares"):
        projector.token_shares(some[0], torch.ones(4, 64))


def test_a_layer_that_the_model_passes_by_is_an_error(
    make_model: Callable[..., Any], make_projector: Callable[..., Projector], some: list[Example]
) -> None:
    model = make_model("llama")
    mlp = model.model.layers[1].mlp
    mlp.forward = lambda states: states @ mlp.up_proj.weight.T @ mlp.down_proj.weight.T
    with pytest.raises(ModelMismatchError, match=r"without calling 3 layers, model\.layers\.1\.mlp\.gate_proj"):
        make_projector(model).phi(some)


def test_a_layer_that_is_applied_twice_is_an_error(
    make_model: Callable[..., Any], make_projector: Callable[..., Projector], some: list[Example]
) -> None:
    """Its squared gradient is not the sum of two squares, which is what second moments would be estimated from."""
    model = make_model("llama")
    up = model.model.layers[1].mlp.up_proj
    model.model.layers[1].mlp.forward = lambda states: up(up(states)[..., :32])[..., :32]
    with pytest.raises(ModelMismatchError, match=r"applies model\.layers\.1\.mlp\.up_proj\.weight several times"):
        make_projector(model).phi(some)


def test_experts_run_as_before_once_a_pass_is_over(
    make_projector: Callable[..., Projector], make_model: Callable[..., Any], some: list[Example]
) -> None:
    model = make_model("mixtral")
    ids = torch.tensor([some[0].token_ids])
    before = model(ids).logits
    make_projector(model).phi(some)
    assert torch.equal(model(ids).logits, before)
    assert not any("forward" in vars(module) for module in model.modules())


def test_an_expert_that_no_example_of_the_sample_reached_adds_nothing(
    make_model: Callable[..., Any],
    make_projector: Callable[..., Projector],
    settings: EncoderSettings,
    some: list[Example],
) -> None:
    model = make_model("mixtral", num_local_experts=16, num_experts_per_tok=1)
    bare = make_projector(model)
    moments = estimate_moments(bare.checkpoint, some[:1])
    unreached = [name for name, rows in moments.rows.items() if not rows.any()]
    assert unreached
    assert torch.isfinite(make_projector(model, moments).phi(some)[0]).all()
