"""From texts to examples: passages with the loss on every token, queries with the loss on the target alone."""

from collections.abc import Sequence
from typing import Any

from proponent.schema.errors import EncodingError

from .gradients import Example


def passage_examples(tokenizer: Any, texts: Sequence[str]) -> list[Example]:
    """Tokenise passages as the model's training did, with the tokenizer's own special tokens."""
    encoded = tokenizer(list(texts), add_special_tokens=True, return_attention_mask=False)
    return [Example(tuple(ids)) for ids in encoded["input_ids"]]


def query_example(tokenizer: Any, prompt: str, target: str, *, context_length: int) -> Example:
    """Tokenise prompt and target as one text; the loss is on the tokens that reach into the target.

    A token that spans the seam counts as the target's. Raises EncodingError when the target has no token of its own,
    when nothing precedes it, or when both together exceed the context.
    """
    if not target:
        raise EncodingError("the target is empty; give the text whose training data you look for")
    encoded = tokenizer(prompt + target, add_special_tokens=True, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    if len(ids) > context_length:
        raise EncodingError(
            f"prompt and target have {len(ids)} tokens, the model reads {context_length}; shorten the prompt"
        )
    inside = [place for place, (start, end) in enumerate(offsets) if end > len(prompt) and end > start]
    if not inside:
        raise EncodingError(f"the target {target!r} has no token of its own")
    ids = ids[: inside[-1] + 1]  # special tokens behind the target are not part of the question
    if inside[0] == 0:
        raise EncodingError("nothing precedes the target: give a prompt, since this tokenizer adds no first token")
    return Example(tuple(ids), n_target=len(ids) - inside[0])


def completion(model: Any, tokenizer: Any, prompt: str, *, max_tokens: int, context_length: int) -> str:
    """Return the model's own greedy continuation of a prompt, up to its end of text or line or `max_tokens`.

    Raises EncodingError when the prompt fills the context or the model has nothing to say.
    """
    import torch

    ids = tokenizer(prompt, add_special_tokens=True)["input_ids"]
    room = min(max_tokens, context_length - len(ids))
    if room < 1 or not ids:
        raise EncodingError(f"the prompt has {len(ids)} tokens, the model reads {context_length}; shorten the prompt")
    with torch.no_grad():
        output = model.generate(
            torch.tensor([ids]), max_new_tokens=room, do_sample=False, pad_token_id=tokenizer.eos_token_id or 0
        )
    # Some tokenizers drop a text's first space when they decode: only the whole shows what follows the prompt.
    before, whole = (str(tokenizer.decode(part, skip_special_tokens=True)) for part in (ids, output[0]))
    if not whole.startswith(before):
        raise EncodingError("the tokenizer does not give the prompt back; name the target with --target")
    text = whole.removeprefix(before).split("\n")[0]
    if not text.strip():
        raise EncodingError("the model completes this prompt with nothing; name the target with --target")
    return text
