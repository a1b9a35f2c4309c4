"""Intervals and tests against brute force."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.query.evaluate.statistics import holm, interval, resampled_means, sign_flip_p

SOME = {"resamples": 500, "confidence": 0.9, "seed": 3}
INTEGERS = st.lists(st.integers(-4, 4), min_size=1, max_size=9)


@given(INTEGERS)
def test_p_is_the_share_of_all_signs_that_are_as_extreme(differences: list[int]) -> None:
    observed = abs(sum(differences))
    flipped = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
               for signs in product((1, -1), repeat=len(differences))]  # fmt: skip
    expected = sum(one >= observed for one in flipped) / len(flipped)
    assert sign_flip_p([0.1 * one for one in differences], flips=1 << 10, seed=0) == pytest.approx(expected)


def test_drawn_signs_come_near_to_all_of_them() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, 14).tolist()
    exact = sign_flip_p(differences, flips=1 << 14, seed=0)
    drawn = sign_flip_p(differences, flips=10_000, seed=1)
    assert drawn == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 10_000) ** 0.5)
    assert drawn == sign_flip_p(differences, flips=10_000, seed=1)


def test_p_is_never_zero_and_one_without_a_difference() -> None:
    assert sign_flip_p([1.0] * 100, flips=999, seed=0) == pytest.approx(1 / 1000)
    assert sign_flip_p([0.0] * 5, flips=999, seed=0) == 1
    assert sign_flip_p([], flips=999, seed=0) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_its_steps_reject(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.3):
        rejected: set[int] = set()
        for place, which in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
            if (len(p_values) - place) * p_values[which] > level:
                break
            rejected.add(which)
        assert {which for which, p in enumerate(adjusted) if p <= level} == rejected


@given(INTEGERS)
def test_an_interval_is_that_of_its_resamples(values: list[int]) -> None:
    found = interval(values, **SOME)
    assert found is not None
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values))
    draw, means = np.random.default_rng(3), []
    for _ in range(500):
        means.append(np.mean([values[which] for which in draw.integers(len(values), size=len(values))]))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(means, [5, 95])))
    assert interval(values, **SOME) == found


def test_no_values_have_no_interval_and_one_value_has_no_width() -> None:
    assert interval([], **SOME) is None
    one = interval([0.25], **SOME)
    assert one is not None
    assert (one.low, one.high) == (0.25, 0.25)


def test_an_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    draw, hits = np.random.default_rng(0), 0
    for seed in range(200):
        found = interval(draw.normal(1, 2, 60).tolist(), resamples=400, confidence=0.9, seed=seed)
        assert found is not None
        hits += found.low <= 1 <= found.high
    assert 165 <= hits <= 195


def test_methods_are_resampled_alike() -> None:
    values = np.random.default_rng(1).normal(size=40)
    one, other = (resampled_means(part, resamples=200, seed=5) for part in (values, values + 2))
    np.testing.assert_allclose(other - one, 2)
    assert one.std() == pytest.approx(values.std(ddof=1) / 40**0.5, rel=0.2)
