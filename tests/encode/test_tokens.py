"""Passages carry the loss on every token, queries on the target's alone, and the seam belongs to the target."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import proponent.demo
from proponent.encode.checkpoint import Checkpoint, load_tokenizer
from proponent.encode.tokens import completion, passage_examples, query_example
from proponent.schema.errors import EncodingError


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A real one, of the demo's model: byte-level BPE with a first token."""
    return load_tokenizer(Path(proponent.demo.__file__).parent / "checkpoint")


@pytest.fixture(scope="module")
def bare_tokenizer(make_tokenizer: Callable[..., Any]) -> Any:
    """One that adds no first token."""
    return make_tokenizer(first_token=False)


def test_a_passages_loss_is_on_every_token_but_the_first(tokenizer: Any, sentences: list[str]) -> None:
    for text, example in zip(sentences, passage_examples(tokenizer, sentences), strict=True):
        assert list(example.token_ids) == tokenizer(text)["input_ids"]
        assert example.n_loss == len(example.token_ids) - 1


def test_a_querys_loss_is_on_the_targets_tokens(tokenizer: Any) -> None:
    example = query_example(tokenizer, "The capital of France is", " Paris.", context_length=64)
    assert tokenizer.decode(example.token_ids[-example.n_loss :]) == " Paris."
    assert list(example.token_ids) == tokenizer("The capital of France is Paris.")["input_ids"]


@pytest.mark.parametrize("at", range(1, len("The capital of France is Paris.")))
def test_a_token_across_the_seam_counts_as_the_targets_wherever_the_seam_is(tokenizer: Any, at: int) -> None:
    text = "The capital of France is Paris."
    example = query_example(tokenizer, text[:at], text[at:], context_length=64)
    taken = tokenizer.decode(example.token_ids[-example.n_loss :])
    assert text.endswith(taken)
    assert taken.endswith(text[at:])
    first = len(text) - len(taken)
    assert first <= at
    before = tokenizer.decode(example.token_ids[: -example.n_loss], skip_special_tokens=True)
    assert before == text[:first]


@given(st.text(max_size=12), st.text(min_size=1, max_size=12))
def test_every_target_of_any_text_has_its_tokens_and_no_others(tokenizer: Any, prompt: str, target: str) -> None:
    assume("<" not in prompt + target)  # the text of a special token is that token
    example = query_example(tokenizer, prompt, target, context_length=200)
    ids = list(example.token_ids)
    assert ids == tokenizer(prompt + target)["input_ids"]
    offsets = tokenizer(prompt + target, return_offsets_mapping=True)["offset_mapping"]
    targets = [end > len(prompt) for _, end in offsets]
    assert sum(targets) == example.n_target
    assert all(targets[-example.n_target :])


@pytest.mark.parametrize("target", ["é", "日本", "🙂"])
def test_characters_of_several_tokens_count_with_all_of_them(tokenizer: Any, target: str) -> None:
    example = query_example(tokenizer, "x", target, context_length=64)
    assert tokenizer.decode(example.token_ids[-example.n_loss :]) == target


def test_an_empty_target_is_refused(tokenizer: Any) -> None:
    with pytest.raises(EncodingError, match="target is empty"):
        query_example(tokenizer, "The capital of France is", "", context_length=64)


def test_a_question_longer_than_the_context_is_refused_with_both_lengths(tokenizer: Any) -> None:
    prompt = "The capital of France is"
    n = len(tokenizer(prompt + " Paris")["input_ids"])
    assert query_example(tokenizer, prompt, " Paris", context_length=n).n_loss == 1
    with pytest.raises(EncodingError, match=f"{n} tokens, the model reads {n - 1}"):
        query_example(tokenizer, prompt, " Paris", context_length=n - 1)


def test_a_query_without_a_prompt_needs_a_first_token(tokenizer: Any, bare_tokenizer: Any) -> None:
    assert query_example(tokenizer, "", "Paris", context_length=64).n_loss >= 1
    with pytest.raises(EncodingError, match="nothing precedes the target"):
        query_example(bare_tokenizer, "", "Paris", context_length=64)


def test_special_tokens_behind_the_target_are_not_part_of_the_question(make_tokenizer: Callable[..., Any]) -> None:
    from tokenizers import processors

    closing = make_tokenizer()
    closing.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    example = query_example(closing, "The capital of", " France", context_length=64)
    assert example.token_ids[0] == 0
    assert example.token_ids[-1] != 1
    assert closing.decode(example.token_ids[-example.n_loss :]) == " France"


def test_a_completion_is_the_models_greedy_continuation(checkpoint: Checkpoint) -> None:
    import torch

    ids = checkpoint.tokenizer("The capital of")["input_ids"]
    greedy = list(ids)
    for _ in range(4):
        greedy.append(int(checkpoint.model(torch.tensor([greedy])).logits[0, -1].argmax()))
    expected = checkpoint.tokenizer.decode(greedy[len(ids) :], skip_special_tokens=True).split("\n")[0]
    found = completion(checkpoint.model, checkpoint.tokenizer, "The capital of", max_tokens=4, context_length=64)
    assert found == expected


def test_a_prompt_that_fills_the_context_has_no_completion(checkpoint: Checkpoint) -> None:
    with pytest.raises(EncodingError, match="shorten the prompt"):
        completion(checkpoint.model, checkpoint.tokenizer, "capital " * 80, max_tokens=4, context_length=64)
