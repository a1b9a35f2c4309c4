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
    moments = estimate_moments(checkpoint, some)
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


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_in_bfloat16_an_adapted_head_is_the_head_with_its_adapters(
    add_adapters: Callable[..., Path], settings: EncoderSettings, examples: list[Example]
) -> None:
    path = add_adapters("q_proj", "up_proj", "lm_head")
    exact, rounded = (
        Projector(load_checkpoint(read_facts(path), precision=precision), settings, None).phi(examples[:3])[1]
        for precision in ("float32", "bfloat16")
    )
    torch.testing.assert_close(rounded, exact, rtol=5e-3, atol=0)


def test_tokens_that_were_trained_beside_the_adapters_are_uncovered_and_have_their_place_in_the_optimizer(
    tmp_path: Path, checkpoint_dir: Path
) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[3, 4], init_lora_weights=False)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(checkpoint_dir), config)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for parameter in trained.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.AdamW(trained.values(), betas=(0.0, 0.0))
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    coverage = cover(model, blocks=1)
    [tokens] = coverage.uncovered
    assert "trainable_tokens_delta" in tokens
    moments = read_moments(tmp_path / "optimizer.pt", model, coverage.layers, elementwise=True)
    for layer in coverage.layers:
        gradient = trained[layer.parameter].grad
        assert gradient is not None
        torch.testing.assert_close(moments.values[layer.name], gradient.square())  # type: ignore[union-attr]


OTHER_ADAPTERS: dict[str, Any] = {
    "IA3": peft.IA3Config(target_modules=["q_proj"], feedforward_modules=[]),
    "LOHA": peft.LoHaConfig(r=4, target_modules=["q_proj"]),
    "DoRA": peft.LoraConfig(r=4, target_modules=["q_proj"], use_dora=True),
    "PREFIX_TUNING": peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
}


@pytest.mark.parametrize(("kind", "config"), OTHER_ADAPTERS.items(), ids=OTHER_ADAPTERS)
def test_adapters_of_other_kinds_are_refused(tmp_path: Path, checkpoint_dir: Path, kind: str, config: Any) -> None:
    """Their matrices are none or not seen: the base model's, which nobody trained, would be taken for theirs."""
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(checkpoint_dir), config).save_pretrained(tmp_path)
    facts = read_facts(tmp_path)
    for load in (load_checkpoint, skeleton):
        with pytest.raises(ModelError, match=rf"^the adapters in .* are of the kind {kind}; only LoRA's"):
            load(facts)


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
