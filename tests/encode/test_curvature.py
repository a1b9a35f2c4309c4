"""R0 is the shrunk second moment of Ledoit and Wolf, whitening is its inverse root, and a task's R' is what it says."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proponent.encode.curvature import (
    IdentityCurvature,
    ReferenceCurvature,
    SecondMoment,
    TaskCurvature,
    Whitening,
    apply,
    choose_mixing,
    diagnostics,
    fit_task,
)
from proponent.schema.errors import EncodingError
from proponent.schema.settings import MOST_MIXING


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
    assert all(1 <= rows <= found["sample"] for rows in found["effective_sample"])
    for group, quantiles in enumerate(found["spectrum_quantiles_0_10_50_90_100"]):
        eigenvalues = np.linalg.eigvalsh(shrunk[group].numpy())
        assert quantiles == pytest.approx(np.quantile(eigenvalues, [0, 0.1, 0.5, 0.9, 1]).tolist())


def queries(n: int, dim: int, *, groups: int = 2, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    """Return queries' vectors (n, d) float32 that share a direction, of different norms."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(groups * dim, generator=generator)
    own = torch.randn(n, groups * dim, generator=generator)
    return scale * (shared + own) * torch.logspace(-1, 1, n)[:, None]


def dense(psi: torch.Tensor, mixing: float, *, groups: int = 2) -> torch.Tensor:
    """Return R' = (1 - lambda) I + lambda mean(psi psi^T) as a block-diagonal matrix (d, d) float64."""
    blocks = psi.double().reshape(len(psi), groups, -1)
    dim = blocks.shape[2]
    moment = torch.einsum("qgi,qgj->gij", blocks, blocks) / len(psi)
    return torch.block_diag(*((1 - mixing) * torch.eye(dim, dtype=torch.float64) + mixing * one for one in moment))


def scores(curvature: TaskCurvature | ReferenceCurvature, unit: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Score unit vectors (n, d) for a query (d,), up to the query's own norm."""
    return unit @ curvature.inverse(query[None])[0] / curvature.norms(unit)


def unit_rows(n: int, d: int, *, seed: int = 9) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))


@given(st.integers(1, 40), st.integers(2, 12), st.floats(0, MOST_MIXING) | st.none(), st.integers(0, 1000))
def test_a_tasks_curvature_is_its_dense_definition(n: int, dim: int, mixing: float | None, seed: int) -> None:
    psi = queries(n, dim, seed=seed)
    fitted, _ = fit_task(psi, n_groups=2, mixing=mixing)
    assert fitted.vectors.shape[2] <= min(n, dim)
    inverse = torch.linalg.inv(dense(psi, fitted.mixing))
    # Stored unit vectors, and the queries' own: those lie in the span that is taken out.
    unit = torch.cat([unit_rows(5, 2 * dim), torch.nn.functional.normalize(psi)])
    expected = torch.einsum("ni,ij,nj->n", unit.double(), inverse, unit.double()).sqrt()
    torch.testing.assert_close(fitted.norms(unit).double(), expected, rtol=1e-4, atol=0)
    exact = psi.double() @ inverse
    assert float((fitted.inverse(psi).double() - exact).norm() / exact.norm()) <= 1e-5


