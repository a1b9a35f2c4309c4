"""What is kept of values that pass by is the head of their sort."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.store import best as module
from proponent.store.best import Best


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 400),
    n_queries=st.integers(1, 6),
    k=st.integers(1, 450),
    levels=st.sampled_from([1, 3, 50, 10**6]),
    gathered=st.sampled_from([1, 50, 4096]),
)
def test_the_best_are_the_head_of_a_sort_by_value_and_key(
    seed: int, n: int, n_queries: int, k: int, levels: int, gathered: int
) -> None:
    draw = np.random.default_rng(seed)
    values = draw.integers(-levels, levels + 1, (n, n_queries)).astype(np.float32)
    keys = [f"é{place}" if place % 2 else f"k{place}" for place in draw.permutation(n)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_GATHERED", gathered)
        best, names = Best(k=k, n_queries=n_queries), pa.array(keys, pa.string())
        cuts = np.unique(draw.integers(0, n + 1, 5)) if n else np.array([0])
        pieces = list(zip([0, *cuts], [*cuts, n], strict=True))
        for place in draw.permutation(len(pieces)):
            start, end = pieces[place]
            best.offer(names[start:end], values[start:end])
        found = best.ranked()
    for query, (kept, scores) in enumerate(found):
        expected = sorted(zip(-values[:, query], keys, strict=True))[:k]
        assert kept == [key for _, key in expected]
        assert np.array_equal(scores, [-value for value, _ in expected])


def test_what_is_worse_than_what_is_kept_is_not_gathered() -> None:
    keys = pa.array([f"{place:05d}" for place in range(20_000)])
    values = np.random.default_rng(0).standard_normal((20_000, 3)).astype(np.float32)
    best, most = Best(k=5, n_queries=3), 0
    for start in range(0, 20_000, 500):
        best.offer(keys[start : start + 500], values[start : start + 500])
        most = max(most, best._n_found)
    assert most < 1000
