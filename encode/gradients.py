"""Per-example loss gradients of weight matrices, seen through hooks and never formed.

Notable: weights are frozen and gradients flow to activations alone, from the outputs of the first covered layers on.
For a layer with inputs x_t and output gradients y_t the weight's gradient is sum_t y_t x_t^T; a visitor gets x and y of
every layer and takes from them what it needs, so that a weight-sized buffer never exists. Letters: b examples,
t positions, m outputs, n inputs, s projected side.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from proponent.schema.errors import ModelMismatchError

from .layers import CoveredLayer, expert_parameters
from .spread import fetching_again, forward_of, main_device

_IGNORED = -100


@dataclass(frozen=True)
class Example:
    """Token ids, and how many of the last ones carry the loss (None: every token but the first)."""

    token_ids: tuple[int, ...]
    n_target: int | None = None

    @property
    def n_loss(self) -> int:
        """Tokens whose loss is taken; the first token of all is predicted from nothing and never counts."""
        predicted = len(self.token_ids) - 1
        return predicted if self.n_target is None else min(self.n_target, predicted)


class Visitor(Protocol):
    """Receives a layer's inputs when it is run and its output gradients when it is passed backwards.

    Positions t are the tokens of the padded batch, or, for an expert, those of each example that were sent to it, with
    zeros where other examples have more; `tokens` (b, t) then says which tokens they are.
    """

    def forward(self, index: int, inputs: torch.Tensor, tokens: torch.Tensor | None) -> Any:
        """Take the inputs (b, t, n) of layer `index`; what it returns is kept until `backward`."""

    def backward(self, index: int, kept: Any, gradients: torch.Tensor) -> None:
        """Take what `forward` kept and the gradients (b, t, m) of the layer's output."""


def backpropagate(
    model: nn.Module, layers: Sequence[CoveredLayer], examples: Sequence[Example], visitor: Visitor
) -> torch.Tensor:
    """Run the examples forwards and backwards past the visitor; return their losses (b,) in nats, float32.

    The loss of an example is the sum of its tokens' cross-entropies. Padding is on the right and carries no loss, so
    that under causal attention it has no gradient and no influence on an example's own tokens. Raises
    ModelMismatchError when the model runs without one of the layers, or applies one several times.
    """
    device = main_device(model)
    ids, mask, following = (tensor.to(device) for tensor in _pad(examples))
    step = _Step(layers, visitor, width=ids.shape[1], n_examples=len(examples), device=device)
    with step.watching(), _exact_logits(model), fetching_again(model), torch.enable_grad():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        losses = functional.cross_entropy(
            logits.flatten(0, 1).float(), following.flatten(), reduction="none", ignore_index=_IGNORED
        )
        losses = losses.view(ids.shape).sum(1)
        step.finish_forward()
        torch.autograd.backward(losses.sum())
    return losses.detach()


