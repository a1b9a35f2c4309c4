"""Which weight matrices an encoder sees, and which group of the encoding each one belongs to.

Notable: whatever holds a weight, a covered layer is one matrix (m, n) with m outputs and n inputs: a linear layer, the
transposed weight of a Conv1D, or one expert's slice of a parameter that holds all experts. Of a model with adapters
only the adapters are covered, since nothing else was trained.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from proponent.schema.errors import ModelMismatchError

_KINDS = (
    ("attention", re.compile(r"attn|attention")),
    ("mlp", re.compile(r"mlp|feed_forward|ffn|fc\d|experts|moe")),
)
_ADAPTER = re.compile(r"\.lora_|\.modules_to_save\.|\.trainable_tokens_delta\.")


@dataclass(frozen=True)
class CoveredLayer:
    """A weight matrix (m, n) whose gradient is part of the encoding."""

    parameter: str
    """Name of the parameter that holds the weight, as the model names it."""
    module: nn.Module
    """Module that applies the weight."""
    attribute: str
    """Name of the parameter in its module."""
    shape: tuple[int, int]
    """Outputs m and inputs n."""
    group: int
    """Index of the group: 2 * block for attention, 2 * block + 1 for the MLP."""
    transposed: bool = False
    """Whether the parameter holds the matrix as (n, m)."""
    expert: int | None = None
    """Which matrix of a parameter that holds one for every expert."""
    rows_in_order: bool = True
    """Whether the module sees all tokens in their order, and not those that a router chose for it."""

    @property
    def name(self) -> str:
        """Name of the matrix, unique in its model."""
        return self.parameter if self.expert is None else f"{self.parameter}[{self.expert}]"

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.shape[0] * self.shape[1]

    def matrix(self, values: torch.Tensor) -> torch.Tensor:
        """Return this layer's (m, n) part of values that are shaped as the parameter."""
        if self.expert is not None:
            values = values[self.expert]
        return values.T if self.transposed else values


