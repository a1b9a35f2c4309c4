"""A tail-patch is one step of the optimizer, and leaves the weights as they were to the bit."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from proponent.encode.checkpoint import Checkpoint, load_checkpoint, read_facts
from proponent.encode.gradients import Example
from proponent.encode.layers import cover
from proponent.encode.moments import ElementwiseMoments, FactoredMoments, Moments
from proponent.encode.tail_patch import TailPatch, weights_hash
from proponent.schema.errors import EncodingError, ModelMismatchError

PASSAGE = Example((0, 70, 75, 90, 100, 81))
TARGETS = [Example((0, 70, 75, 90), n_target=2), Example((0, 71, 72), n_target=1)]


@pytest.fixture(scope="module")
def checkpoint(checkpoint_dir: Path) -> Checkpoint:
    return load_checkpoint(read_facts(checkpoint_dir))


def log_probability(model: Any, example: Example) -> float:
    ids = torch.tensor([example.token_ids])
    with torch.no_grad():
        losses = functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
    return -float(losses[-example.n_loss :].sum())


def moments_of(model: Any, *, factored: bool) -> Moments:
    draw = torch.Generator().manual_seed(0)
    full = {layer.name: 1e-4 + torch.rand(layer.shape, generator=draw) for layer in cover(model, blocks=1).layers}
    if not factored:
        return ElementwiseMoments(full)
    rows, columns = ({name: value.mean(side) for name, value in full.items()} for side in (1, 0))
    return FactoredMoments("adam-factored", rows, columns)


def stepped(model: Any, *, lr: float, moments: Moments | None) -> Any:
    """A copy of the model after the step, taken by torch's own optimizer or by the formula."""
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    ids = torch.tensor([PASSAGE.token_ids])
    functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:]).backward()
    if moments is None:
        torch.optim.SGD(model.parameters(), lr=lr).step()
        return model
    with torch.no_grad():
        for layer in cover(model, blocks=1).layers:
            weight = dict(model.named_parameters())[layer.parameter]
            if isinstance(moments, ElementwiseMoments):
                roots = moments.values[layer.name].sqrt()
            else:
                rows, columns = moments.rows[layer.name], moments.columns[layer.name]
                roots = (rows[:, None] * columns / rows.mean()).sqrt()
            weight -= lr * weight.grad / roots
    return model


@pytest.mark.parametrize("kind", ["sgd", "adam", "adam-factored"])
def test_changes_are_those_of_one_step(checkpoint: Checkpoint, kind: str) -> None:
    model = checkpoint.model
    moments = None if kind == "sgd" else moments_of(model, factored=kind == "adam-factored")
    lr = 0.1 if moments is None else 1e-2
    after = stepped(model, lr=lr, moments=moments)
    with TailPatch(model, lr=lr, moments=moments) as patch:
        changes = patch.changes(PASSAGE, TARGETS)
        assert patch.share == 1 if moments is None else 0.1 < patch.share < 1
    for target, change in zip(TARGETS, changes, strict=True):
        old, new = (log_probability(one, target) for one in (model, after))
        assert abs(new - old) > 1e-3
        assert change.log_probability == pytest.approx(new - old, rel=1e-3, abs=1e-5)
        assert change.probability == pytest.approx(torch.tensor([new, old]).exp().diff().neg().item(), abs=1e-6)


def test_a_step_on_the_target_itself_makes_it_likelier(checkpoint: Checkpoint) -> None:
    with TailPatch(checkpoint.model, lr=0.05) as patch:
        [change] = patch.changes(TARGETS[0], [TARGETS[0]])
    assert change.log_probability > 0
    assert change.probability > 0


def test_weights_are_the_same_bits_afterwards_whatever_happens(checkpoint: Checkpoint) -> None:
    model = checkpoint.model
    before, bits = weights_hash(model), [parameter.detach().clone() for parameter in model.parameters()]
    with TailPatch(model, lr=1e3) as patch:
        patch.changes(PASSAGE, TARGETS)
        assert weights_hash(model) == before
        with pytest.raises(IndexError):
            patch.changes(PASSAGE, [Example((0, 10**6), n_target=1)])
        assert weights_hash(model) == before
        assert patch.changes(PASSAGE, TARGETS) == patch.changes(PASSAGE, TARGETS)
        with pytest.raises(EncodingError, match="one token"):
            patch.changes(Example((0,)), TARGETS)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), bits, strict=True))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    assert weights_hash(model) != before
    with torch.no_grad():
        next(model.parameters()).copy_(bits[0])


def test_a_model_in_half_precision_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelMismatchError, match="float32"):
        TailPatch(copy.deepcopy(checkpoint.model).bfloat16(), lr=1.0)
