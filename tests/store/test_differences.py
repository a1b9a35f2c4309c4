"""Two versions of a table differ by the rows that one has alone, however they came about."""

from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.store.differences import differing

VERSIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 5)),
        st.tuples(st.just("delete"), st.integers(2, 4)),
        st.tuples(st.just("overwrite"), st.integers(1, 5)),
        st.tuples(st.just("compact"), st.just(0)),
    ),
    min_size=1,
    max_size=4,
)


def rows(first: int, n: int) -> pa.Table:
    return pa.table({"key": [f"k{first + place}" for place in range(n)], "other": list(range(n))})


def keys(dataset: lance.LanceDataset) -> set[str]:
    return set(dataset.to_table()["key"].to_pylist())


@given(steps=VERSIONS, data=st.data())
def test_rows_that_one_version_has_alone_are_found(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    path: Path = tmp_path_factory.mktemp("versions") / "t.lance"
    lance.write_dataset(rows(0, 7), path)
    made = 100
    for what, n in steps:
        dataset: Any = lance.dataset(path)
        if what == "append":
            lance.write_dataset(rows(made, n), path, mode="append")
        elif what == "delete":
            dataset.delete(f"other % {n} = 1")
        elif what == "overwrite":
            lance.write_dataset(rows(made, n), path, mode="overwrite")
        else:
            dataset.optimize.compact_files()
        made += 100
    newest = lance.dataset(path)
    numbers = [one["version"] for one in newest.versions()]
    one, other = (newest.checkout_version(data.draw(st.sampled_from(numbers))) for _ in range(2))
    found = differing(one, other, "key").to_pylist()
    moved = any(what == "compact" for what, _ in steps)  # rows that lie elsewhere are told, too
    assert keys(one) ^ keys(other) <= set(found)
    if not moved:
        assert sorted(found) == sorted(keys(one) ^ keys(other))
    if one.version == other.version:
        assert not found