@dataclass(frozen=True)
class Coverage:
    """What an encoder sees of a model."""

    layers: tuple[CoveredLayer, ...]
    share: float
    """Covered parameters over all parameters; of a model with adapters, over the adapters' parameters."""
    uncovered: tuple[str, ...]
    """Names of the parameters that are left out."""
    one_by_one: bool = False
    """Whether examples must be run one at a time, since some layers do not tell whose tokens they see."""

    @property
    def empty_groups(self) -> list[int]:
        """Groups without a matrix, as the MLP's where adapters are in attention alone; their components are zero."""
        n_groups = 2 * (max(layer.group for layer in self.layers) // 2 + 1)
        return sorted(set(range(n_groups)) - {layer.group for layer in self.layers})


def cover(model: nn.Module, *, blocks: int) -> Coverage:
    """Find the weight matrices inside attention and MLP of every transformer layer, in `blocks` groups of layers.

    Raises ModelMismatchError when the model has no transformer layers of a known form, fewer than `blocks`, or layers
    that share their weights.
    """
    prefix, stack = _transformer_layers(model)
    if blocks > len(stack):
        raise ModelMismatchError(f"the model has {len(stack)} layers; {blocks} blocks are too many")
    trained = trained_parameters(model)
    layers = tuple(
        found
        for index, layer in enumerate(stack)
        for found in _matrices(layer, f"{prefix}.{index}", block=index * blocks // len(stack))
        if found.parameter in trained
    )
    if {layer.group // 2 for layer in layers} != set(range(blocks)):
        raise ModelMismatchError(
            f"{type(model).__name__} has no weight matrices of a known form in attention or MLP of some of its layers"
        )
    _require_one_holder(model, layers)
    covered = {layer.parameter for layer in layers}
    seen = sum(layer.size for layer in layers)
    total = sum(trained.values())
    uncovered = tuple(name for name in trained if name not in covered)
    return Coverage(layers, seen / total, uncovered, not all(layer.rows_in_order for layer in layers))


def _require_one_holder(model: nn.Module, layers: Sequence[CoveredLayer]) -> None:
    """Raise ModelMismatchError when several modules hold one weight: all but the first would add nothing."""
    holders = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    for layer in layers:
        if holders[id(getattr(layer.module, layer.attribute))] > 1:
            raise ModelMismatchError(f"{layer.parameter} is shared by several layers of {type(model).__name__}")


def trained_parameters(model: nn.Module) -> dict[str, int]:
    """Return names and sizes of the parameters that training moved: the adapters', where there are any."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    adapters = {name: size for name, size in sizes.items() if _ADAPTER.search(name)}
    return adapters or sizes


def _transformer_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    depth = getattr(model.config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return name, module
    raise ModelMismatchError(f"{type(model).__name__} has no list of {depth} transformer layers")


def _matrices(layer: nn.Module, prefix: str, *, block: int) -> Iterator[CoveredLayer]:
    from transformers.pytorch_utils import Conv1D

    routed = [f"{name}." for name, module in layer.named_modules() if isinstance(module, nn.ModuleList)]
    for name, module in layer.named_modules():
        kind = _kind(name)
        if kind is None:
            continue
        path, group = f"{prefix}.{name}", 2 * block + kind
        if is_fused_experts(module):
            yield from _experts(module, path, group)
        elif _only_multiplies(module):
            transposed = isinstance(module, Conv1D)
            weight = module.weight.T if transposed else module.weight
            in_order = not any(name.startswith(parent) for parent in routed)
            shape = (weight.shape[0], weight.shape[1])
            yield CoveredLayer(f"{path}.weight", module, "weight", shape, group, transposed, rows_in_order=in_order)


def _only_multiplies(module: nn.Module) -> bool:
    """Whether a module's output is its weight times its input, plus a bias: some routers are linear layers and more."""
    from transformers.pytorch_utils import Conv1D

    known = type(module).forward in (nn.Linear.forward, Conv1D.forward)
    return known or type(module).__name__ == "FalconLinear"


def _experts(module: nn.Module, path: str, group: int) -> Iterator[CoveredLayer]:
    transposed = bool(module.is_transposed)
    for attribute in expert_parameters(module):
        weights: torch.Tensor = getattr(module, attribute)
        m, n = weights.shape[:0:-1] if transposed else weights.shape[1:]
        for expert in range(len(weights)):
            yield CoveredLayer(f"{path}.{attribute}", module, attribute, (m, n), group, transposed, expert)


def is_fused_experts(module: nn.Module) -> bool:
    """Whether a module holds the weights of many experts in parameters of three dimensions, as transformers does."""
    return hasattr(module, "is_transposed") and hasattr(module, "has_gate") and hasattr(module, "down_proj")


def expert_parameters(module: nn.Module) -> tuple[str, str]:
    """Return the names of the parameters of a module of fused experts, in the order in which they are applied."""
    return ("gate_up_proj" if module.has_gate else "up_proj", "down_proj")


def _kind(name: str) -> int | None:
    for index, (_, pattern) in enumerate(_KINDS):
        if pattern.search(name):
            return index
    return None


def coverage_by_kind(model: nn.Module) -> list[dict[str, Any]]:
    """Return, for each kind of parameters, how many there are, their share of all, and whether an encoder sees them.

    Parameters of an adapter's base model are a kind of their own: training did not move them, and they have no share.
    """
    coverage = cover(model, blocks=1)
    seen = {layer.parameter: "MLP" if layer.group else "attention" for layer in coverage.layers}
    trained = trained_parameters(model)
    sizes: dict[tuple[str, bool], int] = {}
    for name, parameter in model.named_parameters():
        kind = seen.get(name) or (_kind_of_uncovered(model, name) if name in trained else "frozen base model")
        sizes[kind, name in seen] = sizes.get((kind, name in seen), 0) + parameter.numel()
    total = sum(trained.values())
    return [
        {
            "kind": kind,
            "parameters": size,
            "share": None if kind == "frozen base model" else size / total,
            "covered": covered,
        }
        for (kind, covered), size in sorted(sizes.items(), key=lambda item: (not item[0][1], -item[1]))
    ]


def _kind_of_uncovered(model: nn.Module, name: str) -> str:
    parent, _, last = name.rpartition(".")
    module = model.get_submodule(parent)
    if isinstance(module, nn.Embedding) or module is model.get_output_embeddings():  # type: ignore[operator]
        return "embeddings"
    if "norm" in type(module).__name__.lower():
        return "norms"
    if "bias" in last:
        return "biases"
    return f"other ({type(module).__name__})"


def freeze(model: nn.Module) -> torch.device:
    """Switch off dropout and weight gradients; return the device that the inputs belong on."""
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return next(model.parameters()).device
