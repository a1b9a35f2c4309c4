"""Passages carry the loss on every token, queries on the target's alone, and the seam belongs to the target."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import proponent.demo
from proponent.encode.checkpoint import Checkpoint, load_tokenizer
from proponent.encode.tokens import chat_prompt, completion, passage_examples, query_example
from proponent.schema.errors import EncodingError


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A real one, of the demo's model: byte-level BPE with a first token."""
    return load_tokenizer(Path(proponent.demo.__file__).parent / "checkpoint")


@pytest.fixture(scope="module")
def bare_tokenizer(make_tokenizer: Callable[..., Any]) -> Any:
    """One that adds no first token."""
    return make_tokenizer(first_token=False)


@pytest.fixture(scope="module")
def chat_tokenizer(make_tokenizer: Callable[..., Any]) -> Any:
    """One with a chat template, whose first token the template writes, too."""
    return make_tokenizer(chat=True)


class Scripted:
    """Stands for a model that goes on with the same tokens whatever it is given."""

    def __init__(self, *new: int) -> None:
        self.new = list(new)
        self.read: list[int] = []

    def generate(self, ids: Any, *, max_new_tokens: int, **_: Any) -> Any:
        import torch

        self.read = ids[0].tolist()
        return torch.cat([ids, torch.tensor([self.new[:max_new_tokens]])], 1)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


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


def test_a_chat_has_the_templates_tokens_once_and_the_loss_on_the_answer(chat_tokenizer: Any) -> None:
    prompt = chat_prompt(chat_tokenizer, said("The capital of France?"))
    assert prompt == "<s><|user|>\nThe capital of France?</s>\n<|assistant|>\n"
    example = query_example(chat_tokenizer, prompt, "Paris.", context_length=64, rendered=True)
    templated = chat_tokenizer.apply_chat_template(said("The capital of France?"), add_generation_prompt=True)
    before, answer = list(example.token_ids[: -example.n_loss]), list(example.token_ids[-example.n_loss :])
    assert before == templated["input_ids"]
    assert chat_tokenizer.decode(answer) == "Paris."
    assert example.token_ids.count(chat_tokenizer.bos_token_id) == 1


def test_turns_before_the_last_are_part_of_the_prompt(chat_tokenizer: Any) -> None:
    turns = [{"role": "system", "content": "Be brief."}, *said("Hello"), {"role": "assistant", "content": "Yes?"}]
    prompt = chat_prompt(chat_tokenizer, [*turns, *said("The capital of Peru?")])
    assert prompt.startswith("<s><|system|>\nBe brief.</s>\n<|user|>\nHello</s>\n<|assistant|>\nYes?</s>\n<|user|>")
    assert prompt.endswith("<|assistant|>\n")


@given(st.text(max_size=12), st.text(min_size=1, max_size=12))
def test_every_answer_of_any_text_has_its_tokens_and_no_others(chat_tokenizer: Any, prompt: str, target: str) -> None:
    assume("<" not in prompt + target)
    rendered = chat_prompt(chat_tokenizer, said(prompt))
    example = query_example(chat_tokenizer, rendered, target, context_length=400, rendered=True)
    encoded = chat_tokenizer(rendered + target, add_special_tokens=False, return_offsets_mapping=True)
    assert list(example.token_ids) == encoded["input_ids"]
    assert sum(end > len(rendered) for _, end in encoded["offset_mapping"]) == example.n_target


def test_an_answer_that_merges_with_the_end_of_the_template_counts_with_the_token_that_spans(
    make_tokenizer: Callable[..., Any],
) -> None:
    merging = make_tokenizer(first_token=False)
    merging.chat_template = "{{ messages[0].content }} The c"
    prompt = chat_prompt(merging, said("Say it."))
    example = query_example(merging, prompt, "apital", context_length=64, rendered=True)
    assert merging.decode(example.token_ids[-example.n_loss :]) == " capital"


@pytest.mark.parametrize(
    ("prompt", "target"),
    [("The c", "apital"), ("e", "\u0301té"), ("👩", "\u200d🔬 at work"), ("a\r", "\nb"), ("日", "本")],
)
def test_a_target_that_merges_with_the_prompt_keeps_every_character(
    bare_tokenizer: Any, prompt: str, target: str
) -> None:
    prompt = "The language of " + prompt
    example = query_example(bare_tokenizer, prompt, target, context_length=64)
    taken = bare_tokenizer.decode(example.token_ids[-example.n_loss :])
    assert taken.endswith(target)
    assert (prompt + target).endswith(taken)


