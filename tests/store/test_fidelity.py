"""Fidelity is what a person would count: shares of the ten best, and how far their order survives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.schema.settings import CODES
from proponent.store.codes import dequantise, quantise
from proponent.store.fidelity import SAMPLE, SMALLEST_SAMPLE, FidelitySample, fidelity, rank_correlation, top_overlap


def unit_vectors(n: int, d: int = 128) -> np.ndarray:
    vectors = np.random.default_rng(n).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_overlap_is_the_share_of_the_best_that_stay_among_the_best() -> None:
    exact = np.array([[0.9, 0.8, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4]])
    kept = np.array([[0.7, 0.2, 0.3, 0.0], [0.0, 0.1, 0.9, 0.8]])
    # First row: {0, 1} against {0, 2}; second row: {2, 3} in both.
    assert top_overlap(exact, kept, k=2) == pytest.approx((1 / 2 + 1) / 2)
    assert top_overlap(exact, kept, k=1) == pytest.approx((1 + 0) / 2)
    assert top_overlap(exact, exact, k=3) == 1


def test_the_rank_correlation_is_spearmans() -> None:
    # 1 - 6 sum(d^2) / (n (n^2 - 1)): ranks 1 2 3 4 against 1 3 2 4 give 1 - 6 * 2 / 60.
    assert rank_correlation(np.array([[1, 2, 3, 4.0]]), np.array([[10, 30, 20, 40.0]])) == pytest.approx(0.8)
    assert rank_correlation(np.array([[1, 2, 3.0], [1, 2, 3]]), np.array([[1, 4, 9.0], [3, 2, 1]])) == pytest.approx(0)


def test_equal_scores_share_the_mean_of_their_ranks() -> None:
    # Ranks 1 2 3 4 against 1 2.5 2.5 4: Pearson's correlation of the ranks is 4.5 / sqrt(5 * 4.5).
    found = rank_correlation(np.array([[1, 2, 3, 4.0]]), np.array([[0, 5, 5, 9.0]]))
    assert found == pytest.approx(4.5 / np.sqrt(5 * 4.5))
    assert rank_correlation(np.array([[1, 2, 3.0]]), np.array([[7, 7, 7.0]])) == 0


@given(st.integers(12, 60), st.sampled_from(CODES))
def test_a_query_meets_every_vector_but_its_own(n: int, codes: str) -> None:
    unit = unit_vectors(n)
    restored = dequantise(quantise(unit, codes))
    shares, correlations = [], []
    for place in range(n):
        others = [other for other in range(n) if other != place]
        exact, kept = ([float(unit[place] @ rows[other]) for other in others] for rows in (unit, restored))
        best = [set(sorted(range(n - 1), key=lambda at, of=of: -of[at])[:10]) for of in (exact, kept)]
        shares.append(len(best[0] & best[1]) / 10)
        ranks = [np.argsort(np.argsort(of)) for of in (exact, kept)]
        correlations.append(np.corrcoef(*ranks)[0, 1])
    found = fidelity(unit, codes, against="float32")
    assert (found["codes"], found["against"], found["sample"]) == (codes, "float32", n)
    assert found["top10_overlap"] == pytest.approx(np.mean(shares), abs=0.11 / n)
    assert found["rank_correlation"] == pytest.approx(np.mean(correlations), abs=1e-3)


def test_finer_codes_are_more_faithful() -> None:
    found = [fidelity(unit_vectors(300), codes, against="float32") for codes in CODES]
    for measure in ("top10_overlap", "rank_correlation"):
        values = [one[measure] for one in found]
        assert 1 >= values[0] >= values[1] >= values[2] > 0.5


def test_a_sample_is_the_first_vectors_and_measured_when_it_has_grown() -> None:
    unit = unit_vectors(SAMPLE + 20)
    sample = FidelitySample()
    sample.offer(unit[: SMALLEST_SAMPLE - 1])
    assert sample.measure("int8", against="float32") is None
    sample.offer(unit[SMALLEST_SAMPLE - 1 : 100])
    assert sample.measure("int8", against="float32", at_least=101) is None
    assert sample.measure("int8", against="float32", at_least=100) == fidelity(unit[:100], "int8", against="float32")
    assert sample.measure("int8", against="float32") is None
    sample.offer(unit[100:])
    assert sample.measure("int8", against="float32") == fidelity(unit[:SAMPLE], "int8", against="float32")
    sample.offer(unit)
    assert sample.measure("int8", against="float32") is None


def test_a_sample_keeps_its_vectors_when_their_memory_is_used_again() -> None:
    unit, sample = unit_vectors(20), FidelitySample()
    given = unit.copy()
    sample.offer(given)
    given[:] = 0
    assert sample.measure("int4", against="float32") == fidelity(unit, "int4", against="float32")
