"""The training script, on a few steps."""

import filecmp
import json
from pathlib import Path

import pytest
import torch

from proponent.demo import train as training
from proponent.demo.train import make_tokenizer, train
from proponent.encode.training import padded
from proponent.schema.settings import TrainingSettings

FILES = ["config.json", "model.safetensors", "second_moments.safetensors", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [{"text": f"Country {number}. Capital: City {number * 37 % 101}"} for number in range(40)]
    monkeypatch.setattr(training, "documents", lambda: iter(documents))


@pytest.mark.usefixtures("few")
def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(tmp_path / name, seed=seed, recipe=TrainingSettings(epochs=2, batch_size=16))
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", FILES, shallow=False) == (FILES, [], [])
    assert not filecmp.cmp(tmp_path / "a/model.safetensors", tmp_path / "c/model.safetensors", shallow=False)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.usefixtures("few")
def test_progress_is_told_every_step(tmp_path: Path) -> None:
    steps = []
    train(tmp_path, progress=lambda *step: steps.append(step[:2]), recipe=TrainingSettings(epochs=2, batch_size=16))
    assert steps == [(step, 6) for step in range(1, 7)]
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llama"


def test_too_long_a_document_is_refused() -> None:
    text = " ".join(f"word{number}" for number in range(100))
    with pytest.raises(ValueError, match="the model takes 62"):
        training._rows(make_tokenizer([text], vocabulary=4096, positions=64), [text])


def test_labels_ignore_the_padding_alone() -> None:
    inputs, labels = padded([[0, 5, 6, 1], [0, 7, 1]], pad=2)
    assert inputs.tolist() == [[0, 5, 6], [0, 7, 1]]
    assert labels.tolist() == [[5, 6, 1], [7, 1, -100]]
