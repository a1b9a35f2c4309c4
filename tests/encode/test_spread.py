"""A model whose layers lie elsewhere, on disk, gives the same encodings to the last bit, and few weights at a time."""

import gc
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook

from proponent.encode.checkpoint import Checkpoint, load_checkpoint, read_facts
from proponent.encode.encoder import Projector, estimate_moments, fit
from proponent.encode.gradients import backpropagate
from proponent.encode.layers import cover
from proponent.encode.tokens import completion, passage_examples
from proponent.schema.errors import ModelError
from proponent.schema.settings import EncoderSettings

SETTINGS = EncoderSettings(moments="estimated", blocks=1, side=8)
HALF = {
    "model.embed_tokens": "cpu",
    "model.rotary_emb": "cpu",
    "model.layers.0": "disk",
    "model.layers.1": "cpu",
    "model.layers.2": "disk",
    "model.norm": "cpu",
    "lm_head": "cpu",
}
ALL = {"": "disk"}


def loaded(path: Path, device_map: Any = None, precision: str = "float32") -> Checkpoint:
    return load_checkpoint(read_facts(path), precision=precision, device_map=device_map)


def everything(checkpoint: Checkpoint, sentences: list[str]) -> list[torch.Tensor]:
    """What an encoder makes of some sentences, fitted on them."""
    examples = passage_examples(checkpoint.tokenizer, sentences)
    moments = estimate_moments(checkpoint, examples)
    encoder, _ = fit(Projector(checkpoint, SETTINGS, moments), examples)
    encoded = encoder.encode(examples)
    shares = encoder.token_shares(examples[0], encoded.vectors[1])
    return [encoded.vectors, encoded.losses, encoder.inverse_root, shares]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("device_map", [HALF, ALL, "auto"], ids=["half on disk", "all on disk", "auto"])
def test_encodings_are_the_same_wherever_weights_lie(
    checkpoint_dir: Path, sentences: list[str], device_map: Any, precision: str
) -> None:
    wanted = everything(loaded(checkpoint_dir, precision=precision), sentences)
    spread = loaded(checkpoint_dir, device_map, precision)
    if device_map != "auto":
        assert any(parameter.is_meta for parameter in spread.model.parameters())
    for one, other in zip(wanted, everything(spread, sentences), strict=True):
        assert torch.equal(one, other)
    whole, few = loaded(checkpoint_dir, precision=precision), {"context_length": 64, "max_tokens": 8}
    assert completion(spread.model, spread.tokenizer, "The capital of", **few) == completion(
        whole.model, whole.tokenizer, "The capital of", **few
    )


def test_experts_too(tmp_path: Path, make_checkpoint: Callable[..., Path], sentences: list[str]) -> None:
    path = make_checkpoint(tmp_path / "model", architecture="Mixtral", num_local_experts=3)
    wanted = everything(loaded(path), sentences[:8])
    for one, other in zip(wanted, everything(loaded(path, ALL), sentences[:8]), strict=True):
        assert torch.equal(one, other)


def test_weights_that_were_fetched_are_not_kept_until_gradients_come_back(
    checkpoint_dir: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = loaded(checkpoint_dir, ALL)
    fetched: list[weakref.ref[torch.Tensor]] = []
    before = AlignDevicesHook.pre_forward

    def watched(hook: AlignDevicesHook, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        moved = before(hook, module, *args, **kwargs)
        if hook.offload:
            fetched.extend(weakref.ref(weight.untyped_storage()) for weight in module.parameters(recurse=False))
        return moved

    monkeypatch.setattr(AlignDevicesHook, "pre_forward", watched)

    alive: list[int] = []

    class Counts:
        def forward(self, index: int, inputs: torch.Tensor, tokens: Any) -> None:
            return None

        def backward(self, index: int, kept: Any, gradients: torch.Tensor) -> None:
            alive.append(sum(one() is not None for one in fetched))

    layers = cover(checkpoint.model, blocks=1).layers
    backpropagate(checkpoint.model, layers, passage_examples(checkpoint.tokenizer, sentences[:4]), Counts())
    assert len(fetched) > len(layers)
    assert len(alive) == len(layers)
    assert max(alive) <= 2


def test_what_cannot_be_spread_is_told_and_nothing_is_left_behind(
    tmp_path: Path, checkpoint_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ModelError, match="cannot be loaded"):
        loaded(checkpoint_dir, "anyhow")
    loaded(checkpoint_dir, HALF, "bfloat16")
    gc.collect()
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ModelError, match=r"pip install 'proponent\[spread\]'"):
        loaded(checkpoint_dir, ALL)
