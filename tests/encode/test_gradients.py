"""phi is what its definition says, to rounding, and no example's encoding depends on its company."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proponent.encode.checkpoint import Checkpoint
from proponent.encode.encoder import Projector, estimate_moments
from proponent.encode.gradients import Example, backpropagate
from proponent.encode.visitors import ProjectedSum
from proponent.schema.settings import EncoderSettings


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the largest error of a row, relative to the row's norm."""
    found, exact = found.double().flatten(1), exact.double().flatten(1)
    return float(((found - exact).norm(dim=1) / exact.norm(dim=1)).max())


def test_losses_are_summed_cross_entropies_in_nats(
    checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example]
) -> None:
    _, losses = Projector(checkpoint, settings, None).phi(examples)
    for example, loss in zip(examples, losses.tolist(), strict=True):
        ids = torch.tensor(example.token_ids)
        chosen = checkpoint.model(ids[None]).logits[0, :-1].log_softmax(1).gather(1, ids[1:, None])[-example.n_loss :]
        assert loss == pytest.approx(-chosen.sum().item(), rel=1e-5)


def test_a_target_only_loss_ignores_the_prompts_tokens_as_outputs(
    checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example]
) -> None:
    ids = examples[0].token_ids
    n_loss = len(ids) - 1
    parts = [Example(ids[: end + 1], n_target=1) for end in range(1, n_loss + 1)]
    projector = Projector(checkpoint, settings, None)
    whole, _ = projector.phi([Example(ids)])
    one_by_one, _ = projector.phi(parts)
    assert relative_error(one_by_one.sum(0, keepdim=True), whole) <= 1e-5


@pytest.fixture(scope="module")
def alone(checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example]) -> torch.Tensor:
    projector = Projector(checkpoint, settings, None)
    return torch.cat([projector.phi([example])[0] for example in examples])


@given(st.data())
def test_an_encoding_depends_on_nothing_but_its_example(
    checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example], alone: torch.Tensor, data: st.DataObject
) -> None:
    places = data.draw(st.lists(st.integers(0, len(examples) - 1), min_size=1, max_size=6))
    phi, _ = Projector(checkpoint, settings, None).phi([examples[place] for place in places])
    assert relative_error(phi, alone[places]) <= 1e-5


@pytest.mark.parametrize("width", [1, 7, 40])
def test_an_encoding_does_not_depend_on_the_amount_of_padding(
    checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example], alone: torch.Tensor, width: int
) -> None:
    longest = Example(tuple(range(2, 2 + min(64, len(examples[0].token_ids) + width))))
    phi, _ = Projector(checkpoint, settings, None).phi([examples[0], longest])
    assert relative_error(phi[:1], alone[:1]) <= 1e-5


@pytest.mark.parametrize(
    ("example", "n_loss"),
    [
        (Example(()), -1),
        (Example((5,)), 0),
        (Example((5, 6)), 1),
        (Example((5, 6, 7)), 2),
        (Example((5, 6, 7), n_target=1), 1),
        (Example((5, 6, 7), n_target=9), 2),
    ],
)
def test_the_first_token_is_never_predicted(example: Example, n_loss: int) -> None:
    assert example.n_loss == n_loss


def test_an_example_that_is_not_finite_does_not_touch_its_neighbours(
    checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example], alone: torch.Tensor
) -> None:
    poison = next(token for token in range(2, 320) if all(token not in example.token_ids for example in examples))
    embedding = checkpoint.model.get_input_embeddings().weight
    before = embedding[poison].clone()
    try:
        embedding[poison] = torch.inf
        bad = Example((0, poison, 5, 6, 7))
        phi, losses = Projector(checkpoint, settings, None).phi([examples[0], bad, examples[1]])
        moments = estimate_moments(checkpoint, [examples[0], bad, examples[1]])
    finally:
        embedding[poison] = before
    assert not torch.isfinite(losses[1])
    assert relative_error(phi[[0, 2]], alone[:2]) <= 1e-5
    assert all(torch.isfinite(side).all() for side in [*moments.rows.values(), *moments.columns.values()])


def test_no_gradient_of_a_weight_is_formed_and_no_hook_is_left(
    checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example]
) -> None:
    projector = Projector(checkpoint, settings, None)
    projector.phi(examples[:2])
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in checkpoint.model.parameters())
    assert not any(module._forward_hooks for module in checkpoint.model.modules())


def test_hooks_are_removed_when_a_pass_fails(
    checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ProjectedSum, "backward", fail)
    projector = Projector(checkpoint, settings, None)
    visitor = ProjectedSum(projector._groups, projector._left, projector._right, (4, 1))
    with pytest.raises(MemoryError):
        backpropagate(checkpoint.model, projector.coverage.layers, examples[:1], visitor)
    assert not any(module._forward_hooks for module in checkpoint.model.modules())
