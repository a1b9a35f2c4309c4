"""What is stored of a vector is the vector, up to half a step of its block's scale."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.schema.errors import EncodingError
from proponent.schema.settings import CODE_BLOCK
from proponent.store.codes import dequantise, dot, fixed_size_column, fixed_size_rows, quantise

DIMS = [64, 128, 2048, 4096, 65536]


def unit_vectors(seed: int, n: int, d: int, *, heavy: bool) -> np.ndarray:
    draw = np.random.default_rng(seed)
    vectors = draw.standard_t(1.5, (n, d)) if heavy else draw.standard_normal((n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def error_bound(unit: np.ndarray) -> np.ndarray:
    """Half a step, the rounding of the scale to float16, and float16's smallest number where the scale is below it."""
    n, d = unit.shape
    largest = np.abs(unit).reshape(n, d // CODE_BLOCK, CODE_BLOCK).max(2)
    bound = largest * (1 / 254 + 2**-10) + 127 * 2**-25 / np.sqrt(d)
    return np.repeat(bound, CODE_BLOCK, axis=1)


@given(st.integers(0, 2**32 - 1), st.sampled_from(DIMS), st.integers(0, 3), st.booleans())
def test_the_error_is_at_most_half_a_step(seed: int, d: int, n: int, heavy: bool) -> None:
    unit = unit_vectors(seed, n, d, heavy=heavy)
    codes, scales = quantise(unit)
    assert (codes.dtype, codes.shape) == (np.int8, (n, d))
    assert (scales.dtype, scales.shape) == (np.float16, (n, d // CODE_BLOCK))
    restored = dequantise(codes, scales)
    assert restored.dtype == np.float32
    assert (np.abs(restored - unit) <= error_bound(unit)).all()


@given(st.lists(st.floats(-1, 1, width=32), min_size=128, max_size=128))
def test_the_error_bound_holds_for_any_values(values: list[float]) -> None:
    vector = np.array([values], np.float32)
    codes, scales = quantise(vector)
    assert (np.abs(dequantise(codes, scales) - vector) <= error_bound(vector) + 1e-9).all()
    assert codes.min() >= -127


@pytest.mark.parametrize("d", DIMS)
def test_cosines_survive(d: int) -> None:
    unit = unit_vectors(d, 20, d, heavy=True)
    restored = dequantise(*quantise(unit))
    cosines = (unit * restored).sum(1) / np.linalg.norm(restored, axis=1)
    assert cosines.min() > 0.999


@given(st.integers(0, 2**32 - 1), st.sampled_from([64, 512, 4096]), st.integers(0, 40), st.integers(1, 20))
def test_dot_is_the_product_with_the_restored_vectors(seed: int, d: int, n: int, q: int) -> None:
    codes, scales = quantise(unit_vectors(seed, n, d, heavy=False))
    queries = np.random.default_rng(seed).standard_normal((q, d)).astype(np.float32)
    expected = dequantise(codes, scales).astype(np.float64) @ queries.astype(np.float64).T
    products = dot(codes, scales, queries)
    assert products.shape == (n, q)
    assert np.allclose(products, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("d", DIMS)
def test_a_one_hot_vector_is_restored_to_within_float16(d: int) -> None:
    unit = np.zeros((2, d), np.float32)
    unit[0, d - 1], unit[1, 0] = 1, -1
    codes, scales = quantise(unit)
    assert np.isfinite(scales).all()
    restored = dequantise(codes, scales)
    assert np.count_nonzero(restored) == 2
    assert np.allclose(restored, unit, atol=2**-10)


def test_zero_blocks_and_zero_vectors_stay_zero() -> None:
    unit = unit_vectors(0, 2, 256, heavy=False)
    unit[0, CODE_BLOCK : 2 * CODE_BLOCK] = 0
    unit[1] = 0
    codes, scales = quantise(unit)
    restored = dequantise(codes, scales)
    assert not restored[0, CODE_BLOCK : 2 * CODE_BLOCK].any()
    assert restored[0].any()
    assert not restored[1].any()
    assert np.isfinite(restored).all()


def test_blocks_of_very_different_size_do_not_disturb_each_other() -> None:
    unit = unit_vectors(1, 1, 128, heavy=False)
    unit[0, :CODE_BLOCK] *= 1e-3
    restored = dequantise(*quantise(unit))
    error = np.abs(restored - unit)[0, :CODE_BLOCK].max()
    assert error < np.abs(unit[0, :CODE_BLOCK]).max() / 100


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (1, 127)])
def test_vectors_that_are_not_finite_are_refused(value: float, place: tuple[int, int]) -> None:
    unit = unit_vectors(2, 2, 128, heavy=False)
    unit[place] = value
    with pytest.raises(EncodingError, match="not finite"):
        quantise(unit)


@given(st.integers(0, 5), st.sampled_from([np.int8, np.float16, np.float32]), st.integers(1, 3))
def test_rows_and_columns_turn_into_each_other(n: int, dtype: Any, pieces: int) -> None:
    rows = np.random.default_rng(n).integers(-100, 100, (n, 64)).astype(dtype)
    column = fixed_size_column(rows)
    assert column.type.list_size == 64
    assert np.array_equal(fixed_size_rows(column), rows)
    chunked = pa.chunked_array([column] * pieces)
    assert np.array_equal(fixed_size_rows(chunked), np.concatenate([rows] * pieces))
    assert np.array_equal(fixed_size_rows(column.slice(n // 2)), rows[n // 2 :])
    assert np.array_equal(fixed_size_rows(fixed_size_column(rows[:, ::2][:, :32])), rows[:, ::2][:, :32])
