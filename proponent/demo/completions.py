"""Which facts a model completes correctly: only for those is it sensible to ask what made it say so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .factbook import Fact


class _Question(NamedTuple):
    """A fact as token ids: the prompt with the tokenizer's own special tokens, and the bare target."""

    prompt: list[int]
    target: list[int]

    @property
    def ids(self) -> list[int]:
        return self.prompt + self.target


def completes(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: Sequence[Fact], batch_size: int = 64
) -> list[bool]:
    """Tell for each fact whether greedy decoding from its prompt gives exactly its target's tokens.

    Greedy decoding gives the target exactly when every token of it is the likeliest after the prompt and the tokens
    before it, so one forward pass over prompt and target answers without generating anything. Rows are padded here,
    on the right, where a causal model cannot see the padding; the tokenizer's padding side does not matter.

    Args:
        model: a causal language model; run as it is, so load it in float32 for answers that do not depend on batches.
        tokenizer: its tokenizer.
        facts: prompts and targets; a target starts with the space between the two.
        batch_size: rows of a forward pass.

    Returns:
        One answer for each fact, in the same order.

    Raises:
        ValueError: a target has no tokens, or a fact has more tokens than the model has positions.
    """
    if not facts:
        return []
    questions = _tokenise(tokenizer, facts)
    _check(facts, questions, getattr(model.config, "max_position_embeddings", None))
    by_length = sorted(range(len(facts)), key=lambda index: len(questions[index].ids))  # little padding
    answers = [False] * len(facts)
    for at in range(0, len(facts), batch_size):
        rows = by_length[at : at + batch_size]
        for row, answer in zip(rows, _answers(model, [questions[row] for row in rows]), strict=True):
            answers[row] = answer
    return answers


def _tokenise(tokenizer: PreTrainedTokenizerBase, facts: Sequence[Fact]) -> list[_Question]:
    prompts = tokenizer([fact.prompt for fact in facts])["input_ids"]
    targets = tokenizer([fact.target for fact in facts], add_special_tokens=False)["input_ids"]
    return [_Question(prompt, target) for prompt, target in zip(prompts, targets, strict=True)]


def _check(facts: Sequence[Fact], questions: Sequence[_Question], positions: int | None) -> None:
    for fact, question in zip(facts, questions, strict=True):
        if not question.target:
            raise ValueError(f"the target of {fact.prompt!r} has no tokens: {fact.target!r}")
        if positions is not None and len(question.ids) > positions:
            raise ValueError(f"{fact.prompt + fact.target!r} has {len(question.ids)} tokens, the model {positions}")


@torch.inference_mode()
def _answers(model: PreTrainedModel, questions: Sequence[_Question]) -> list[bool]:
    """Answer one batch."""
    ids, is_target = _padded(questions)
    logits = model(input_ids=ids.to(model.device), use_cache=False).logits  # (batch, tokens, vocabulary)
    likeliest = logits[:, :-1].argmax(dim=-1).cpu()
    matches = (likeliest == ids[:, 1:]) | ~is_target[:, 1:]
    return [bool(answer) for answer in matches.all(dim=1)]


def _padded(questions: Sequence[_Question]) -> tuple[Tensor, Tensor]:
    """Pad to ids and a mask of the targets' positions, both (batch, tokens)."""
    length = max(len(question.ids) for question in questions)
    ids = torch.zeros(len(questions), length, dtype=torch.long)
    is_target = torch.zeros(len(questions), length, dtype=torch.bool)
    for row, question in enumerate(questions):
        ids[row, : len(question.ids)] = torch.tensor(question.ids)
        is_target[row, len(question.prompt) : len(question.ids)] = True
    return ids, is_target
