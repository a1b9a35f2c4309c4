"""Models that see what they are to predict, or that do not run on token ids, are refused before anything is encoded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from proponent.encode.causality import require_causal
from proponent.encode.checkpoint import load_checkpoint, read_facts
from proponent.encode.layers import freeze
from proponent.schema.errors import ModelMismatchError


def bert(**config: Any) -> Any:
    sizes = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.BertLMHeadModel(transformers.BertConfig(**sizes, intermediate_size=48, **config))
    freeze(model)
    return model


def test_a_model_that_reads_what_follows_is_refused() -> None:
    with pytest.raises(ModelMismatchError, match="BertLMHeadModel is not causal"):
        require_causal(bert())


def test_the_same_model_as_a_decoder_is_not() -> None:
    require_causal(bert(is_decoder=True))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_mask_of_large_negative_numbers_is_causal_enough(precision: torch.dtype) -> None:
    sizes = {"vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "dff": 48}
    model = transformers.CTRLLMHeadModel(transformers.CTRLConfig(**sizes)).to(precision)
    freeze(model)
    require_causal(model)


def test_a_checkpoint_that_is_not_causal_is_not_loaded(tmp_path: Path, make_tokenizer: Callable[..., Any]) -> None:
    bert().save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelMismatchError, match="not causal"):
        load_checkpoint(read_facts(tmp_path))


@pytest.mark.parametrize("error", [ValueError, TypeError, IndexError, RuntimeError, AttributeError])
def test_a_model_that_does_not_run_is_refused_and_left_without_hooks(
    make_model: Callable[..., Any], error: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("what it lacks\nand more")

    model = make_model("llama")
    model.model.norm.forward = fail
    with pytest.raises(ModelMismatchError, match=r"does not run on token ids alone: what it lacks$"):
        require_causal(model)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_with_weights_that_are_not_finite_is_not_called_acausal(make_model: Callable[..., Any]) -> None:
    model = make_model("llama")
    nn.init.constant_(model.model.layers[0].mlp.up_proj.weight, torch.nan)
    require_causal(model)
