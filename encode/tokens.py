"""From texts to examples: passages with the loss on every token, queries with the loss on the target alone."""

import logging
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

from proponent.schema.errors import EncodingError

from .gradients import Example

_LINE_TOKENS: Final = 16
_CHAT_TOKENS: Final = 64
_HALF_CHARACTER: Final = "\ufffd"
"""What tokens that end inside a character are decoded to."""

_log = logging.getLogger(__name__)


def passage_examples(tokenizer: Any, texts: Sequence[str]) -> list[Example]:
    """Tokenise passages as the model's training did, with the tokenizer's own special tokens."""
    encoded = tokenizer(list(texts), add_special_tokens=True, return_attention_mask=False)
    return [Example(tuple(ids)) for ids in encoded["input_ids"]]


def query_example(tokenizer: Any, prompt: str, target: str, *, context_length: int, rendered: bool = False) -> Example:
    """Tokenise prompt and target as one text; the loss is on the tokens that reach into the target.

    A token that spans the seam counts as the target's. `rendered` says that the prompt comes from `chat_prompt`, and
    has its special tokens already. Raises EncodingError when the target has no token of its own, when nothing
    precedes it, or when both together exceed the context.
    """
    if not target:
        raise EncodingError("the target is empty; give the text whose training data you look for")
    ids, offsets = _tokens(tokenizer, prompt + target, rendered=rendered)
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


def _tokens(tokenizer: Any, text: str, *, rendered: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """Return token ids, and the characters that each stands for; a rendered text has its special tokens already."""
    encoded = tokenizer(text, add_special_tokens=not rendered, return_offsets_mapping=True)
    return list(encoded["input_ids"]), list(encoded["offset_mapping"])


def chat_prompt(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """Return messages in the tokenizer's chat template, up to where the assistant's answer begins.

    transformers renders templates in a sandbox. Raises EncodingError when there is no template, when it does not take
    these messages, and when the last of them is in the template already.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise EncodingError(
            "the tokenizer has no chat template; ask without chat, or put the model's own chat_template.jinja into its "
            "folder"
        )
    try:
        text = str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
    except (TemplateError, ValueError, TypeError, LookupError) as error:
        raise EncodingError(
            f"the chat template does not take these messages: {' '.join(str(error).split())}"
        ) from error
    if _ends_like(messages[-1]["content"].strip(), text):
        raise EncodingError("the prompt is in the chat template already; give the bare message, or ask without chat")
    return text


def _ends_like(content: str, rendered: str) -> bool:
    """Return whether a message ends in the line with which the template hands over to the assistant."""
    lines = rendered.rpartition(content)[2].strip().splitlines() if content else []
    return bool(lines) and content.endswith(lines[-1].strip())


def completion(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    context_length: int,
    rendered: bool = False,
    max_tokens: int | None = None,
) -> str:
    """Return the model's own greedy continuation of a prompt, as text.

    It goes up to the end of the text, of the line or, for a prompt that `chat_prompt` rendered, of the assistant's
    turn, or to `max_tokens` (by default 16, or 64 of a chat). Where the text's tokens are not those that the model
    generated, because a line ended inside a token, say, that is logged: what is traced is the text. Raises
    EncodingError when the prompt fills the context or the model has nothing to say.
    """
    ids, offsets = _tokens(tokenizer, prompt, rendered=rendered)
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    while len(ids) > 1 and ids[-1] in special and offsets[-1][0] == offsets[-1][1]:
        ids, offsets = ids[:-1], offsets[:-1]  # the tokenizer ends the text, which is to go on
    room = min(max_tokens or (_CHAT_TOKENS if rendered else _LINE_TOKENS), context_length - len(ids))
    if room < 1 or not ids:
        raise EncodingError(f"the prompt has {len(ids)} tokens, the model reads {context_length}; shorten the prompt")
    new = list(takewhile(lambda token: token not in special, _generated(model, tokenizer, ids, room)))
    # Some tokenizers drop a text's first space when they decode: only the whole shows what follows the prompt.
    before, whole = (str(tokenizer.decode(part, skip_special_tokens=True)) for part in (ids, ids + new))
    if not whole.startswith(before):
        raise EncodingError("the tokenizer does not give the prompt back; name the target with --target")
    text = whole.removeprefix(before).rstrip(_HALF_CHARACTER)
    text = text if rendered else text.split("\n")[0]
    if not text.strip():
        raise EncodingError("the model completes this prompt with nothing; name the target with --target")
    read = query_example(tokenizer, prompt, text, context_length=context_length, rendered=rendered).token_ids
    if read != tuple(ids + new)[: len(read)]:
        _log.warning("the model generated %r as other tokens than the tokenizer reads; the text is traced", text)
    return text


def _generated(model: Any, tokenizer: Any, ids: list[int], room: int) -> list[int]:
    import torch

    from .spread import main_device

    with torch.no_grad():
        output = model.generate(
            torch.tensor([ids], device=main_device(model)),
            max_new_tokens=room,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id or 0,
        )
    return [int(token) for token in output[0][len(ids) :]]
