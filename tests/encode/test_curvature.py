"""R0 is the shrunk second moment of Ledoit and Wolf, and whitening is its inverse root."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proponent.encode.curvature import SecondMoment, Whitening, apply, diagnostics
from proponent.schema.errors import EncodingError


def sample(n: int, dim: int, *, groups: int = 2, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    """Return encodings (n, groups, dim) float32 whose components differ in scale."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, spread, dim)
    return torch.randn(n, groups, dim, generator=generator) * scales


def ledoit_wolf(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Shrink the second moment about zero of rows (n, p), written out row by row as in the paper (lemmas 3.2-3.4)."""
    n, p = x.shape
    moment = x.T @ x / n
    mu = np.trace(moment) / p
    d2 = np.sum((moment - mu * np.eye(p)) ** 2)
    b2 = min(sum(np.sum((np.outer(row, row) - moment) ** 2) for row in x) / n**2, d2)
    rho = b2 / d2
    return (1 - rho) * moment + rho * mu * np.eye(p), rho


@given(st.integers(2, 40), st.integers(2, 12), st.integers(0, 1000))
def test_shrinkage_is_that_of_ledoit_and_wolf(n: int, dim: int, seed: int) -> None:
    phi = sample(n, dim, seed=seed)
    moment = SecondMoment(2, dim)
    moment.add(phi)
    shrunk, rho = moment.shrunk()
    for group in range(2):
        expected, weight = ledoit_wolf(phi[:, group].double().numpy())
        assert float(rho[group]) == pytest.approx(weight, rel=1e-9, abs=1e-12)
        np.testing.assert_allclose(shrunk[group].numpy(), expected, rtol=1e-9, atol=1e-9)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(0, 1000))
def test_the_sums_do_not_depend_on_the_batches(sizes: list[int], seed: int) -> None:
    phi = sample(sum(sizes) + 2, 6, seed=seed)
    whole, pieces = SecondMoment(2, 6), SecondMoment(2, 6)
    whole.add(phi)
    for part in phi.split([*sizes, 2]):
        pieces.add(part)
    assert pieces.n_rows == whole.n_rows
    torch.testing.assert_close(pieces.shrunk()[0], whole.shrunk()[0])


@given(st.integers(2, 200), st.integers(2, 10), st.floats(0, 4), st.integers(0, 1000))
def test_the_weight_is_a_share_and_the_trace_is_kept(n: int, dim: int, spread: float, seed: int) -> None:
    moment = SecondMoment(2, dim)
    phi = sample(n, dim, seed=seed, spread=spread)
    moment.add(phi)
    shrunk, rho = moment.shrunk()
    assert ((rho >= 0) & (rho <= 1)).all()
    torch.testing.assert_close(shrunk.diagonal(dim1=1, dim2=2).sum(1), phi.double().square().sum(2).mean(0))


def test_the_weight_falls_as_the_sample_grows() -> None:
    weights = []
    for n in (16, 64, 256, 1024):
        moment = SecondMoment(1, 16)
        moment.add(sample(n, 16, groups=1))
        weights.append(float(moment.shrunk()[1]))
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] < 0.05


def test_equal_directions_shrink_to_the_identity() -> None:
    moment = SecondMoment(1, 4)
    moment.add(torch.eye(4)[:, None, :])
    shrunk, rho = moment.shrunk()
    assert rho.tolist() == [1.0]
    torch.testing.assert_close(shrunk[0], torch.eye(4, dtype=torch.float64) / 4)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows_have_no_curvature(n: int) -> None:
    moment = SecondMoment(2, 4)
    moment.add(sample(n, 4))
    with pytest.raises(EncodingError, match="at least 2"):
        moment.shrunk()


def test_whitened_samples_have_the_identity_as_their_second_moment() -> None:
    phi = sample(500, 12).double()
    whitening = Whitening.of(torch.einsum("bgi,bgj->gij", phi, phi) / len(phi))
    psi = apply(whitening.power(-0.5), phi.float())
    found = torch.einsum("bgi,bgj->gij", psi, psi) / len(psi)
    torch.testing.assert_close(found, torch.eye(12).expand(2, 12, 12), rtol=0, atol=1e-4)


@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.5, 1.0])
def test_powers_are_symmetric_and_undone_by_their_opposite(exponent: float) -> None:
    whitening = Whitening.of(sample_moment())
    power = whitening.power(exponent)
    torch.testing.assert_close(power, power.transpose(1, 2))
    torch.testing.assert_close(
        power.double() @ whitening.power(-exponent).double(),
        torch.eye(8, dtype=torch.float64).expand(2, 8, 8),
        rtol=0,
        atol=1e-4,
    )


def sample_moment() -> torch.Tensor:
    phi = sample(200, 8).double()
    return torch.einsum("bgi,bgj->gij", phi, phi) / len(phi)


@pytest.mark.parametrize("broken", [torch.zeros(2, 4, 4), torch.eye(4).expand(2, 4, 4) * -1])
def test_a_curvature_that_is_not_positive_definite_is_refused(broken: torch.Tensor) -> None:
    with pytest.raises(EncodingError, match="singular"):
        Whitening.of(broken.double())


def test_diagnostics_say_what_a_reader_needs_to_judge_a_curvature() -> None:
    moment = SecondMoment(2, 8)
    moment.add(sample(100, 8))
    shrunk, rho = moment.shrunk()
    found = diagnostics(moment, rho, Whitening.of(shrunk))
    assert found["sample"] == 100
    assert found["dimensions_per_group"] == 8
    assert found["rho"] == rho.tolist()
    assert all(1 <= rank <= 8 for rank in found["effective_rank"])
    for group, quantiles in enumerate(found["spectrum_quantiles_0_10_50_90_100"]):
        eigenvalues = np.linalg.eigvalsh(shrunk[group].numpy())
        assert quantiles == pytest.approx(np.quantile(eigenvalues, [0, 0.1, 0.5, 0.9, 1]).tolist())
