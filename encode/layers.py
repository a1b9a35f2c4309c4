"""Which weight matrices an encoder sees, and which group of the encoding each one belongs to."""

import re
from dataclasses import dataclass

import torch
from torch import nn

from proponent.schema.errors import ModelMismatchError

_KINDS = (("attention", re.compile(r"attn|attention")), ("mlp", re.compile(r"mlp|feed_forward|ffn")))


@dataclass(frozen=True)
class CoveredLayer:
    """A linear layer whose weight's gradient is part of the encoding."""

    name: str
    """Name of the weight in the model's state dict."""
    module: nn.Linear
    group: int
    """Index of the group: 2 * block for attention, 2 * block + 1 for the MLP."""


@dataclass(frozen=True)
class Coverage:
    """What an encoder sees of a model."""

    layers: tuple[CoveredLayer, ...]
    share: float
    """Covered parameters over all parameters."""
    uncovered: tuple[str, ...]
    """Names of the parameters that are left out."""


def cover(model: nn.Module, *, blocks: int) -> Coverage:
    """Find the linear layers inside attention and MLP of every transformer layer, in `blocks` groups of layers.

    Raises ModelMismatchError when the model has no transformer layers of a known form, or fewer than `blocks`.
    """
    prefix, stack = _transformer_layers(model)
    if blocks > len(stack):
        raise ModelMismatchError(f"the model has {len(stack)} layers; {blocks} blocks are too many")
    layers = []
    for index, layer in enumerate(stack):
        block = index * blocks // len(stack)
        for name, module in layer.named_modules():
            kind = _kind(name)
            if isinstance(module, nn.Linear) and kind is not None:
                layers.append(CoveredLayer(f"{prefix}.{index}.{name}.weight", module, 2 * block + kind))
    groups = {layer.group for layer in layers}
    if groups != set(range(2 * blocks)):
        raise ModelMismatchError(
            f"{type(model).__name__} has no linear layers in the attention or the MLP of some layers; "
            "this version encodes models of the Llama kind"
        )
    covered = {id(layer.module.weight) for layer in layers}
    total = sum(parameter.numel() for parameter in model.parameters())
    seen = sum(layer.module.weight.numel() for layer in layers)
    uncovered = tuple(name for name, parameter in model.named_parameters() if id(parameter) not in covered)
    return Coverage(tuple(layers), seen / total, uncovered)


def _transformer_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    depth = getattr(model.config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return name, module
    raise ModelMismatchError(f"{type(model).__name__} has no list of {depth} transformer layers")


def _kind(name: str) -> int | None:
    for index, (_, pattern) in enumerate(_KINDS):
        if pattern.search(name):
            return index
    return None


def freeze(model: nn.Module) -> torch.device:
    """Switch off dropout and weight gradients; return the device that the inputs belong on."""
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return next(model.parameters()).device
