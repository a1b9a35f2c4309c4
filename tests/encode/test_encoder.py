"""psi is R0^(-1/2) phi, whatever batches it is made in, and a restored encoder is the same to the last bit."""

import copy
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from proponent.encode.batches import TokenBudget
from proponent.encode.checkpoint import Checkpoint
from proponent.encode.encoder import Encoder, Projector, encoder_state, factored_moments, fit, restore_encoder
from proponent.encode.gradients import Example
from proponent.encode.tokens import passage_examples
from proponent.schema.errors import EncodingError, ModelMismatchError
from proponent.schema.settings import EncoderSettings


@pytest.fixture(scope="module")
def encoded(encoder: Encoder, examples: list[Example]) -> torch.Tensor:
    return encoder.encode(examples).vectors


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float(((found - exact).norm(dim=1) / exact.norm(dim=1)).max())


def test_psi_is_the_inverse_root_of_the_curvature_times_phi(
    encoder: Encoder, examples: list[Example], encoded: torch.Tensor, exact_phi: Callable[..., torch.Tensor]
) -> None:
    projector = encoder.projector
    phi = exact_phi(projector.checkpoint, projector.settings, projector.moments, examples)
    vectors, values = encoder.whitening.vectors.double(), encoder.whitening.values
    curvature = vectors * values[:, None, :] @ vectors.transpose(1, 2)
    solved = [torch.linalg.eigh(block) for block in curvature]
    roots = torch.stack([v / e.sqrt() @ v.T for e, v in solved])
    exact = torch.einsum("gij,bgj->bgi", roots, phi).flatten(1)
    assert relative_error(encoded.double(), exact) <= 1e-5


def test_the_fitted_curvature_is_the_shrunk_second_moment_of_phi(
    checkpoint: Checkpoint, settings: EncoderSettings, sentences: list[str], exact_phi: Callable[..., torch.Tensor]
) -> None:
    sample = passage_examples(checkpoint.tokenizer, sentences[:12])
    fitted, found = fit(Projector(checkpoint, settings, None), sample)
    phi = exact_phi(checkpoint, settings, None, sample)
    moment = torch.einsum("bgi,bgj->gij", phi, phi) / len(phi)
    rho = torch.tensor(found["rho"], dtype=torch.float64)
    mu = moment.diagonal(dim1=1, dim2=2).mean(1)
    exact = (1 - rho)[:, None, None] * moment + (rho * mu)[:, None, None] * torch.eye(64, dtype=torch.float64)
    power = fitted.whitening.power(1.0).double()
    assert relative_error(power.flatten(1), exact.flatten(1)) <= 1e-5
    assert found["sample"] == 12


