"""Second moments are read from whatever training left behind, or refused; estimated ones are the direct means."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers.optimization import Adafactor

from proponent.encode.checkpoint import Checkpoint
from proponent.encode.encoder import estimate_moments
from proponent.encode.gradients import Example
from proponent.encode.layers import CoveredLayer, cover
from proponent.encode.moments import ElementwiseMoments, FactoredMoments, read_moments
from proponent.encode.visitors import MomentSum
from proponent.schema.errors import EncodingError, MomentsError
from proponent.schema.settings import EncoderSettings

Named = list[tuple[str, torch.nn.Parameter]]


@pytest.fixture(scope="module")
def layers(checkpoint: Checkpoint) -> tuple[CoveredLayer, ...]:
    return cover(checkpoint.model, blocks=2).layers


@pytest.fixture(scope="module")
def gradients(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """A made-up gradient of every parameter."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(p.shape, generator=generator) for name, p in checkpoint.model.named_parameters()}


@pytest.fixture
def parameters(checkpoint: Checkpoint, gradients: dict[str, torch.Tensor]) -> dict[str, torch.nn.Parameter]:
    """Copies of the model's parameters, with gradients, for an optimizer to step."""
    copies = {name: torch.nn.Parameter(p.detach().clone()) for name, p in checkpoint.model.named_parameters()}
    for name, parameter in copies.items():
        parameter.grad = gradients[name].clone()
    return copies


def stepped(optimizer: torch.optim.Optimizer, path: Path) -> Path:
    optimizer.step()
    torch.save(optimizer.state_dict(), path)
    return path


def assert_are_means_of(
    moments: FactoredMoments, layers: tuple[CoveredLayer, ...], squares: dict[str, torch.Tensor]
) -> None:
    for layer in layers:
        torch.testing.assert_close(moments.rows[layer.name], squares[layer.name].mean(1))
        torch.testing.assert_close(moments.columns[layer.name], squares[layer.name].mean(0))


def test_adamw_state_in_the_models_order(
    tmp_path: Path,
    checkpoint: Checkpoint,
    layers: tuple[CoveredLayer, ...],
    gradients: dict[str, torch.Tensor],
    parameters: dict[str, torch.nn.Parameter],
) -> None:
    path = stepped(torch.optim.AdamW(parameters.values(), betas=(0.9, 0.95)), tmp_path / "optimizer.pt")
    moments = read_moments(path, checkpoint.model, layers)
    assert moments.kind == "adam-factored"
    assert_are_means_of(moments, layers, {name: 0.05 * gradient.square() for name, gradient in gradients.items()})


def test_adamw_state_in_the_trainers_two_groups(
    tmp_path: Path,
    make_checkpoint: Callable[..., Path],
    checkpoint: Checkpoint,
    layers: tuple[CoveredLayer, ...],
    gradients: dict[str, torch.Tensor],
    parameters: dict[str, torch.nn.Parameter],
) -> None:
    without = [name for name in parameters if "norm" in name or "bias" in name]
    groups = [
        {"params": [parameters[name] for name in parameters if name not in without], "weight_decay": 0.1},
        {"params": [parameters[name] for name in without], "weight_decay": 0.0},
    ]
    path = stepped(torch.optim.AdamW(groups, betas=(0.9, 0.95)), tmp_path / "optimizer.pt")
    moments = read_moments(path, checkpoint.model, layers)
    assert_are_means_of(moments, layers, {name: 0.05 * gradient.square() for name, gradient in gradients.items()})


def test_adamw_state_with_names_in_any_order(
    tmp_path: Path,
    checkpoint: Checkpoint,
    layers: tuple[CoveredLayer, ...],
    gradients: dict[str, torch.Tensor],
    parameters: dict[str, torch.nn.Parameter],
) -> None:
    shuffled: Named = sorted(parameters.items(), key=lambda named: named[0][::-1])
    path = stepped(torch.optim.AdamW(shuffled, betas=(0.9, 0.95)), tmp_path / "optimizer.pt")
    moments = read_moments(path, checkpoint.model, layers)
    assert_are_means_of(moments, layers, {name: 0.05 * gradient.square() for name, gradient in gradients.items()})


