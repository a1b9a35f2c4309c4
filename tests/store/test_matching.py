"""Texts are matched by their hashes alone, whatever lies where, and what goes wrong meanwhile is told as it is."""

import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.schema.errors import FilterError, LakeError
from proponent.store import matching
from proponent.store.matching import marked, matched, rows_of, texts_of, which_are_in
from proponent.store.scan import in_list

Table = Callable[..., lance.LanceDataset]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Write a table of texts in fragments of some rows."""

    def write(keys: list[str], *, fragment: int = 1 << 20) -> lance.LanceDataset:
        rows = pa.table({"text_hash": pa.array(keys, pa.string()), "norm": np.arange(len(keys), dtype=np.float32)})
        return lance.write_dataset(rows, tmp_path / f"{len(list(tmp_path.iterdir()))}", max_rows_per_file=fragment)

    return write


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 300), joined=st.booleans(), gone=st.booleans())
def test_rows_are_those_of_the_texts(table: Table, seed: int, n: int, joined: bool, gone: bool) -> None:
    draw = np.random.default_rng(seed)
    keys = [f"é{place:03d}" for place in draw.permutation(n)]
    stored = table(keys, fragment=int(draw.integers(1 + n // 6, n + 2)))
    if gone and n:
        stored.delete(in_list("text_hash", pa.array(keys[n // 3 : n // 2 + 1])))
        keys = keys[: n // 3] + keys[n // 2 + 1 :]
    wanted = [f"é{place:03d}" for place in draw.integers(0, 400, n // 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "_FEW", 0 if joined else 1000)
        patch.setattr(matching, "_READ", 7)
        rows = rows_of(stored, pa.array(wanted, pa.string()))
    assert rows.to_pylist() == [key in set(wanted) for key in keys]
    assert texts_of(stored, rows).to_pylist() == [key for key in keys if key in set(wanted)]
    there = which_are_in(stored, pa.chunked_array([wanted[:3], wanted[3:]], pa.string()))
    assert there.to_pylist() == [key in set(keys) for key in wanted]


@pytest.mark.parametrize("few", [0, 1000])
def test_every_row_that_is_wanted_comes_with_its_place_and_its_other_columns(
    table: Table, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "_FEW", few)
    stored = table(["c", "a", "b"], fragment=2)
    wanted = pa.table({"number": [1, 2, 3, 4], "text_hash": ["b", "nothing", "c", "b"], "name": ["x", "y", "z", "ü"]})
    found = pa.Table.from_batches(matched(stored, wanted.to_reader()))
    rows = sorted(found.to_pylist(), key=lambda row: row["number"])
    assert rows == [
        {"place": 2, "number": 1, "name": "x"},
        {"place": 0, "number": 3, "name": "z"},
        {"place": 2, "number": 4, "name": "ü"},
    ]


def test_a_table_far_larger_than_the_memory_is_matched_on_disk(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MEMORY_LIMIT", "64MB")
    n = 1_500_000  # some 90 MB to hash on either side
    order = np.random.default_rng(0).permutation(n)
    stored = table([f"{place:026d}" for place in range(n)])
    there = rows_of(stored, pa.array([f"{place:026d}" for place in order[: n // 2]]))
    assert np.array_equal(np.flatnonzero(there.to_numpy(zero_copy_only=False)), np.sort(order[: n // 2]))


def test_what_cannot_be_matched_says_so_in_a_line(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MEMORY_LIMIT", "1MB")
    stored = table([f"{place:026d}" for place in range(200_000)])
    with pytest.raises(LakeError, match=r"^texts cannot be matched: Out of Memory.*TMPDIR.*$"):
        rows_of(stored, pa.array([f"{place:026d}" for place in range(100_000)]))


@pytest.mark.parametrize("few", [0, 1000])
def test_what_reading_the_wanted_raises_is_raised(table: Table, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_FEW", few)

    def failing() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"text_hash": ["a"]})
        raise FilterError("as a test")

    reader = pa.RecordBatchReader.from_batches(pa.schema([("text_hash", pa.string())]), failing())
    with pytest.raises(FilterError, match="as a test"):
        list(matched(table(["a", "b"]), reader))


def test_what_is_stopped_ends_although_more_is_wanted(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_FEW", 0)
    stopped = threading.Event()

    def wanted() -> Iterator[pa.RecordBatch]:
        for place in range(1000):
            yield pa.record_batch({"text_hash": [f"{place:026d}"]})
            if place == 20:
                stopped.set()
        raise AssertionError("all was read")

    reader = pa.RecordBatchReader.from_batches(pa.schema([("text_hash", pa.string())]), wanted())
    with pytest.raises(LakeError, match="was stopped"):
        list(matched(table(["a", "b"]), reader, stopped=stopped))


def test_where_nothing_can_be_laid_aside_a_line_says_so(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(LakeError, match=r"^texts cannot be matched: .*/nowhere/.*; TMPDIR may name another disk$"):
        which_are_in(table(["a", "b"]), pa.array(["b"]))


def test_marks_are_at_their_places() -> None:
    assert marked(4, [pa.array([3]), pa.array([], pa.int64()), pa.array([0, 3])]).to_pylist() == [
        True,
        False,
        False,
        True,
    ]
    assert marked(0, []).to_pylist() == []