@given(data=st.data(), budget=st.integers(16, 600))
@hypothesis_settings(max_examples=15)
def test_encodings_depend_neither_on_order_nor_company_nor_token_budget(
    encoder: Encoder, examples: list[Example], encoded: torch.Tensor, data: st.DataObject, budget: int
) -> None:
    places = data.draw(st.lists(st.integers(0, len(examples) - 1), min_size=1, max_size=12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder.projector, "budget", TokenBudget(budget))
        found = encoder.encode([examples[place] for place in places]).vectors
    assert relative_error(found, encoded[places]) <= 1e-5


def test_examples_without_a_loss_get_zero_vectors_in_their_places(
    encoder: Encoder, examples: list[Example], encoded: torch.Tensor
) -> None:
    found = encoder.encode([Example(()), examples[0], Example((4,)), examples[1]])
    assert found.vectors[[0, 2]].abs().sum() == 0
    assert found.losses[[0, 2]].tolist() == [0, 0]
    assert relative_error(found.vectors[[1, 3]], encoded[:2]) <= 1e-5


def test_encoding_nothing_gives_nothing(encoder: Encoder) -> None:
    assert encoder.encode([]).vectors.shape == (0, encoder.projector.settings.dim)


def test_a_restored_encoder_encodes_to_the_last_bit_the_same(
    checkpoint: Checkpoint, encoder: Encoder, examples: list[Example], encoded: torch.Tensor
) -> None:
    restored = restored_from(encoder, encoder_state(encoder))
    assert torch.equal(restored.encode(examples).vectors, encoded)


def test_an_encoder_without_moments_is_restored_too(
    checkpoint: Checkpoint, settings: EncoderSettings, sentences: list[str], examples: list[Example]
) -> None:
    fitted, _ = fit(Projector(checkpoint, settings, None), passage_examples(checkpoint.tokenizer, sentences))
    restored = restored_from(fitted, encoder_state(fitted))
    assert restored.projector.moments is None
    assert torch.equal(restored.encode(examples).vectors, fitted.encode(examples).vectors)


def restored_from(encoder: Encoder, state: dict[str, torch.Tensor], **changes: Any) -> Encoder:
    projector = encoder.projector
    given: dict[str, Any] = {
        "moments": factored_moments("estimated", state) if projector.moments else None,
        "projection_hash": projector.projection_hash,
    }
    return restore_encoder(projector.checkpoint, projector.settings, state=state, **given | changes)


def test_other_projections_than_the_lakes_are_refused(encoder: Encoder) -> None:
    with pytest.raises(ModelMismatchError, match="projections of this machine differ"):
        restored_from(encoder, encoder_state(encoder), projection_hash="a" * 26)


def test_a_sample_smaller_than_a_group_is_warned_of(
    checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="proponent"):
        fit(Projector(checkpoint, settings, None), examples)
    assert "fitted on 21 passages for 64 dimensions" in caplog.text


def test_a_sample_large_enough_is_not_warned_of(
    checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="proponent"):
        fit(Projector(checkpoint, settings, None), examples * 4)
    assert not caplog.records


def test_fitting_leaves_out_what_is_not_finite(
    checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    projector = Projector(checkpoint, settings, None)
    clean, _ = fit(projector, examples[1:])
    right = projector.phi

    def spoiled(some: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        phi, losses = right(some)
        phi[[example is examples[0] for example in some]] = torch.nan
        return phi, losses

    monkeypatch.setattr(projector, "phi", spoiled)
    found, diagnostics = fit(projector, examples)
    assert diagnostics["sample"] == len(examples) - 1
    torch.testing.assert_close(found.whitening.power(1.0), clean.whitening.power(1.0), rtol=1e-4, atol=1e-6)


def test_fitting_on_nothing_is_an_error(checkpoint: Checkpoint, settings: EncoderSettings) -> None:
    with pytest.raises(EncodingError, match="at least 2 encodable passages, not 0"):
        fit(Projector(checkpoint, settings, None), [Example((3,))])


def test_another_seed_is_another_encoding_of_the_same_size(
    checkpoint: Checkpoint, settings: EncoderSettings, examples: list[Example]
) -> None:
    one = Projector(checkpoint, settings, None).phi(examples[:1])[0]
    other = Projector(checkpoint, replace(settings, seed=99), None).phi(examples[:1])[0]
    assert one.shape == other.shape
    assert not torch.allclose(one, other)


def test_encodings_do_not_depend_on_the_number_of_threads(
    encoder: Encoder, examples: list[Example], encoded: torch.Tensor
) -> None:
    torch.set_num_threads(2)
    try:
        found = encoder.encode(examples).vectors
    finally:
        torch.set_num_threads(1)
    assert relative_error(found, encoded) <= 1e-5


WORKER = """
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
from proponent.encode.checkpoint import load_checkpoint, read_facts
from proponent.encode.encoder import factored_moments, restore_encoder
from proponent.encode.gradients import Example
from proponent.schema.settings import EncoderSettings

kept = torch.load(sys.argv[1], weights_only=True)
encoder = restore_encoder(
    load_checkpoint(read_facts(Path(sys.argv[2]))),
    EncoderSettings(**kept["settings"]),
    moments=factored_moments("estimated", kept["state"]),
    state=kept["state"],
    projection_hash=kept["projection_hash"],
)
share = [Example(tuple(ids), n_target) for ids, n_target in kept["examples"]][int(sys.argv[3]) :: 2]
torch.save(encoder.encode(share).vectors, sys.argv[4])
"""


def test_encodings_of_several_workers_are_those_of_one(
    encoder: Encoder, checkpoint_dir: Path, examples: list[Example], encoded: torch.Tensor, tmp_path: Path
) -> None:
    projector = encoder.projector
    kept = {
        "settings": projector.settings.to_dict(),
        "state": encoder_state(encoder),
        "projection_hash": projector.projection_hash,
        "examples": [(list(example.token_ids), example.n_target) for example in examples],
    }
    torch.save(kept, tmp_path / "kept")
    outputs = [tmp_path / "0.pt", tmp_path / "1.pt"]
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, tmp_path / "kept", checkpoint_dir, str(n), output])
        for n, output in enumerate(outputs)
    ]
    assert [worker.wait() for worker in workers] == [0, 0]
    found = torch.empty_like(encoded)
    for n, output in enumerate(outputs):
        found[n::2] = torch.load(output, weights_only=True)
    assert relative_error(found, encoded) <= 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_encodings_do_not_depend_on_the_device(
    encoder: Encoder, examples: list[Example], encoded: torch.Tensor, checkpoint: Checkpoint
) -> None:
    moved = replace(checkpoint, model=copy.deepcopy(checkpoint.model).to("cuda"))
    projector = Projector(moved, encoder.projector.settings, encoder.projector.moments)
    assert projector.projection_hash == encoder.projector.projection_hash
    found = Encoder(projector, encoder.whitening, encoder.inverse_root.to("cuda")).encode(examples).vectors
    assert relative_error(found, encoded) <= 1e-5


@pytest.mark.parametrize("ids", [(0, 5, 320), (0, -1, 5), tuple(range(65))], ids=["too large", "negative", "too long"])
def test_what_the_model_cannot_read_gets_a_zero_vector_and_spoils_nothing(
    encoder: Encoder, examples: list[Example], encoded: torch.Tensor, ids: tuple[int, ...]
) -> None:
    found = encoder.encode([examples[0], Example(ids), examples[1]])
    assert not found.vectors[1].any()
    assert relative_error(found.vectors[[0, 2]], encoded[:2]) <= 1e-5
