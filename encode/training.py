"""Training a small causal model from nothing: the demonstration's, and those that an evaluation retrains.

- AdamW on a one-cycle schedule; gradients are cut to norm 1. A sequence is a text with what the tokenizer puts around
  it, and an end. A GPU multiplies matrices in bfloat16; weights and moments are in float32 everywhere.
- The same seed gives the same bits on the same machine. Another number of threads adds in another order, and so gives
  another, equally good, model.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from proponent.schema.errors import ModelError
from proponent.schema.settings import TrainingSettings

IGNORED: Final = -100
"""Label of positions that carry no loss."""
_NORM: Final = 1.0
_POOL: Final = 8
"""Batches whose rows are sorted by length together: padding would cost a third of the time."""

Progress = Callable[[int, int, float], object]
"""Called after every step with the steps done, the steps in all, and the step's loss in nats per token."""


class Trained(NamedTuple):
    """A model in float32 after so many steps, and the optimizer that it is trained with."""

    model: Any
    optimizer: torch.optim.Optimizer
    steps: int


Visit = Callable[[Trained, int], object]
"""Called after every step with what it left, and the steps in all."""


def token_rows(tokenizer: Any, texts: Sequence[str], *, context_length: int | None = None) -> list[list[int]]:
    """Return the tokens of texts with the tokenizer's end behind each; what exceeds the context is cut off.

    A row may have a token more than the context, since the last one is only predicted.
    """
    encoded = tokenizer(list(texts), add_special_tokens=True, return_attention_mask=False)["input_ids"]
    end = tokenizer.eos_token_id
    ended = [[*ids, end] if end is not None and ids[-1:] != [end] else list(ids) for ids in encoded]
    return ended if context_length is None else [row[: context_length + 1] for row in ended]


def train(
    config: Any,
    rows: Sequence[list[int]],
    settings: TrainingSettings,
    *,
    seed: int,
    pad: int,
    device: str = "cpu",
    progress: Progress | None = None,
    visit: Visit | None = None,
) -> Trained:
    """Train a model of a transformers configuration on rows of tokens, which has fresh weights.

    `seed` decides the first weights, the order of the rows, and on a CPU what a model drops out; torch's own generator
    is left as it was. `pad` is any token. `visit` may save the model on the way, and leaves it as it is. Raises
    ModelError when there is nothing to train on, or the loss is not finite.
    """
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise ModelError("there is no text of two tokens to train on")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = fresh_model(config).to(device)
        order = torch.Generator().manual_seed(seed)
        return _fit(model, rows, settings, order=order, pad=pad, progress=progress, visit=visit)


def fresh_model(config: Any) -> Any:
    """Return an untrained model in float32 with weights from torch's own generator; no code of a checkpoint is run."""
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    return loader.from_config(config, dtype=torch.float32, trust_remote_code=False)


def _fit(
    model: Any,
    rows: Sequence[list[int]],
    settings: TrainingSettings,
    *,
    order: torch.Generator,
    pad: int,
    progress: Progress | None,
    visit: Visit | None,
) -> Trained:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, settings.beta2), fused=True
    )
    steps = settings.epochs * -(-len(rows) // settings.batch_size)
    # Momentum stays as it is: cycling it as well changes nothing that could be measured here.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps, cycle_momentum=False
    )
    model.train()
    step = 0
    for _ in range(settings.epochs):
        for batch in _batches(rows, settings.batch_size, order):
            inputs, labels = (side.to(model.device) for side in padded(batch, pad))
            loss = _loss(model, inputs, labels)
            if not torch.isfinite(loss):
                raise ModelError(f"the loss of step {step + 1} is not finite; train with a lower learning rate")
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), _NORM)
            optimizer.step()
            schedule.step()
            step += 1
            if progress:
                progress(step, steps, loss.item())
            if visit:
                visit(Trained(model, optimizer, step), steps)
    model.train(False)
    return Trained(model, optimizer, step)


def _batches(rows: Sequence[list[int]], size: int, order: torch.Generator) -> Iterator[list[list[int]]]:
    """Shuffle the rows, then batch rows of similar length."""
    shuffled = torch.randperm(len(rows), generator=order).tolist()
    pools = [shuffled[at : at + _POOL * size] for at in range(0, len(rows), _POOL * size)]
    batches = []
    for pool in pools:
        pool.sort(key=lambda index: len(rows[index]))
        batches += [pool[at : at + size] for at in range(0, len(pool), size)]
    for index in torch.randperm(len(batches), generator=order).tolist():
        yield [rows[row] for row in batches[index]]


def padded(batch: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Pad on the right to (batch, tokens) inputs, and labels one position ahead that ignore the padding.

    No attention mask is needed: what follows a token cannot be seen from it.
    """
    length = max(map(len, batch))
    ids = torch.tensor([row + [pad] * (length - len(row)) for row in batch])
    seen = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in batch], dtype=torch.bool)
    labels = ids.masked_fill(~seen, IGNORED)
    return ids[:, :-1], labels[:, 1:]


def _loss(model: Any, inputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of a token, from (batch, tokens) inputs and labels."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=inputs.is_cuda):
        logits = model(input_ids=inputs, use_cache=False).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)
