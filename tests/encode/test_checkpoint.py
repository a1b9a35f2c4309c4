"""A checkpoint is loaded only when it is whole, safe and the one that was registered."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from proponent.encode.checkpoint import hash_files, load_checkpoint, load_tokenizer, read_facts
from proponent.schema.errors import ModelError, ModelMismatchError


@pytest.fixture
def copied(tmp_path: Path, checkpoint_dir: Path) -> Path:
    """A checkpoint that the test may spoil."""
    return shutil.copytree(checkpoint_dir, tmp_path / "model")


def change_config(path: Path, **changes: Any) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(path / "model.safetensors")
    change(weights)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def test_facts_are_those_of_the_files(checkpoint_dir: Path) -> None:
    facts = read_facts(checkpoint_dir)
    assert (facts.architecture, facts.n_layers, facts.context_length) == ("LlamaForCausalLM", 3, 64)


def test_a_loaded_model_is_frozen_in_float32_and_evaluation_mode(copied: Path) -> None:
    change_weights(copied, lambda weights: weights.update({k: v.bfloat16() for k, v in weights.items()}))
    change_config(copied, dtype="bfloat16")
    model = load_checkpoint(read_facts(copied)).model
    assert not model.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda path: (path / "config.json").unlink(), "no config.json"),
        (lambda path: (path / "config.json").write_text("{"), "is not JSON"),
        (lambda path: (path / "config.json").write_bytes(b"\xff\xfe"), "is not JSON"),
        (lambda path: (path / "config.json").write_text("[]"), "no JSON object"),
        (lambda path: change_config(path, max_position_embeddings=None), "cannot be read"),
        (lambda path: change_config(path, num_hidden_layers=0), "does not say num_hidden_layers"),
        (lambda path: (path / "model.safetensors").rename(path / "optimizer.safetensors"), "no model.*safetensors"),
        (lambda path: [file.unlink() for file in path.glob("token*")], "has no tokenizer"),
    ],
    ids=["no config", "half a config", "no text", "a list", "no context", "no layers", "no weights", "no tokenizer"],
)
def test_a_folder_that_is_no_usable_checkpoint_is_refused(
    copied: Path, spoil: Callable[[Path], Any], named: str
) -> None:
    spoil(copied)
    with pytest.raises(ModelError, match=named):
        read_facts(copied)


def test_pickled_weights_are_never_loaded(copied: Path) -> None:
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="save the model with safetensors"):
        read_facts(copied)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: change_weights(path, lambda weights: weights["model.norm.weight"].add_(1e-3)),
        lambda path: change_config(path, rms_norm_eps=1e-4),
        lambda path: (path / "tokenizer_config.json").write_text("{}"),
    ],
    ids=["weights", "configuration", "tokenizer"],
)
def test_files_that_changed_since_they_were_registered_are_refused(copied: Path, change: Callable[[Path], Any]) -> None:
    facts = read_facts(copied)
    change(copied)
    with pytest.raises(ModelMismatchError, match="has changed since it was registered"):
        load_checkpoint(facts)


def test_weights_that_are_missing_are_not_filled_with_random_numbers(copied: Path) -> None:
    change_weights(copied, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelError, match=r"lack 1 of the model's weights, model\.layers\.1\.mlp"):
        load_checkpoint(read_facts(copied))


def test_weights_of_another_shape_are_refused(copied: Path) -> None:
    change_weights(copied, lambda weights: weights.update({"model.norm.weight": torch.ones(3)}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_checkpoint(read_facts(copied))


def test_an_unknown_architecture_is_refused(copied: Path) -> None:
    change_config(copied, model_type="nobody_made_this")
    with pytest.raises(ModelError, match="does not recognize this architecture"):
        load_checkpoint(read_facts(copied))


def test_code_that_comes_with_a_checkpoint_is_not_run(copied: Path) -> None:
    (copied / "modeling_evil.py").write_text(
        f"open({str(copied / 'ran')!r}, 'w')\nclass Evil: pass\nclass Config: pass\n"
    )
    change_config(copied, model_type="evil", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Config"})  # fmt: skip # noqa: E501
    with pytest.raises(ModelError, match="cannot be read"):
        load_checkpoint(read_facts(copied))
    assert not (copied / "ran").exists()


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    path = make_checkpoint(tmp_path / "model", vocab_size=300)
    with pytest.raises(ModelMismatchError, match="more tokens than the model's embedding"):
        load_checkpoint(read_facts(path))


def test_a_damaged_tokenizer_is_refused(copied: Path) -> None:
    (copied / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(copied)


def test_hashes_are_of_names_and_contents(tmp_path: Path) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    one.write_bytes(b"x")
    other.write_bytes(b"x")
    before = hash_files([one])
    assert before != hash_files([other])
    one.write_bytes(b"y")
    assert before != hash_files([one])
