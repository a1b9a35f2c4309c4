"""A model with adapters is encoded by the gradients of its adapters, which alone were trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from proponent.encode.checkpoint import load_checkpoint, read_facts, skeleton
from proponent.encode.encoder import Projector, estimate_moments, fit
from proponent.encode.gradients import Example
from proponent.encode.layers import cover, coverage_by_kind
from proponent.encode.moments import read_moments
from proponent.schema.errors import ModelError
from proponent.schema.settings import EncoderSettings


@pytest.fixture
def add_adapters(tmp_path: Path, checkpoint_dir: Path) -> Callable[..., Path]:
    def add(*modules: str, **changes: Any) -> Path:
        base = AutoModelForCausalLM.from_pretrained(checkpoint_dir)
        torch.manual_seed(0)
        # Adapters begin at zero; after training they are not.
        config = peft.LoraConfig(r=4, target_modules=list(modules), init_lora_weights=False)
        peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
        file = tmp_path / "adapter" / "adapter_config.json"
        told = {"base_model_name_or_path": str(checkpoint_dir)} | changes
        file.write_text(json.dumps(json.loads(file.read_text()) | told))
        return tmp_path / "adapter"

    return add


EVERYWHERE = ("q_proj", "v_proj", "up_proj", "down_proj")


@pytest.mark.parametrize("modules", [EVERYWHERE, ("q_proj", "v_proj")], ids=["everywhere", "attention alone"])
def test_phi_is_that_of_the_adapters_gradients(
    add_adapters: Callable[..., Path],
    settings: EncoderSettings,
    exact_phi: Callable[..., torch.Tensor],
    examples: list[Example],
    modules: tuple[str, ...],
) -> None:
    checkpoint = load_checkpoint(read_facts(add_adapters(*modules)))
    some = examples[:3]
    moments = estimate_moments(checkpoint, settings, some)
    projector = Projector(checkpoint, settings, moments)
    assert {layer.parameter.split(".")[-3] for layer in projector.coverage.layers} == {"lora_A", "lora_B"}
    assert len(projector.coverage.layers) == 2 * 3 * len(modules)
    phi, expected = projector.phi(some)[0].double(), exact_phi(checkpoint, settings, moments, some)
    assert float(((phi - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max()) <= 1e-5


def test_groups_without_adapters_are_zero_and_do_not_hinder_the_fit(
    add_adapters: Callable[..., Path], settings: EncoderSettings, examples: list[Example]
) -> None:
    projector = Projector(load_checkpoint(read_facts(add_adapters("q_proj"))), settings, None)
    assert projector.coverage.empty_groups == [1, 3]
    encoder, _ = fit(projector, examples)
    vectors = encoder.encode(examples).vectors.reshape(len(examples), 4, 64)
    assert torch.isfinite(vectors).all()
    assert not vectors[:, [1, 3]].any()
    assert vectors[:, [0, 2]].any(2).all()


def test_the_share_is_that_of_the_adapters(add_adapters: Callable[..., Path]) -> None:
    facts = read_facts(add_adapters(*EVERYWHERE))
    assert facts.architecture == "LlamaForCausalLM with adapters"
    model = skeleton(facts)
    assert cover(model, blocks=1).share == 1
    rows = {row["kind"]: row for row in coverage_by_kind(model)}
    assert rows["frozen base model"]["share"] is None
    assert rows["attention"]["covered"]
    assert rows["MLP"]["covered"]


def test_the_optimizer_of_a_fine_tuning_knows_the_adapters_alone(
    tmp_path: Path, add_adapters: Callable[..., Path]
) -> None:
    model = load_checkpoint(read_facts(add_adapters(*EVERYWHERE))).model
    trained = [(name, parameter) for name, parameter in model.named_parameters() if ".lora_" in name]
    copies = [torch.nn.Parameter(parameter.clone()) for _, parameter in trained]
    for copy in copies:
        copy.grad = torch.randn_like(copy)
    optimizer = torch.optim.AdamW(copies, betas=(0.0, 0.0))
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    moments = read_moments(tmp_path / "optimizer.pt", model, cover(model, blocks=1).layers, elementwise=True)
    for (name, _), copy in zip(trained, copies, strict=True):
        assert copy.grad is not None
        torch.testing.assert_close(moments.values[name], copy.grad.square())  # type: ignore[union-attr]


def test_a_change_of_the_base_model_is_a_change(
    add_adapters: Callable[..., Path], tmp_path: Path, make_checkpoint: Callable[..., Path]
) -> None:
    one = read_facts(add_adapters(*EVERYWHERE))
    other = make_checkpoint(tmp_path / "other", seed=9)
    assert read_facts(add_adapters(*EVERYWHERE, base_model_name_or_path=str(other))).weights_hash != one.weights_hash


def test_a_base_model_that_is_no_folder_is_not_looked_for_on_a_network(add_adapters: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"names 'meta/llama' as its base model, which is no folder"):
        read_facts(add_adapters(*EVERYWHERE, base_model_name_or_path="meta/llama"))


def test_adapters_of_another_model_are_refused(add_adapters: Callable[..., Path]) -> None:
    path = add_adapters(*EVERYWHERE)
    weights = load_file(path / "adapter_model.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="are not those of the model"):
        load_checkpoint(read_facts(path))


def test_pickled_adapters_are_never_loaded(add_adapters: Callable[..., Path]) -> None:
    path = add_adapters(*EVERYWHERE)
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        read_facts(path)
