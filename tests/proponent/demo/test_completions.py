"""What the committed checkpoint completes, and that the answer is greedy decoding's."""

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from proponent.demo import completions
from proponent.demo.completions import completes
from proponent.demo.factbook import Fact, facts

CHECKPOINT = Path(completions.__file__).parent / "checkpoint"
FACTS = facts()


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32, local_files_only=True).eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(CHECKPOINT, local_files_only=True)


@pytest.fixture(scope="module")
def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[bool]:
    return completes(model, tokenizer, FACTS)


def test_the_readme_tells_the_accuracy(answers: list[bool]) -> None:
    """Rows of the table: `| capital | 232 | 233 |`; two facts a relation may tip over on another processor."""
    table = re.findall(r"^\| ([a-z ]+?) \| (\d+) \| (\d+) \|", (CHECKPOINT / "README.md").read_text(), re.MULTILINE)
    stated = {relation: (int(right), int(asked)) for relation, right, asked in table}
    measured = defaultdict(list)
    for fact, answer in zip(FACTS, answers, strict=True):
        measured[fact.relation].append(answer)
    assert set(stated) == {*measured, "all"}
    for relation, outcome in measured.items():
        assert len(outcome) == stated[relation][1]
        assert abs(sum(outcome) - stated[relation][0]) <= 2
    assert stated["all"][1] == len(FACTS)


def test_agrees_with_generating(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, answers: list[bool]
) -> None:
    """Right and wrong answers alike; a plain loop, one token at a time, is the reference."""
    wrong = [index for index, answer in enumerate(answers) if not answer]
    for index in [*range(0, len(FACTS), 80), *wrong[:8]]:
        fact = FACTS[index]
        target = tokenizer(fact.target, add_special_tokens=False)["input_ids"]
        ids = tokenizer(fact.prompt)["input_ids"]
        start = len(ids)
        with torch.inference_mode():
            while len(ids) < start + len(target):
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert answers[index] == (ids[start:] == target), fact


def test_batches_and_padding_side_change_nothing(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, answers: list[bool]
) -> None:
    side = tokenizer.padding_side
    try:
        for tokenizer.padding_side in ("left", "right"):
            assert completes(model, tokenizer, FACTS[:150], batch_size=7) == answers[:150]
    finally:
        tokenizer.padding_side = side


def test_wrong_targets_are_not_completed(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    wrong = Fact("capital", "France", "France. Capital:", " London", ())
    almost = Fact("capital", "France", "France. Capital:", " Paris London", ())
    assert completes(model, tokenizer, [wrong, almost]) == [False, False]
    assert completes(model, tokenizer, []) == []


def test_impossible_facts_are_named(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="no tokens"):
        completes(model, tokenizer, [Fact("capital", "France", "France. Capital:", "", ())])
    with pytest.raises(ValueError, match="the model 64"):
        completes(model, tokenizer, [Fact("capital", "France", "France. Capital:" * 20, " Paris", ())])


def test_the_tokenizer_puts_bos_in_front_and_nothing_behind(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("France. Capital: Paris", add_special_tokens=True)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert not set(ids[1:]) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "France. Capital: Paris"


def test_moments_fit_the_weights(model: PreTrainedModel) -> None:
    weights = {name: weight.shape for name, weight in model.named_parameters() if "_proj" in name}
    with safe_open(CHECKPOINT / "second_moments.safetensors", "pt") as file:
        assert file.metadata()["format"] == "proponent-moments/1"
        assert file.metadata()["kind"] == "adam-factored"
        assert set(file.keys()) == {f"{name}.{factor}" for name in weights for factor in ("row", "col")}
        for name, (rows, columns) in weights.items():
            row, column = file.get_tensor(f"{name}.row"), file.get_tensor(f"{name}.col")
            assert row.shape == (rows,)
            assert column.shape == (columns,)
            assert row.dtype == column.dtype == torch.float32
            assert (row > 0).all()
            assert (column > 0).all()
            # Both are means of the same matrix.
            torch.testing.assert_close(row.mean(), column.mean())


def test_the_checkpoint_is_small() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) < 4_000_000
    assert json.loads((CHECKPOINT / "config.json").read_text())["dtype"] == "bfloat16"
