"""Projections are made from a seed and a name alone, and keep dot products on average."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proponent.encode.checkpoint import Checkpoint
from proponent.encode.encoder import Projector
from proponent.encode.gradients import Example
from proponent.encode.projection import gaussian
from proponent.schema.ids import content_id
from proponent.schema.settings import EncoderSettings

SIDES = st.integers(1, 40)


@given(st.text(), SIDES, SIDES, st.integers(0, 2**63))
def test_the_same_seed_and_name_make_the_same_matrix(name: str, rows: int, columns: int, seed: int) -> None:
    one = gaussian(name, rows, columns, seed=seed)
    assert one.shape == (rows, columns)
    assert one.dtype == torch.float32
    assert torch.isfinite(one).all()
    assert torch.equal(one, gaussian(name, rows, columns, seed=seed))


def test_another_seed_or_name_makes_another_matrix() -> None:
    matrices = [gaussian(name, 8, 9, seed=seed) for name in ("a/left", "a/right", "b/left") for seed in (0, 1)]
    assert len({matrix.numpy().tobytes() for matrix in matrices}) == len(matrices)


def test_the_matrix_is_what_it_was_when_the_format_was_fixed() -> None:
    rounded = np.rint(gaussian("model.layers.0.self_attn.q_proj.weight/left", 8, 8, seed=0).numpy() * 1e4)
    assert content_id("matrix", rounded.astype("<i4").tobytes()) == "ipwzlpvhpstt5ojab2yhdet7xe"


def test_entries_are_independent_standard_normals_over_the_root_of_the_rows() -> None:
    entries = gaussian("x", 64, 4096, seed=0).double().flatten() * 8
    n = len(entries)
    assert abs(entries.mean()) < 4 / n**0.5
    assert abs(entries.square().mean() - 1) < 4 * (2 / n) ** 0.5
    assert abs(entries.pow(4).mean() - 3) < 4 * (96 / n) ** 0.5
    for lag in (1, 64, n // 2):  # n // 2 joins the two outputs of one Box-Muller pair
        assert abs((entries[:-lag] * entries[lag:]).mean()) < 4 / (n - lag) ** 0.5


def test_projected_norms_of_rank_one_gradients_are_unbiased_with_the_variance_of_two_sides() -> None:
    """E|P0 g P1^T|^2 = |g|^2 and its variance is (4/s + 4/s^2) |g|^4, for each |P u|^2 is a chi-square over s."""
    side, n = 16, 4000
    generator = torch.Generator().manual_seed(0)
    y, x = (torch.randn(width, generator=generator, dtype=torch.float64) for width in (24, 40))
    y, x = y / y.norm(), x / x.norm()
    squares = torch.tensor(
        [
            (gaussian(f"{seed}/left", side, 24, seed=seed).double() @ y).square().sum()
            * (gaussian(f"{seed}/right", side, 40, seed=seed).double() @ x).square().sum()
            for seed in range(n)
        ]
    )
    variance = 4 / side + 4 / side**2
    assert abs(squares.mean() - 1) < 4 * (variance / n) ** 0.5
    deviations = (squares - 1).square()
    assert abs(deviations.mean() - variance) < 4 * deviations.std() / n**0.5


def test_dot_products_of_encodings_are_those_of_the_gradients_on_average_over_seeds(
    checkpoint: Checkpoint, examples: list[Example], full_gradients: Callable[..., dict[str, torch.Tensor]]
) -> None:
    exact = sum(float((one * other).sum()) for one, other in full_gradients(checkpoint.model, examples[:2]).values())
    seeds = [EncoderSettings(blocks=1, side=16, seed=seed) for seed in range(60)]
    encoded = [Projector(checkpoint, settings, None).phi(examples[:2])[0].flatten(1) for settings in seeds]
    found = torch.stack([one @ other for one, other in encoded])
    assert abs(found.mean() - exact) < 4 * found.std() / len(seeds) ** 0.5


@pytest.mark.parametrize("change", [{"seed": 4}, {"side": 16}])
def test_the_projection_hash_tells_projections_apart(
    checkpoint: Checkpoint, settings: EncoderSettings, change: dict[str, int]
) -> None:
    again = Projector(checkpoint, settings, None).projection_hash
    other = Projector(checkpoint, EncoderSettings(**(settings.to_dict() | change)), None).projection_hash
    assert Projector(checkpoint, settings, None).projection_hash == again != other
