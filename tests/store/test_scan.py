"""The exact scan is a sort of all scores, whatever lies where on the disk."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.schema.settings import CODES
from proponent.store import scan
from proponent.store.codes import dequantise, read_codes
from proponent.store.lake import LakeStore
from proponent.store.scan import exact_scan, in_list

DIM, ROWS = 64, 300


class Stored(NamedTuple):
    tables: dict[int, Any]
    """The same rows as one fragment and as seven."""
    keys: list[str]
    restored: np.ndarray
    norms: np.ndarray


@pytest.fixture(params=CODES)
def stored(
    lake: LakeStore, add_encoder: Any, encoding_rows: Any, publish: Any, request: pytest.FixtureRequest
) -> Stored:
    draw = np.random.default_rng(0)
    keys = [f"t{place:04d}" for place in draw.permutation(ROWS)]
    rows = encoding_rows(keys, draw.standard_normal((ROWS, DIM)) * draw.uniform(0.1, 10, (ROWS, 1)), request.param)
    tables = {}
    for pieces in (1, 7):
        add_encoder(lake, f"e{pieces}", dim=DIM, codes=request.param)
        order = np.arange(ROWS) if pieces == 1 else draw.permutation(ROWS)
        batches = [(f"encodings_e{pieces}", rows.take(part)) for part in np.array_split(order, pieces)]
        tables[pieces] = lake.table(f"encodings_e{pieces}", at=publish(lake, batches))
        assert len(tables[pieces].get_fragments()) == pieces
    return Stored(tables, keys, dequantise(read_codes(rows)), rows["norm"].to_numpy())


def brute_force(
    stored: Stored, query: np.ndarray, allowed: Sequence[str], k: int, *, unit_norm: bool
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    scores = stored.restored.astype(np.float64) @ query.astype(np.float64)
    if not unit_norm:
        scores *= stored.norms
    pairs = [(key, score) for key, score in zip(stored.keys, scores, strict=True) if key in set(allowed)]
    return (
        sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:k],
        sorted(pairs, key=lambda pair: (pair[1], pair[0]))[:k],
    )


SUBSETS = st.one_of(
    st.just([]),
    st.just(list(range(ROWS))),
    st.integers(0, ROWS - 1).map(lambda place: [place]),
    st.lists(st.integers(0, ROWS - 1), unique=True, max_size=ROWS),
)


@pytest.mark.parametrize("sparse", [0, 1])
@given(st.integers(0, 2**32 - 1), SUBSETS, st.integers(1, ROWS + 10), st.integers(1, 6), st.booleans())
def test_the_scan_is_a_sort_of_all_scores(
    stored: Stored, sparse: float, seed: int, subset: list[int], k: int, n_queries: int, unit_norm: bool
) -> None:
    queries = np.random.default_rng(seed).standard_normal((n_queries, DIM)).astype(np.float32)
    allowed = [stored.keys[place] for place in subset]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "_SPARSE", sparse)
        for table in stored.tables.values():
            found = exact_scan(table, queries, allowed=pa.array(allowed, pa.string()), k=k, unit_norm=unit_norm)
            assert len(found) == n_queries
            for query, result in zip(queries, found, strict=True):
                for side, expected in zip(
                    result_sides(result), brute_force(stored, query, allowed, k, unit_norm=unit_norm), strict=True
                ):
                    assert side.keys == [key for key, _ in expected]
                    assert np.allclose(side.scores, [score for _, score in expected], rtol=1e-4, atol=1e-5)


def result_sides(result: scan.ScanResult) -> tuple[scan.Ranked, scan.Ranked]:
    return result.top, result.bottom


def test_keys_that_are_not_stored_find_nothing(stored: Stored) -> None:
    query = np.ones((1, DIM), np.float32)
    (result,) = exact_scan(stored.tables[1], query, allowed=pa.array(["nothing", "t0001"]), k=5, unit_norm=True)
    assert result.top.keys == result.bottom.keys == ["t0001"]


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_equal_scores_are_ordered_by_key_wherever_the_rows_lie(
    lake: LakeStore,
    add_encoder: Any,
    encoding_rows: Any,
    publish: Any,
    k: int,
) -> None:
    # One-hot vectors, whose products are exact in any order of summation: three groups of three equal scores.
    keys = list("hbgaficed")
    vectors = np.zeros((9, DIM))
    for place, key in enumerate(keys):
        vectors[place, "abc def ghi".replace(" ", "").index(key) // 3] = 1
    query = np.zeros((1, DIM), np.float32)
    query[0, :3] = [0.5, 0.25, -0.5]
    add_encoder(lake, "e", dim=DIM)
    rows = encoding_rows(keys, vectors)
    at = publish(lake, [("encodings_e", rows.slice(start, 2)) for start in range(0, 9, 2)])
    (found,) = exact_scan(lake.table("encodings_e", at=at), query, allowed=pa.array(keys), k=k, unit_norm=True)
    assert found.top.keys == list("abcdefghi")[:k]
    assert found.bottom.keys == list("ghidefabc")[:k]


def test_a_key_list_is_a_predicate_that_lance_reads(stored: Stored) -> None:
    keys = pa.array(["t0001", "t0002", "none"])
    assert stored.tables[7].count_rows(in_list("text_hash", keys)) == 2
