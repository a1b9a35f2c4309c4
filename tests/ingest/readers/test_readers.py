"""A reader yields every row with its number and bytes, judges only whether it can be read, and never stops half-way."""

import json
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proponent.ingest.readers import READERS, RawRow, read_file
from proponent.schema.errors import CorpusError

# What makes a line of bytes another kind of file: the beginnings of compressed and of binary formats.
MAGIC = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"\xff\xff\xff\xff", b"PAR1", b"ARROW1", b"WARC/")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def read(tmp_path: Path, data: bytes, name: str = "corpus.jsonl") -> list[RawRow]:
    (tmp_path / name).write_bytes(data)
    return list(read_file(tmp_path / name))


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_every_object_comes_back_with_its_line_number(tmp_path: Path, rows: list[dict[str, Any]], end: str) -> None:
    found = read(tmp_path, "".join(json.dumps(row) + end for row in rows).encode())
    assert [row.fields for row in found] == rows
    assert [row.row for row in found] == list(range(1, len(rows) + 1))


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_every_line_that_is_not_blank_is_a_row_whatever_its_bytes(tmp_path: Path, lines: list[bytes]) -> None:
    data = b"\n".join(lines)
    assume(not data.startswith((b"\xff\xfe", b"\xfe\xff", *MAGIC)))
    found = read(tmp_path, data)
    written = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert len(found) == sum(1 for line in written if line.strip())
    assert all((row.fields is None) == (row.error is not None) for row in found)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "caf\xe9"}', "not UTF-8 at byte 13"),
        (b'{"id": 1,', "not JSON"),
        (b"{'id': 1}", "not JSON"),
        (b'{"id": 1} {"id": 2}', "not JSON: Extra data"),
        (b"[" * 100_000, "not JSON"),
        (b'{"id": ' + b"1" * 5000 + b"}", "not JSON"),
        (b"[1, 2]", "a JSON list"),
        (b'"text"', "a JSON str"),
        (b"null", "a JSON NoneType"),
        (b"\x00", "not JSON"),
    ],
    ids=["latin-1", "cut short", "python", "two objects", "deep", "huge integer", "list", "text", "null", "zero byte"],
)
def test_a_bad_line_is_named_and_the_next_one_is_read(tmp_path: Path, line: bytes, reason: str) -> None:
    bad, good = read(tmp_path, line + b'\n{"id": 2}\n')
    assert bad.fields is None
    assert reason in (bad.error or "")
    assert bad.raw == line
    assert good == RawRow(2, b'{"id": 2}', {"id": 2})


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path: Path) -> None:
    assert [row.row for row in read(tmp_path, b'\n  \n{"id": 1}\n\r\n{"id": 2}')] == [3, 5]


def test_a_byte_order_mark_and_windows_line_ends_are_not_part_of_a_row(tmp_path: Path) -> None:
    assert read(tmp_path, b'\xef\xbb\xbf{"id": 1}\r\n') == [RawRow(1, b'{"id": 1}', {"id": 1})]


def test_a_byte_order_mark_alone_is_an_empty_file(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbf") == []


def test_a_line_of_many_megabytes_is_a_row(tmp_path: Path) -> None:
    (row,) = read(tmp_path, json.dumps({"id": 1, "text": "x" * 20_000_000}).encode())
    assert row.fields is not None
    assert len(row.fields["text"]) == 20_000_000


def test_unicode_line_separators_do_not_end_a_line(tmp_path: Path) -> None:
    (row,) = read(tmp_path, '{"text": "a\u2028b\u0085c\x0c"}'.replace("\x0c", "").encode())
    assert row.fields == {"text": "a\u2028b\u0085c"}


@pytest.mark.parametrize("name", ["a.jsonl", "a.NDJSON", "a.b.jsonl", "o'brien; --.jsonl", "日本 語.jsonl"])
def test_the_suffix_chooses_the_reader(tmp_path: Path, name: str) -> None:
    assert len(read(tmp_path, b'{"id": 1}', name)) == 1


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path, b"") == []


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("missing.jsonl", r"missing\.jsonl cannot be read: No such file"),
        ("folder.jsonl", r"folder\.jsonl cannot be read: Is a directory"),
        ("corpus.doc", r"no known suffix.*\.jsonl.*\.parquet"),
    ],
)
def test_a_file_that_cannot_be_a_corpus_is_refused_before_it_is_read(tmp_path: Path, name: str, named: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "corpus.doc").write_text("id,text\n")
    with pytest.raises(CorpusError, match=named):
        list(read_file(tmp_path / name))


def test_every_reader_has_suffixes_of_its_own() -> None:
    suffixes = [suffix for reader in READERS for suffix in reader.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)


def test_parquet_gives_the_rows_that_json_lines_give(tmp_path: Path, countries: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(countries), tmp_path / "corpus.parquet")
    lines = "".join(json.dumps(row) + "\n" for row in countries).encode()
    found = list(read_file(tmp_path / "corpus.parquet"))
    assert [(row.row, row.fields) for row in found] == [(row.row, row.fields) for row in read(tmp_path, lines)]
    assert [json.loads(row.kept) for row in found] == countries


def test_parquet_keeps_dates_nulls_and_bytes(tmp_path: Path) -> None:
    moment = datetime(2025, 6, 1, 12, tzinfo=UTC)
    row = {"day": date(2025, 6, 1), "moment": moment, "nothing": None, "blob": b"\xff"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "corpus.parquet")
    (found,) = read_file(tmp_path / "corpus.parquet")
    assert found.fields == row
    json.loads(found.kept)


def test_parquet_is_read_in_batches_with_one_numbering(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": range(3000)}), tmp_path / "corpus.parquet", row_group_size=700)
    assert [(row.row, row.fields) for row in read_file(tmp_path / "corpus.parquet")] == [
        (n + 1, {"id": n}) for n in range(3000)
    ]


def test_an_empty_parquet_file_has_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([], pa.string())}), tmp_path / "corpus.parquet")
    assert list(read_file(tmp_path / "corpus.parquet")) == []


@pytest.mark.parametrize("kept", [0, 10, 0.5, -1])
def test_a_truncated_parquet_file_is_refused_by_name(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"id": ["a"] * 100}), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(CorpusError, match=r"corpus\.parquet cannot be read"):
        list(read_file(path))


def test_flipped_bytes_in_a_parquet_file_are_an_error_or_rows_but_never_another_exception(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"id": ["a", "bb", "ccc"] * 5, "n": range(15)}), path, write_page_checksum=True)
    data = path.read_bytes()
    for place in range(4, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        with suppress(CorpusError):
            list(read_file(path))


def test_values_that_python_has_no_type_for_are_a_named_error(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"when": pa.array([2**60], pa.timestamp("us"))}), path)  # the year 38,000
    with pytest.raises(CorpusError, match="cannot be read"):
        list(read_file(path))
