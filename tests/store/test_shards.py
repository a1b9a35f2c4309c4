"""A scan in parts is the scan of all, bit for bit; many queries share one pass."""

from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proponent.schema.settings import CODES, ScanSettings
from proponent.store import scan
from proponent.store.matching import rows_of
from proponent.store.scan import exact_scan, merged
from proponent.store.shards import shards


def table_of(
    folder: Path, encoding_rows: Any, *, seed: int, n: int, d: int, codes: str, fragment: int
) -> lance.LanceDataset:
    """Encodings of which many have equal scores, in fragments."""
    draw = np.random.default_rng(seed)
    vectors = draw.standard_normal((1 + n // 4, d))[draw.integers(0, 1 + n // 4, n)]
    rows = encoding_rows([f"t{place:04d}" for place in draw.permutation(n)], vectors, codes)
    path = folder / f"{len(list(folder.iterdir()))}.lance"
    return lance.write_dataset(rows, path, max_rows_per_file=fragment, mode="create")


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 400),
    d=st.sampled_from([64, 1024]),
    codes=st.sampled_from(CODES),
    k=st.one_of(st.integers(1, 10), st.integers(1, 500)),
    n_workers=st.integers(1, 9),
    allowed=st.sampled_from([0.02, 0.5, 1.0]),
    unit_norm=st.booleans(),
    divided=st.booleans(),
)
def test_the_parts_of_a_scan_are_together_the_scan_bit_for_bit(
    tmp_path: Path, encoding_rows: Any, seed: int, n: int, d: int, codes: str, k: int, n_workers: int, allowed: float,
    unit_norm: bool, divided: bool,
) -> None:  # fmt: skip
    draw = np.random.default_rng(seed + 1)
    table = table_of(
        tmp_path, encoding_rows, seed=seed, n=n, d=d, codes=codes, fragment=int(draw.integers(1 + n // 12, n + 1))
    )
    queries = draw.standard_normal((4, d)).astype(np.float32)
    keys = pa.array([f"t{place:04d}" for place in range(n) if draw.random() < allowed], pa.string())
    norms = draw.uniform(0.5, 2, n).astype(np.float32)
    how: Any = {"rows": rows_of(table, keys), "k": k, "unit_norm": unit_norm, "norms": norms if divided else None}
    parts = [
        exact_scan(table, queries, fragments=part, settings=ScanSettings(threads=1), **how)
        for part in shards(table, n_workers)
    ]
    # Scores are compared as bits: 0.0 == -0.0.
    assert repr(merged(parts, k=k)) == repr(exact_scan(table, queries, **how))


def test_parts_have_about_as_many_rows_and_every_fragment_once(tmp_path: Path, encoding_rows: Any) -> None:
    path = tmp_path / "encodings.lance"
    for n in (5, 400, 60, 70, 300, 110):
        rows = encoding_rows([f"t{n}-{place}" for place in range(n)], np.ones((n, 64)), "int8")
        lance.write_dataset(rows, path, mode="append" if path.exists() else "create")
    table = lance.dataset(path)
    assert shards(table, 1) == [[0, 1, 2, 3, 4, 5]]
    assert shards(table, 3) == [[1], [4], [0, 2, 3, 5]]
    assert len(shards(table, 100)) == 6
    assert shards(lance.write_dataset(rows.slice(0, 0), tmp_path / "empty.lance"), 4) == []


@pytest.mark.parametrize("sparse", [0.0, 1.0])
def test_thousands_of_queries_share_one_pass(
    tmp_path: Path, encoding_rows: Any, monkeypatch: pytest.MonkeyPatch, sparse: float
) -> None:
    monkeypatch.setattr(scan, "_SPARSE", sparse)
    n, q, d = 500, 3000, 64
    table = table_of(tmp_path, encoding_rows, seed=7, n=n, d=d, codes="int8", fragment=90)
    read: list[int] = []
    read_codes = scan.read_codes

    def counted(rows: pa.RecordBatch) -> Any:
        read.append(rows.num_rows)
        return read_codes(rows)

    monkeypatch.setattr(scan, "read_codes", counted)
    told: list[int] = []
    queries = np.random.default_rng(8).standard_normal((q, d)).astype(np.float32)
    found = exact_scan(table, queries, rows=pa.array(np.arange(n) < n - 1), k=5, unit_norm=True, progress=told.append)
    assert sum(read) == sum(told) == n - 1
    for place in (0, 1234, q - 1):
        (alone,) = exact_scan(
            table, queries[place : place + 1], rows=pa.array(np.arange(n) < n - 1), k=5, unit_norm=True
        )
        for together, one in zip(found[place], alone, strict=True):
            assert together.keys == one.keys
            assert np.allclose(together.scores, one.scores, rtol=0, atol=1e-5)  # products of another shape
