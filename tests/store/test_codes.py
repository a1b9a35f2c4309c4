"""What is stored of a vector is the vector, up to half a step of its block's scale."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.schema.errors import EncodingError
from proponent.schema.ids import text_hash
from proponent.schema.settings import CODE_BLOCK, CODES
from proponent.schema.tables import encodings_schema
from proponent.store import codes as codes_module
from proponent.store.codes import (
    Codes,
    Products,
    codes_arrays,
    dequantise,
    fixed_size_column,
    fixed_size_rows,
    quantise,
    read_codes,
)
from proponent.store.lake import LakeStore

DIMS = [64, 128, 2048, 4096, 65536]
FORMATS = st.sampled_from(CODES)
REACH = {"int8": 127.0, "int4": 7.5}


def unit_vectors(seed: int, n: int, d: int, *, heavy: bool) -> np.ndarray:
    draw = np.random.default_rng(seed)
    vectors = draw.standard_t(1.5, (n, d)) if heavy else draw.standard_normal((n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def error_bound(unit: np.ndarray, codes: str) -> np.ndarray:
    """Half a step, the rounding of the scale to float16, and float16's smallest number where the scale is below it."""
    n, d = unit.shape
    if codes == "float16":
        return np.abs(unit) * 2**-11 + 2**-25 / np.sqrt(d)
    largest = np.abs(unit).reshape(n, d // CODE_BLOCK, CODE_BLOCK).max(2)
    bound = largest * (0.5 / REACH[codes] + 2**-10) + REACH[codes] * 2**-25 / np.sqrt(d)
    return np.repeat(bound, CODE_BLOCK, axis=1)


@given(st.integers(0, 2**32 - 1), st.sampled_from(DIMS), st.integers(0, 3), st.booleans(), FORMATS)
def test_the_error_is_at_most_half_a_step(seed: int, d: int, n: int, heavy: bool, codes: str) -> None:
    unit = unit_vectors(seed, n, d, heavy=heavy)
    restored = dequantise(quantise(unit, codes))
    assert (restored.dtype, restored.shape) == (np.float32, (n, d))
    assert (np.abs(restored - unit) <= error_bound(unit, codes) * (1 + 1e-5)).all()


@given(st.integers(0, 3), st.sampled_from(DIMS), FORMATS)
def test_stored_vectors_go_through_a_table(n: int, d: int, codes: str) -> None:
    stored = quantise(unit_vectors(n, n, d, heavy=False), codes)
    schema = pa.schema([field for field in encodings_schema(d, codes) if field.name in ("codes", "scales")])
    again = read_codes(pa.table(codes_arrays(stored), schema=schema))
    assert again.format == codes
    assert np.array_equal(again.codes, stored.codes)
    assert np.array_equal(dequantise(again), dequantise(stored))


@given(st.lists(st.floats(-1, 1, width=32), min_size=128, max_size=128), FORMATS)
def test_the_error_bound_holds_for_any_values(values: list[float], codes: str) -> None:
    vector = np.array([values], np.float32)
    restored = dequantise(quantise(vector, codes))
    assert (np.abs(restored - vector) <= error_bound(vector, codes) * (1 + 1e-5) + 1e-9).all()


def test_two_components_of_int4_share_a_byte_and_keep_their_signs() -> None:
    levels = np.tile(np.arange(-7, 8, dtype=np.float32), 9)[:128].reshape(1, 2, CODE_BLOCK)
    stored = quantise(levels.reshape(1, 128) / np.float32(np.sqrt(128)) / 2, "int4")
    assert (stored.codes.dtype, stored.codes.shape) == (np.int8, (1, 64))
    halves = stored.codes.reshape(1, 2, CODE_BLOCK // 2)
    step = stored.scales.astype(np.float32)[:, :, None]
    wanted = np.rint(levels / 2 / step).clip(-7, 7)
    assert set(np.unique(wanted)) == set(range(-7, 8))
    assert np.array_equal((halves << 4) >> 4, wanted[:, :, :32])
    assert np.array_equal(halves >> 4, wanted[:, :, 32:])


def test_int8_codes_are_what_they_were_before_there_were_others() -> None:
    unit = unit_vectors(3, 5, 256, heavy=True)
    blocks = (unit * np.float32(16)).reshape(5, 4, CODE_BLOCK)
    scales = (np.abs(blocks).max(2) / 127.0).astype(np.float16)
    codes = np.rint(blocks / scales.astype(np.float32)[:, :, None]).clip(-127, 127).astype(np.int8)
    stored = quantise(unit, "int8")
    assert np.array_equal(stored.codes, codes.reshape(5, 256))
    assert np.array_equal(stored.scales, scales)


@pytest.mark.parametrize("d", DIMS)
@pytest.mark.parametrize(("codes", "least"), [("float16", 0.999999), ("int8", 0.999), ("int4", 0.96)])
def test_cosines_survive(d: int, codes: str, least: float) -> None:
    unit = unit_vectors(d, 20, d, heavy=True)
    restored = dequantise(quantise(unit, codes))
    cosines = (unit * restored).sum(1) / np.linalg.norm(restored, axis=1)
    assert cosines.min() > least


def products_of(stored: Codes, queries: np.ndarray) -> np.ndarray:
    products = Products(queries)
    return products.of(stored, products.tile())


@pytest.mark.parametrize("library", ["oneDNN", "BLAS"])
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([64, 512, 4096, 10_752]),
    st.integers(0, 600),
    st.integers(1, 20),
    FORMATS,
)
def test_products_are_those_with_the_restored_vectors(
    library: str, seed: int, d: int, n: int, q: int, codes: str
) -> None:
    stored = quantise(unit_vectors(seed, min(n, (1 << 21) // d), d, heavy=False), codes)
    queries = np.random.default_rng(seed).standard_normal((q, d)).astype(np.float32)
    expected = dequantise(stored).astype(np.float64) @ queries.astype(np.float64).T
    with pytest.MonkeyPatch.context() as patch:
        if library == "BLAS":  # as where torch was built without oneDNN
            patch.setattr(codes_module, "_matmul", lambda rows, others: rows @ others.T)
        products = products_of(stored, queries)
    assert (products.dtype, products.shape) == (np.float32, expected.shape)
    assert np.allclose(products, expected, rtol=0, atol=2e-6 * np.linalg.norm(queries, axis=1))


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("d", [64, 1024, 4160])
def test_a_row_s_products_do_not_depend_on_the_rows_beside_it(d: int, codes: str) -> None:
    stored = quantise(unit_vectors(0, 1100, d, heavy=True), codes)
    queries = np.random.default_rng(0).standard_normal((5, d)).astype(np.float32)
    together = products_of(stored, queries)
    for some in (slice(0, 1), slice(7, 8), slice(3, 400), slice(255, 1100)):
        part = Codes(codes, stored.codes[some], None if stored.scales is None else stored.scales[some])
        assert np.array_equal(products_of(part, queries), together[some])


@pytest.mark.parametrize("d", DIMS)
@pytest.mark.parametrize("codes", CODES)
def test_a_one_hot_vector_is_restored_to_within_half_a_step(d: int, codes: str) -> None:
    unit = np.zeros((2, d), np.float32)
    unit[0, d - 1], unit[1, 0] = 1, -1
    restored = dequantise(quantise(unit, codes))
    assert np.isfinite(restored).all()
    assert np.count_nonzero(restored) == 2
    assert np.allclose(restored, unit, atol=2**-10 if codes != "int4" else 0.5 / 7.5 + 2**-10)


@pytest.mark.parametrize("codes", CODES)
def test_zero_blocks_and_zero_vectors_stay_zero(codes: str) -> None:
    unit = unit_vectors(0, 2, 256, heavy=False)
    unit[0, CODE_BLOCK : 2 * CODE_BLOCK] = 0
    unit[1] = 0
    restored = dequantise(quantise(unit, codes))
    assert not restored[0, CODE_BLOCK : 2 * CODE_BLOCK].any()
    assert restored[0].any()
    assert not restored[1].any()
    assert np.isfinite(restored).all()


@pytest.mark.parametrize(("codes", "part"), [("float16", 1000), ("int8", 100), ("int4", 10)])
def test_blocks_of_very_different_size_do_not_disturb_each_other(codes: str, part: int) -> None:
    unit = unit_vectors(1, 1, 128, heavy=False)
    unit[0, :CODE_BLOCK] *= 1e-3
    restored = dequantise(quantise(unit, codes))
    error = np.abs(restored - unit)[0, :CODE_BLOCK].max()
    assert error < np.abs(unit[0, :CODE_BLOCK]).max() / part


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (1, 127)])
def test_vectors_that_are_not_finite_are_refused(value: float, place: tuple[int, int], codes: str) -> None:
    unit = unit_vectors(2, 2, 128, heavy=False)
    unit[place] = value
    with pytest.raises(EncodingError, match="not finite"):
        quantise(unit, codes)


@pytest.mark.parametrize(("codes", "most"), [("float16", 21_600), ("int8", 11_200), ("int4", 5_800)])
def test_a_passage_takes_no_more_bytes_than_promised(
    lake: LakeStore,
    add_encoder: Callable[..., Any],
    encoding_rows: Callable[..., pa.Table],
    publish: Callable[..., Any],
    codes: str,
    most: int,
) -> None:
    add_encoder(lake, "e", dim=10_752, codes=codes)
    vectors = np.random.default_rng(0).standard_normal((1024, 10_752))
    keys = [text_hash(str(n)) for n in range(1024)]
    rows = encoding_rows(keys, vectors, codes)
    publish(lake, [("encodings_e", rows.slice(start, 512)) for start in (0, 512)])
    folder: Path = lake.tables_dir / "encodings_e.lance"
    stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert 0.9 * most < stored / 1024 <= most


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