def test_a_tokenizer_without_a_template_says_what_to_do(tokenizer: Any) -> None:
    with pytest.raises(EncodingError, match=r"no chat template; .* chat_template\.jinja") as caught:
        chat_prompt(tokenizer, said("Hello"))
    assert "\n" not in str(caught.value)


def test_messages_that_the_template_refuses_are_named_in_one_line(chat_tokenizer: Any) -> None:
    with pytest.raises(EncodingError, match="does not take these messages: tools are not supported"):
        chat_prompt(chat_tokenizer, [{"role": "tool", "content": "x"}])


def test_a_template_cannot_reach_out_of_its_sandbox(make_tokenizer: Callable[..., Any]) -> None:
    hostile = make_tokenizer(chat=True)
    hostile.chat_template = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(EncodingError, match=r"does not take these messages: .*unsafe"):
        chat_prompt(hostile, said("Hello"))


@pytest.mark.parametrize("prompt", ["<s><|user|>\nHi</s>\n<|assistant|>\n", "Hi\n<|assistant|>", "Hi <|assistant|>  "])
def test_a_prompt_that_is_in_the_template_already_is_refused(chat_tokenizer: Any, prompt: str) -> None:
    with pytest.raises(EncodingError, match="in the chat template already"):
        chat_prompt(chat_tokenizer, said(prompt))


def test_a_chat_longer_than_the_context_is_refused(chat_tokenizer: Any) -> None:
    prompt = chat_prompt(chat_tokenizer, said("word " * 40))
    with pytest.raises(EncodingError, match="tokens, the model reads 64; shorten the prompt"):
        query_example(chat_tokenizer, prompt, "x", context_length=64, rendered=True)
    with pytest.raises(EncodingError, match="shorten the prompt"):
        completion(Scripted(5), chat_tokenizer, prompt, context_length=64, rendered=True)


def test_an_answer_ends_with_the_turn_and_not_with_the_line(chat_tokenizer: Any) -> None:
    prompt = chat_prompt(chat_tokenizer, said("Two lines."))
    new = chat_tokenizer("The capital\nof France", add_special_tokens=False)["input_ids"]
    model = Scripted(*new, chat_tokenizer.eos_token_id, *new)
    assert completion(model, chat_tokenizer, prompt, context_length=99, rendered=True) == "The capital\nof France"
    assert model.read == chat_tokenizer(prompt, add_special_tokens=False)["input_ids"]
    plain = completion(model, chat_tokenizer, "Two lines.", context_length=99)
    assert plain == "The capital"


def test_a_completion_in_other_tokens_than_its_text_is_told(
    bare_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    merged = bare_tokenizer(" capital")["input_ids"]
    letters = [token for letter in " capital" for token in bare_tokenizer(letter)["input_ids"]]
    with caplog.at_level(logging.WARNING):
        assert completion(Scripted(*merged), bare_tokenizer, "The", context_length=64) == " capital"
        assert caplog.messages == []
        assert completion(Scripted(*letters), bare_tokenizer, "The", context_length=64) == " capital"
    assert caplog.messages == [
        "the model generated ' capital' as other tokens than the tokenizer reads; the text is traced"
    ]


def test_a_completion_does_not_end_inside_a_character(bare_tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    new = bare_tokenizer(" franc日")["input_ids"]
    with caplog.at_level(logging.WARNING):
        found = completion(Scripted(*new), bare_tokenizer, "The", context_length=64, max_tokens=len(new) - 1)
    assert found == " franc"
    assert caplog.messages == []


def test_a_prompt_is_completed_without_the_token_that_would_end_it(make_tokenizer: Callable[..., Any]) -> None:
    from tokenizers import processors

    closing = make_tokenizer()
    closing.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    new = closing(" France", add_special_tokens=False)["input_ids"]
    model = Scripted(*new, 1)
    assert completion(model, closing, "The capital of", context_length=64) == " France"
    assert model.read == closing("The capital of")["input_ids"][:-1]


def test_a_model_that_says_nothing_has_no_completion(chat_tokenizer: Any) -> None:
    with pytest.raises(EncodingError, match="with nothing; name the target"):
        completion(Scripted(chat_tokenizer.eos_token_id), chat_tokenizer, "The", context_length=64)
