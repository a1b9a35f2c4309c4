"""Whether a model is causal.

Only then is a token's loss that of predicting it, and what stands behind it, padding too, without influence.
"""

from typing import Any

import torch
from torch.nn import functional

from proponent.schema.errors import ModelMismatchError

from .spread import main_device

_TOKENS = 8
_LEAK = 1e-4
"""Gradient of a later token, as a share of the largest one, from which on it counts; rounding stays far below."""


def require_causal(model: Any) -> None:
    """Raise ModelMismatchError for a model that reads the tokens it is to predict, as BERT does, or that does not run.

    The losses of a text's first half must have no gradient with respect to the embeddings of the second half.
    """
    try:
        gradient = _gradient_of_first_half(model)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelMismatchError(f"{type(model).__name__} does not run on token ids alone: {reason}") from error
    size = gradient.abs().nan_to_num()
    if size[_TOKENS // 2 :].max() > _LEAK * size.max():
        raise ModelMismatchError(f"{type(model).__name__} is not causal: it reads the tokens that it is to predict")


def _gradient_of_first_half(model: Any) -> torch.Tensor:
    """Return the gradient (t, hidden) of the first half's losses with respect to every token's embedding."""
    embeddings = model.get_input_embeddings()
    embedded: list[torch.Tensor] = []

    def keep(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1].clone()  # some models scale it in place

    ids = torch.arange(_TOKENS, device=main_device(model))[None] % embeddings.num_embeddings
    handle = embeddings.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0].float()
            half = _TOKENS // 2
            loss = functional.cross_entropy(logits[:half], ids[0, 1 : half + 1])
            [gradient] = torch.autograd.grad(loss, embedded[:1])
    finally:
        handle.remove()
    return gradient[0]