def test_adafactor_keeps_its_own_rows_and_columns(
    tmp_path: Path,
    checkpoint: Checkpoint,
    layers: tuple[CoveredLayer, ...],
    parameters: dict[str, torch.nn.Parameter],
    gradients: dict[str, torch.Tensor],
) -> None:
    path = stepped(Adafactor(parameters.values()), tmp_path / "optimizer.pt")
    moments = read_moments(path, checkpoint.model, layers)
    assert moments.kind == "adafactor"
    assert_are_means_of(moments, layers, {name: gradient.square() + 1e-30 for name, gradient in gradients.items()})


def as_tensors(layers: tuple[CoveredLayer, ...]) -> dict[str, torch.Tensor]:
    rows = {f"{layer.name}.row": torch.rand(layer.module.out_features) + 0.1 for layer in layers}
    return rows | {f"{layer.name}.col": torch.rand(layer.module.in_features) + 0.1 for layer in layers}


def test_safetensors_are_taken_as_they_are(
    tmp_path: Path, checkpoint: Checkpoint, layers: tuple[CoveredLayer, ...]
) -> None:
    tensors = as_tensors(layers)
    path = tmp_path / "second_moments.safetensors"
    save_file(tensors | {"unrelated": torch.ones(1)}, path, metadata={"kind": "adafactor"})
    moments = read_moments(path, checkpoint.model, layers)
    assert moments.kind == "adafactor"
    assert moments.rows.keys() == {layer.name for layer in layers}
    assert all(torch.equal(moments.rows[layer.name], tensors[f"{layer.name}.row"]) for layer in layers)
    assert all(torch.equal(moments.columns[layer.name], tensors[f"{layer.name}.col"]) for layer in layers)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda tensors, name: tensors.pop(f"{name}.row"), "no second moments for 1 weights, .*q_proj"),
        (lambda tensors, name: tensors.update({f"{name}.row": torch.ones(3)}), "for shape \\(3, 32\\)"),
        (lambda tensors, name: tensors[f"{name}.col"].fill_(torch.nan), "not finite"),
        (lambda tensors, name: tensors[f"{name}.col"].fill_(torch.inf), "not finite"),
        (lambda tensors, name: tensors[f"{name}.row"][:1].fill_(-1), "negative"),
        (lambda tensors, name: tensors[f"{name}.row"].zero_(), "all zero"),
    ],
    ids=["missing", "another shape", "nan", "infinite", "negative", "zero"],
)
def test_moments_that_cannot_be_are_refused(
    tmp_path: Path,
    checkpoint: Checkpoint,
    layers: tuple[CoveredLayer, ...],
    spoil: Callable[[dict[str, torch.Tensor], str], Any],
    named: str,
) -> None:
    tensors = as_tensors(layers)
    spoil(tensors, layers[0].name)
    save_file(tensors, tmp_path / "moments.safetensors")
    with pytest.raises(MomentsError, match=named):
        read_moments(tmp_path / "moments.safetensors", checkpoint.model, layers)


def test_a_state_of_another_model_is_refused(
    tmp_path: Path, checkpoint: Checkpoint, layers: tuple[CoveredLayer, ...]
) -> None:
    other = torch.nn.Linear(3, 3)
    other(torch.ones(1, 3)).sum().backward()
    path = stepped(torch.optim.AdamW(other.parameters()), tmp_path / "optimizer.pt")
    with pytest.raises(MomentsError, match="not this model's"):
        read_moments(path, checkpoint.model, layers)


