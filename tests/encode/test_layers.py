"""An encoder knows which parameters it sees, and says which it does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from proponent.encode.checkpoint import Checkpoint, load_checkpoint, read_facts
from proponent.encode.layers import cover, freeze
from proponent.schema.errors import ModelMismatchError

PROJECTIONS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
PROJECTIONS += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


def test_every_matrix_of_attention_and_mlp_is_covered_once(checkpoint: Checkpoint) -> None:
    names = [layer.name for layer in cover(checkpoint.model, blocks=2).layers]
    assert sorted(names) == sorted(f"model.layers.{n}.{part}.weight" for n in range(3) for part in PROJECTIONS)
    weights = dict(checkpoint.model.named_parameters())
    assert all(
        weights[layer.name] is getattr(layer.module, layer.attribute)
        for layer in cover(checkpoint.model, blocks=2).layers
    )


def test_share_and_uncovered_names_account_for_every_parameter(checkpoint: Checkpoint) -> None:
    coverage = cover(checkpoint.model, blocks=1)
    sizes = {name: parameter.numel() for name, parameter in checkpoint.model.named_parameters()}
    covered = {layer.name for layer in coverage.layers}
    assert covered | set(coverage.uncovered) == sizes.keys()
    assert not covered & set(coverage.uncovered)
    assert coverage.share == pytest.approx(sum(sizes[name] for name in covered) / sum(sizes.values()))
    assert "model.embed_tokens.weight" in coverage.uncovered
    assert "lm_head.weight" in coverage.uncovered


def test_tied_embeddings_are_counted_once(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    tied = load_checkpoint(read_facts(make_checkpoint(tmp_path / "tied", tie_word_embeddings=True))).model
    coverage = cover(tied, blocks=1)
    assert "lm_head.weight" not in coverage.uncovered
    left_out = sum(dict(tied.named_parameters())[name].numel() for name in coverage.uncovered)
    total = sum(parameter.numel() for parameter in tied.parameters())
    assert coverage.share == pytest.approx(1 - left_out / total)


@pytest.mark.parametrize(("blocks", "of_layer"), [(1, [0, 0, 0]), (2, [0, 0, 1]), (3, [0, 1, 2])])
def test_blocks_are_runs_of_neighbouring_layers_with_two_groups_each(
    checkpoint: Checkpoint, blocks: int, of_layer: list[int]
) -> None:
    for layer in cover(checkpoint.model, blocks=blocks).layers:
        assert layer.group == 2 * of_layer[int(layer.name.split(".")[2])] + (".mlp." in layer.name)


def test_more_blocks_than_layers_are_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelMismatchError, match="has 3 layers; 4 blocks"):
        cover(checkpoint.model, blocks=4)


def test_a_model_without_transformer_layers_is_refused() -> None:
    class Config:
        num_hidden_layers = 2

    model = nn.Sequential(nn.Linear(2, 2))
    model.config = Config()  # type: ignore[assignment]
    with pytest.raises(ModelMismatchError, match="no list of 2"):
        cover(model, blocks=1)


@pytest.mark.parametrize("share", ["weight", "layer"])
def test_weights_that_layers_share_are_refused(make_model: Callable[..., Any], share: str) -> None:
    """A parameter has one name, the first: what the other layers add to its gradient would be missing in silence."""
    model = make_model("llama")
    layers = model.model.layers
    if share == "weight":
        layers[2].mlp.up_proj.weight = layers[0].mlp.up_proj.weight
    else:
        layers[2] = layers[0]
    with pytest.raises(ModelMismatchError, match=r"model\.layers\.0\..*proj\.weight is shared by several layers"):
        cover(model, blocks=1)


def test_a_linear_layer_that_does_more_than_multiply_is_not_covered(make_model: Callable[..., Any]) -> None:
    class Scaled(nn.Linear):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return super().forward(states) * states.norm()

    model = make_model("llama")
    model.model.layers[1].mlp.up_proj = Scaled(32, 48)
    assert "model.layers.1.mlp.up_proj.weight" in cover(model, blocks=1).uncovered


def test_a_frozen_model_has_no_dropout_and_no_weight_gradients() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    assert freeze(model) == torch.device("cpu")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