@contextmanager
def _exact_logits(model: nn.Module) -> Iterator[None]:
    """Compute logits in float32: rounded to bfloat16, logits around 20 put probabilities off by several per cent."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    head = getattr(head, "base_layer", head)  # an adapter's wrapper adds to what the layer inside gives
    if head is None or head.weight.dtype == torch.float32:
        yield
        return

    def forward(states: torch.Tensor) -> torch.Tensor:
        bias = None if head.bias is None else head.bias.float()
        return functional.linear(states.float(), head.weight.float(), bias)

    with _doing(head, forward):
        yield


@contextmanager
def _doing(module: nn.Module, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
    """Let a module do something else, wherever its weights are."""
    name = forward_of(module)
    before = vars(module).get(name)
    setattr(module, name, forward)
    try:
        yield
    finally:
        if before is None:
            delattr(module, name)
        else:
            setattr(module, name, before)


def _pad(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return token ids, the attention mask, and at every token the next one if its loss is taken, each (b, t)."""
    width = max(len(example.token_ids) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    following = torch.full_like(ids, _IGNORED)
    for row, example in enumerate(examples):
        n = len(example.token_ids)
        ids[row, :n] = torch.tensor(example.token_ids)
        mask[row, :n] = 1
        following[row, n - 1 - example.n_loss : n - 1] = ids[row, n - example.n_loss : n]
    return ids, mask, following


class _Step:
    """One pass of a batch: hands inputs and output gradients of the covered layers to the visitor."""

    def __init__(
        self,
        layers: Sequence[CoveredLayer],
        visitor: Visitor,
        *,
        width: int,
        n_examples: int,
        device: torch.device,
    ) -> None:
        self._layers = layers
        self._device = device
        self._visitor = visitor
        self._width = width
        self._n_examples = n_examples
        self._seen: set[nn.Module] = set()
        self._forward_is_over = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the layers, and leave no trace of it."""
        handles = []
        replaced: dict[nn.Module, dict[tuple[str, int], int]] = {}
        for index, layer in enumerate(self._layers):
            if layer.expert is None:
                handles.append(layer.module.register_forward_hook(partial(self._after, index)))
            else:
                replaced.setdefault(layer.module, {})[layer.attribute, layer.expert] = index
        with ExitStack() as doing:
            for handle in handles:
                doing.callback(handle.remove)
            for module, places in replaced.items():
                doing.enter_context(_doing(module, partial(self._run_experts, module, places)))
            yield

    def finish_forward(self) -> None:
        """Raise ModelMismatchError when a layer was passed by: its gradient would be missing in silence."""
        self._forward_is_over = True
        unseen = [layer.name for layer in self._layers if layer.rows_in_order and layer.module not in self._seen]
        if unseen:
            raise ModelMismatchError(f"the model runs without calling {len(unseen)} layers, {unseen[0]} among them")

    def _after(self, index: int, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        rows = inputs[0].numel() // inputs[0].shape[-1]
        if self._n_examples > 1 and rows != self._n_examples * self._width:
            raise ModelMismatchError(f"{self._layers[index].name} does not see every token of a batch")
        if module in self._seen and not self._forward_is_over:  # the square of a sum is not the sum of squares
            raise ModelMismatchError(f"the model applies {self._layers[index].name} several times in one pass")
        self._seen.add(module)
        self._hand_over(index, inputs[0], output, lambda rows: rows.reshape(self._n_examples, -1, rows.shape[-1]))

    def _hand_over(
        self,
        index: int,
        inputs: torch.Tensor,
        output: torch.Tensor,
        by_example: Callable[[torch.Tensor], torch.Tensor],
        tokens: torch.Tensor | None = None,
    ) -> None:
        if not output.requires_grad:
            output.requires_grad_()  # gradients end at the first covered layers: nothing before is asked for
        # Of a model on several devices, everything is added up on the first.
        mine = self._device
        told = None if tokens is None else tokens.to(mine)
        kept = self._visitor.forward(index, by_example(inputs.detach()).to(mine), told)
        output.register_hook(  # type: ignore[no-untyped-call]
            lambda gradients: self._visitor.backward(index, kept, by_example(gradients.detach()).to(mine))
        )

    def _run_experts(
        self,
        module: nn.Module,
        places: dict[tuple[str, int], int],
        states: torch.Tensor,
        chosen: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """Do what a module of fused experts does, expert by expert, since it keeps to itself who gets which token.

        `states` (T, hidden), `chosen` and `weights` (T, k), as in transformers' interface of experts.
        """
        self._seen.add(module)
        total = torch.zeros_like(states)
        for expert in range(len(module.down_proj)):  # type: ignore[arg-type]
            rows, slots = torch.where(chosen == expert)
            if not len(rows):
                continue
            order = _Routed(rows, self._width, self._n_examples)
            hidden = states[rows]
            for attribute in expert_parameters(module):
                output = _apply_expert(module, attribute, expert, hidden)
                self._hand_over(places[attribute, expert], hidden, output, order.by_example, order.tokens)
                hidden = output if attribute == "down_proj" else _activated(module, output)
            if module.has_post_expert_norm:
                hidden = module.post_expert_norm(hidden)  # type: ignore[operator]
            total = total.index_add(0, rows, (hidden * weights[rows, slots, None]).to(total.dtype))
        return total


def _apply_expert(module: nn.Module, attribute: str, expert: int, hidden: torch.Tensor) -> torch.Tensor:
    weight = getattr(module, attribute)[expert]
    output: torch.Tensor = hidden @ (weight if module.is_transposed else weight.T)
    return output + getattr(module, f"{attribute}_bias")[expert] if module.has_bias else output


def _activated(module: nn.Module, output: torch.Tensor) -> torch.Tensor:
    activated: torch.Tensor = module._apply_gate(output) if module.has_gate else module.act_fn(output)  # type: ignore[operator]
    return activated


class _Routed:
    """Which examples the tokens that a router sent to one expert belong to."""

    def __init__(self, rows: torch.Tensor, width: int, n_examples: int) -> None:
        self._example = rows // width
        counts = torch.bincount(self._example, minlength=n_examples)
        starts = counts.cumsum(0) - counts
        self._place = torch.arange(len(rows), device=rows.device) - starts[self._example]
        self._shape = (n_examples, int(counts.max()))
        self.tokens = self.by_example((rows % width)[:, None])[:, :, 0]

    def by_example(self, rows: torch.Tensor) -> torch.Tensor:
        """Arrange rows (r, n) by example as (b, t, n), with zeros behind."""
        arranged = rows.new_zeros(*self._shape, rows.shape[-1])
        arranged[self._example, self._place] = rows
        return arranged