def test_an_optimizer_that_never_stepped_has_no_moments(
    tmp_path: Path,
    checkpoint: Checkpoint,
    layers: tuple[CoveredLayer, ...],
    parameters: dict[str, torch.nn.Parameter],
) -> None:
    torch.save(torch.optim.AdamW(parameters.values()).state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(MomentsError, match="no second moments"):
        read_moments(tmp_path / "optimizer.pt", checkpoint.model, layers)


def test_an_optimizer_without_known_second_moments_is_named(
    tmp_path: Path,
    checkpoint: Checkpoint,
    layers: tuple[CoveredLayer, ...],
    parameters: dict[str, torch.nn.Parameter],
) -> None:
    path = stepped(torch.optim.RMSprop(parameters.values()), tmp_path / "optimizer.pt")
    with pytest.raises(MomentsError, match="no second moments of Adam or Adafactor, but square_avg, step"):
        read_moments(path, checkpoint.model, layers)


def test_an_expert_that_training_never_reached_adds_nothing(tmp_path: Path, make_model: Callable[..., Any]) -> None:
    model = make_model("mixtral")
    squares = {f"{name}.full": torch.rand_like(parameter) for name, parameter in model.named_parameters()}
    squares["model.layers.1.mlp.experts.down_proj.full"][2] = 0
    save_file(squares, tmp_path / "moments.safetensors", {"kind": "adam"})
    layers = cover(model, blocks=1).layers
    exact = read_moments(tmp_path / "moments.safetensors", model, layers, elementwise=True)
    factored = read_moments(tmp_path / "moments.safetensors", model, layers)
    assert isinstance(exact, ElementwiseMoments)
    assert isinstance(factored, FactoredMoments)
    unreached = "model.layers.1.mlp.experts.down_proj[2]"
    assert not exact.inverse_root(unreached).any()
    assert not any(side.any() for side in factored.inverse_roots(unreached))
    assert all(exact.inverse_root(layer.name).all() for layer in layers if layer.name != unreached)


def test_a_missing_file_is_named(tmp_path: Path, checkpoint: Checkpoint, layers: tuple[CoveredLayer, ...]) -> None:
    with pytest.raises(MomentsError, match=r"nothing\.pt does not exist"):
        read_moments(tmp_path / "nothing.pt", checkpoint.model, layers)


class Touch:
    """A pickle that makes a file when it is loaded carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_code_in_a_pickle_is_refused_and_not_run(
    tmp_path: Path, checkpoint: Checkpoint, layers: tuple[CoveredLayer, ...], save: Callable[[Any, Path], Any]
) -> None:
    save({"state": Touch(tmp_path / "made"), "param_groups": []}, tmp_path / "optimizer.pt")
    with pytest.raises(MomentsError, match="cannot be loaded safely"):
        read_moments(tmp_path / "optimizer.pt", checkpoint.model, layers)
    assert not (tmp_path / "made").exists()


@given(st.binary(max_size=200), st.sampled_from([".pt", ".safetensors"]))
@example(b"", ".pt")
@example(b"hello", ".pt")
@example(b"\x80\x02", ".pt")
@example(b"PK\x03\x04", ".pt")
@example(b"\xff" * 8, ".safetensors")
def test_any_bytes_at_all_are_refused_with_a_named_error(
    tmp_path: Path, checkpoint: Checkpoint, layers: tuple[CoveredLayer, ...], data: bytes, suffix: str
) -> None:
    path = (tmp_path / "moments").with_suffix(suffix)
    path.write_bytes(data)
    with pytest.raises(MomentsError):
        read_moments(path, checkpoint.model, layers)


@pytest.mark.parametrize(
    "state",
    [
        [1],
        {"state": {}},
        {"state": 1, "param_groups": 2},
        {"state": {0: 1}, "param_groups": []},
        {"state": {}, "param_groups": [1]},
        {"state": {}, "param_groups": [{}]},
        {"state": {}, "param_groups": [{"params": [0], "param_names": []}]},
    ],
    ids=str,
)
def test_a_file_that_is_no_optimizer_state_is_refused(
    tmp_path: Path, checkpoint: Checkpoint, layers: tuple[CoveredLayer, ...], state: Any
) -> None:
    torch.save(state, tmp_path / "optimizer.pt")
    with pytest.raises(MomentsError):
        read_moments(tmp_path / "optimizer.pt", checkpoint.model, layers)


def test_estimated_moments_are_the_means_of_the_squared_gradients(
    checkpoint: Checkpoint,
    settings: EncoderSettings,
    examples: list[Example],
    full_gradients: Callable[..., dict[str, torch.Tensor]],
) -> None:
    moments = estimate_moments(checkpoint, examples[:8])
    assert moments.kind == "estimated"
    for name, gradient in full_gradients(checkpoint.model, examples[:8]).items():
        squares = gradient.square().mean(0)
        torch.testing.assert_close(moments.rows[name].double(), squares.mean(1), rtol=1e-5, atol=0)
        torch.testing.assert_close(moments.columns[name].double(), squares.mean(0), rtol=1e-5, atol=0)


def test_a_gradient_that_is_too_large_to_square_adds_nothing_behind_an_input_of_zero(
    layers: tuple[CoveredLayer, ...],
) -> None:
    """So it is in models with norms behind every part, at a token whose embedding is zero."""
    n_out, n_in = layers[0].shape
    inputs, gradients = torch.ones(1, 2, n_in), torch.full((1, 2, n_out), 2.0)
    inputs[:, 0], gradients[:, 0] = 0, 1e30
    found = MomentSum(layers[:1])
    found.backward(0, found.forward(0, inputs, None), gradients)
    assert (found.rows[0] == 4).all()
    assert (found.columns[0] == 4).all()


def test_nothing_with_a_loss_gives_no_estimate(checkpoint: Checkpoint, settings: EncoderSettings) -> None:
    with pytest.raises(EncodingError, match="no passage"):
        estimate_moments(checkpoint, [Example((3,))])


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_inverse_roots_are_those_of_the_factored_moments(n_out: int, n_in: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.rand(n_out, generator=generator) + 0.01, torch.rand(n_in, generator=generator) + 0.01
    left, right = FactoredMoments("adafactor", {"w": rows}, {"w": columns}).inverse_roots("w")
    expected = (torch.outer(rows, columns) / rows.mean()).rsqrt()
    torch.testing.assert_close(torch.outer(left, right), expected)


def test_a_row_that_no_example_ever_moved_is_not_blown_up_without_bound() -> None:
    rows = torch.tensor([0.0, 1.0])
    left, right = FactoredMoments("adafactor", {"w": rows}, {"w": torch.ones(3)}).inverse_roots("w")
    assert torch.isfinite(left).all()
    assert left.max() <= 1.1e4
    assert torch.isfinite(right).all()


HELD_ELSEWHERE = ["gpt2", "mixtral", "gpt-oss"]
"""Architectures whose weights are transposed, fused by experts, or both."""


@pytest.fixture(scope="module", params=HELD_ELSEWHERE)
def other(request: pytest.FixtureRequest, make_model: Callable[..., Any]) -> Any:
    return make_model(request.param)


@pytest.fixture(scope="module")
def other_gradients(other: Any) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(p.shape, generator=generator) for name, p in other.named_parameters()}


def state_of(optimizer: Callable[..., torch.optim.Optimizer], gradients: dict[str, torch.Tensor], path: Path) -> Path:
    parameters = [torch.nn.Parameter(torch.ones_like(gradient)) for gradient in gradients.values()]
    for parameter, gradient in zip(parameters, gradients.values(), strict=True):
        parameter.grad = gradient.clone()
    return stepped(optimizer(parameters), path)


def squares_by_layer(model: Any, gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The square of each covered matrix's gradient (m, n), by hand."""
    squares = {}
    for layer in cover(model, blocks=2).layers:
        transposed = "transformer.h" in layer.parameter or ("experts" in layer.parameter and "GptOss" in repr(model))
        square = gradients[layer.parameter].square()
        if layer.expert is not None:
            square = square[layer.expert]
        squares[layer.name] = square.T if transposed else square
        assert squares[layer.name].shape == layer.shape
    return squares


OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], str]] = {
    "adamw": (lambda p: torch.optim.AdamW(p, betas=(0.0, 0.0)), "adam-factored"),
    "adafactor of transformers": (Adafactor, "adafactor"),
    "adafactor of torch": (torch.optim.Adafactor, "adafactor"),
}