@given(st.integers(1, 30), st.integers(2, 12), st.integers(-8, 8), st.integers(0, 1000))
def test_lambda_never_leaves_its_bounds_whatever_the_queries(n: int, dim: int, power: int, seed: int) -> None:
    fitted, found = fit_task(queries(n, dim, seed=seed, scale=10.0**power), n_groups=2)
    assert 0 < fitted.mixing <= MOST_MIXING
    assert 1 <= found["k"] <= max(1, sum(found["ranks"]) // 2)
    assert (found["mixing_chosen"] == "rule, capped") == (1 / (1 + found["sigma_k"]) > MOST_MIXING)
    assert torch.isfinite(fitted.norms(unit_rows(3, 2 * dim))).all()
    assert (fitted.norms(unit_rows(3, 2 * dim)) > 0).all()


def test_the_rule_has_the_task_dominate_the_first_k_components_of_all_groups() -> None:
    values = torch.logspace(2, -3, 5000, dtype=torch.float64).reshape(2, 2500)
    chosen = choose_mixing(values, dim=65_536)
    assert (chosen.k, chosen.chosen) == (1000, "rule")
    assert chosen.value == pytest.approx(1 / (1 + float(values.flatten()[999])))
    dominated = chosen.value * values > (1 - chosen.value) * (1 - 1e-9)
    assert int(dominated.sum()) == 1000
    assert choose_mixing(values, dim=4096).k == 62
    assert choose_mixing(values, dim=128).k == 2
    assert choose_mixing(values[:, :20], dim=65_536).k == 20
    assert choose_mixing(values[:1, :1], dim=65_536).k == 1


def test_the_rule_is_capped_where_it_would_leave_only_the_queries() -> None:
    assert choose_mixing(torch.tensor([1e-6], dtype=torch.float64), dim=64)[:2] == (MOST_MIXING, "rule, capped")
    assert choose_mixing(torch.tensor([1 / 99 + 1e-6], dtype=torch.float64), dim=64).chosen == "rule"


def test_the_rule_does_not_depend_on_the_scale_of_the_queries() -> None:
    unit, psi = unit_rows(50, 32), queries(12, 16)
    (small, _), (large, _) = (fit_task(psi * scale, n_groups=2) for scale in (0.9, 30.0))
    assert small.mixing > large.mixing
    first, second = scores(small, unit, psi[3]), scores(large, unit, psi[3])
    torch.testing.assert_close(first / first.norm(), second / second.norm())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_queries_leave_the_ranking_sane(n: int) -> None:
    psi = queries(3, 128)[:n]
    fitted, found = fit_task(psi, n_groups=2)
    assert fitted.mixing <= MOST_MIXING
    assert found["ranks"] == [n, n]
    related = torch.nn.functional.normalize(torch.nn.functional.normalize(psi[0], dim=0) + unit_rows(40, 256))
    unit = torch.cat([related, unit_rows(200, 256, seed=4)])
    under, plain = (scores(curvature, unit, psi[0]) for curvature in (fitted, ReferenceCurvature()))
    assert set(under.topk(40).indices.tolist()) == set(plain.topk(40).indices.tolist()) == set(range(40))
    assert float(torch.corrcoef(torch.stack([under, plain]))[0, 1]) > 0.95


def test_one_query_in_one_group_is_the_rank_one_case() -> None:
    psi = queries(1, 16, groups=1)
    fitted, found = fit_task(psi, n_groups=1)
    squared = float(psi.square().sum())
    assert (found["ranks"], found["k"]) == ([1], 1)
    assert fitted.mixing == pytest.approx(1 / (1 + squared))
    # lambda sigma = 1 - lambda: what lies along the query is halved, what lies across it is not touched.
    torch.testing.assert_close(fitted.inverse(psi), psi / 2 / (1 - fitted.mixing))
    unit = unit_rows(30, 16)
    assert torch.equal(scores(fitted, unit, psi[0]).argsort(), (unit @ psi[0]).argsort())


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_equal_queries_are_one_query(noise: float) -> None:
    psi = queries(1, 16)
    repeated = psi.expand(9, -1) * (1 + noise * torch.randn(9, 32, generator=torch.Generator().manual_seed(0)))
    (many, found), (one, _) = fit_task(repeated, n_groups=2), fit_task(psi, n_groups=2)
    assert found["ranks"] == [1, 1]
    assert many.mixing == pytest.approx(one.mixing, rel=1e-4)
    torch.testing.assert_close(many.norms(unit_rows(9, 32)), one.norms(unit_rows(9, 32)))


def test_a_group_without_gradients_is_left_alone() -> None:
    psi = queries(3, 8)
    psi[:, 8:] = 0
    fitted, found = fit_task(psi, n_groups=2)
    assert found["ranks"] == [3, 0]
    assert found["spectrum_quantiles_0_10_50_90_100"][1] == [0.0] * 5
    within = torch.cat([torch.zeros(2, 8), unit_rows(2, 8)], dim=1)
    torch.testing.assert_close(fitted.inverse(within), within / (1 - fitted.mixing))


def test_mixing_by_hand_is_taken_as_it_is_and_zero_is_the_reference() -> None:
    psi, unit = queries(5, 8), unit_rows(4, 16)
    assert fit_task(psi, n_groups=2, mixing=0.75)[0].mixing == 0.75
    fitted, found = fit_task(psi, n_groups=2, mixing=0.0)
    assert (found["mixing_chosen"], found["k"], found["sigma_k"]) == ("by hand", None, None)
    torch.testing.assert_close(fitted.inverse(psi), ReferenceCurvature().inverse(psi))
    torch.testing.assert_close(fitted.norms(unit), ReferenceCurvature().norms(unit))


@pytest.mark.parametrize("broken", [0.0, float("nan"), float("inf")])
def test_queries_without_a_gradient_have_no_curvature(broken: float) -> None:
    with pytest.raises(EncodingError, match="finite and not zero"):
        fit_task(torch.full((2, 8), broken), n_groups=2)


def test_a_restored_curvature_is_the_same() -> None:
    fitted, _ = fit_task(queries(5, 8), n_groups=2)
    again = TaskCurvature.restore(fitted.state())
    assert again.mixing == fitted.mixing
    assert torch.equal(again.norms(unit_rows(4, 16)), fitted.norms(unit_rows(4, 16)))


def test_no_curvature_undoes_the_whitening() -> None:
    phi = sample(20, 8)
    whitening = Whitening.of(sample_moment())
    psi = apply(whitening.power(-0.5), phi).flatten(1)
    identity = IdentityCurvature(whitening)
    direct = phi.flatten(1).double() @ phi.flatten(1).double().T
    torch.testing.assert_close((psi @ identity.inverse(psi).T).double(), direct, rtol=1e-4, atol=1e-3)
    norms = psi.norm(dim=1)
    torch.testing.assert_close(
        identity.norms(psi / norms[:, None]), phi.flatten(1).norm(dim=1) / norms, rtol=1e-4, atol=0
    )


def test_the_effective_sample_is_that_of_the_norms() -> None:
    rows = torch.eye(8)[:, None, :].repeat(1, 2, 1)
    equal, one_large = SecondMoment(2, 8), SecondMoment(2, 8)
    equal.add(rows)
    one_large.add(torch.cat([rows, 1000 * rows[:1]]))
    assert equal.effective_rows().tolist() == [8, 8]
    assert one_large.effective_rows().tolist() == pytest.approx([1, 1], abs=1e-4)
