"""A JSON file is read object by object, and says clearly when it is something else."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.ingest.readers import RawRow, read_file
from proponent.schema.errors import CorpusError
from proponent.schema.settings import ReadSettings

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
ROWS = st.lists(st.dictionaries(TEXT, JSON, max_size=3), max_size=4)


def read(tmp_path: Path, data: bytes | str, **settings: Any) -> list[RawRow]:
    path = tmp_path / "corpus.json"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(read_file(path, ReadSettings(**settings)))


@given(ROWS, st.sampled_from([None, 2]), st.booleans())
def test_every_object_comes_back_as_it_was(
    tmp_path: Path, rows: list[dict[str, Any]], indent: int | None, ascii_only: bool
) -> None:
    found = read(tmp_path, json.dumps(rows, indent=indent, ensure_ascii=ascii_only))
    assert [row.fields for row in found] == rows
    assert [row.row for row in found] == list(range(1, len(rows) + 1))
    assert [json.loads(row.raw) for row in found] == rows


@given(ROWS, st.dictionaries(TEXT, st.integers() | TEXT | st.just({"a": [1]}) | st.just([1, [{}]]), max_size=3))
def test_the_array_may_be_a_member_among_others(
    tmp_path: Path, rows: list[dict[str, Any]], others: dict[str, Any]
) -> None:
    before = {f"a{name}": value for name, value in others.items()}
    after = {f"z{name}": value for name, value in others.items()}
    found = read(tmp_path, json.dumps(before | {"rows": rows} | after))
    assert [row.fields for row in found] == rows


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("{}", "holds no array of objects"),
        ('{"id": 1, "tags": ["a"]}', "holds no array of objects"),
        ('{"a": [{}], "b": [{}]}', "several arrays, 'a' and 'b'"),
        ('"text"', "a JSON str"),
        ('{"id": 1}\n{"id": 2}\n', "JSON Lines: name the file .jsonl, or give --reader jsonl"),
        ('[{"id": 1}, {"id": 2}', "after row 2: not JSON"),
        ('[{"id": 1}, {"id" 2}]', "after row 1: not JSON"),
        ('[{"id": 1}] x', "after row 1: not JSON"),
        (b'[{"id": "caf\xe9"}]', "not JSON"),
        ("   ", "not JSON"),
    ],
)
def test_a_file_that_cannot_be_read_says_why_and_where(tmp_path: Path, data: bytes | str, reason: str) -> None:
    with pytest.raises(CorpusError, match=r"corpus\.json cannot be read.*" + reason):
        read(tmp_path, data)


def test_an_element_that_is_no_object_is_named_and_the_next_one_is_read(tmp_path: Path) -> None:
    bad, also_bad, good = read(tmp_path, '[[1, {"id": 0}], null, {"id": 2}]')
    assert (bad.raw, bad.error) == (b'[1, {"id": 0}]', "a JSON list, not an object with named fields")
    assert also_bad.fields is None
    assert (good.row, good.fields) == (3, {"id": 2})


@pytest.mark.parametrize("data", [b"", b"[]", b'{"rows": []}', b"\xef\xbb\xbf[]"])
def test_nothing_is_no_rows(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data) == []


def test_a_byte_order_mark_is_not_part_of_the_file(tmp_path: Path) -> None:
    assert [row.fields for row in read(tmp_path, b'\xef\xbb\xbf[{"id": 1}]')] == [{"id": 1}]


def test_a_row_larger_than_the_limit_is_rejected_and_the_next_one_is_read(tmp_path: Path) -> None:
    rows = [{"id": 1, "words": ["word"] * 100}, {"id": 2}]
    large, good = read(tmp_path, json.dumps(rows), max_row_bytes=100)
    assert "larger than 100 bytes" in (large.error or "")
    assert good.fields == {"id": 2}


@pytest.mark.parametrize("depth", [100, 3000])
def test_deep_nesting_is_a_row_or_a_reason_and_no_crash(tmp_path: Path, depth: int) -> None:
    deep = '{"a": ' * depth + "1" + "}" * depth
    try:
        deep_row, good = read(tmp_path, f"[{deep}, {{}}]")
    except CorpusError:
        return
    assert (deep_row.fields is None) == (deep_row.error is not None)
    assert good.fields == {}


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(n: int) -> int:
        row = json.dumps({"id": "x", "text": "word " * 200})
        (tmp_path / "corpus.json").write_text("[" + ",".join([row] * n) + "]", "utf-8")
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_file(tmp_path / "corpus.json")) == n
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(4000) < 1.2 * peak(1000)