@pytest.mark.parametrize(("optimizer", "kind"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_moments_of_transposed_and_fused_weights_are_those_of_their_matrices(
    tmp_path: Path,
    other: Any,
    other_gradients: dict[str, torch.Tensor],
    optimizer: Callable[..., torch.optim.Optimizer],
    kind: str,
) -> None:
    layers = cover(other, blocks=2).layers
    moments = read_moments(state_of(optimizer, other_gradients, tmp_path / "optimizer.pt"), other, layers)
    assert isinstance(moments, FactoredMoments)
    assert moments.kind == kind
    for name, square in squares_by_layer(other, other_gradients).items():
        # Each optimizer has its own bias correction, one factor for all: it cancels between rows and columns.
        rows, columns = moments.rows[name], moments.columns[name]
        torch.testing.assert_close(rows / rows.mean(), square.mean(1) / square.mean(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(columns / columns.mean(), square.mean(0) / square.mean(), rtol=1e-4, atol=1e-6)


def test_moments_of_every_weight_are_taken_as_they_are(
    tmp_path: Path, other: Any, other_gradients: dict[str, torch.Tensor]
) -> None:
    layers = cover(other, blocks=2).layers
    path = state_of(OPTIMIZERS["adamw"][0], other_gradients, tmp_path / "optimizer.pt")
    moments = read_moments(path, other, layers, elementwise=True)
    assert isinstance(moments, ElementwiseMoments)
    for name, square in squares_by_layer(other, other_gradients).items():
        torch.testing.assert_close(moments.values[name], square)
        torch.testing.assert_close(moments.inverse_root(name), square.clamp_min(square.mean() * 1e-8).rsqrt())


def test_moments_of_every_weight_may_come_from_safetensors(
    tmp_path: Path, other: Any, other_gradients: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "second_moments.safetensors"
    save_file({f"{name}.full": gradient.square() for name, gradient in other_gradients.items()}, path, {"kind": "adam"})
    layers = cover(other, blocks=2).layers
    factored = read_moments(path, other, layers)
    exact = read_moments(path, other, layers, elementwise=True)
    assert (factored.kind, exact.kind) == ("adam-factored", "adam")
    assert isinstance(exact, ElementwiseMoments)
    for name, square in squares_by_layer(other, other_gradients).items():
        torch.testing.assert_close(exact.values[name], square)


def test_moments_by_rows_and_columns_are_not_taken_for_those_of_every_weight(
    tmp_path: Path, checkpoint: Checkpoint, layers: tuple[CoveredLayer, ...], gradients: dict[str, torch.Tensor]
) -> None:
    path = state_of(OPTIMIZERS["adafactor of torch"][0], gradients, tmp_path / "optimizer.pt")
    with pytest.raises(MomentsError, match="by rows and columns alone"):
        read_moments(path, checkpoint.model, layers, elementwise=True)


def test_estimated_moments_of_transposed_and_fused_weights_are_the_means_of_the_squared_gradients(
    other: Any,
    make_projector: Callable[..., Any],
    settings: EncoderSettings,
    examples: list[Example],
    full_gradients: Callable[..., dict[str, torch.Tensor]],
) -> None:
    some = examples[:4]
    moments = estimate_moments(make_projector(other).checkpoint, some)
    for name, gradient in full_gradients(other, some).items():
        square = gradient.square().mean(0).float()
        torch.testing.assert_close(moments.rows[name], square.mean(1), rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(moments.columns[name], square.mean(0), rtol=1e-4, atol=1e-9)
