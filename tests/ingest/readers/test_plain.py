"""A text file is a document, or several with a line between them."""

from pathlib import Path

import pytest

from proponent.ingest.readers import RawRow, read_file
from proponent.schema.settings import ReadSettings


def read(tmp_path: Path, data: bytes, **settings: object) -> list[RawRow]:
    (tmp_path / "a.txt").write_bytes(data)
    return list(read_file(tmp_path / "a.txt", ReadSettings(**settings)))  # type: ignore[arg-type]


def test_a_file_is_a_document_named_after_it(tmp_path: Path) -> None:
    assert [row.fields for row in read(tmp_path, b"\xef\xbb\xbfOne\r\n\r\ntwo")] == [
        {"id": "a.txt", "text": "One\r\n\r\ntwo"}
    ]


def test_an_empty_file_is_an_empty_document(tmp_path: Path) -> None:
    assert [row.fields for row in read(tmp_path, b"")] == [{"id": "a.txt", "text": ""}]


@pytest.mark.parametrize(
    ("separator", "line"), [("---", b"---"), ("---", b" --- \r"), ("", b""), ("<|end|>", b"<|end|>")]
)
def test_a_separator_stands_alone_on_its_line(tmp_path: Path, separator: str, line: bytes) -> None:
    found = read(tmp_path, b"one --- 1\n" + line + b"\n" + line + b"\ntwo\n" + line + b"\n", separator=separator)
    assert [(row.row, row.fields) for row in found] == [
        (1, {"id": "a.txt#1", "text": "one --- 1\n"}),
        (4, {"id": "a.txt#2", "text": "two\n"}),
    ]


def test_what_is_not_utf8_or_too_large_is_named_and_the_next_one_is_read(tmp_path: Path) -> None:
    data = b"caf\xe9\n---\n" + b"x" * 9 + b"\n" + b"y" * 2000 + b"\n---\nlast"
    latin, large, last = read(tmp_path, data, separator="---", max_row_bytes=15)
    assert latin.error == "not UTF-8 at byte 3 of the document"
    assert "larger than 15 bytes" in (large.error or "")
    assert last.fields == {"id": "a.txt#3", "text": "last"}


def test_a_file_without_line_ends_takes_no_more_memory_than_a_row_may(tmp_path: Path) -> None:
    [row] = read(tmp_path, b"x" * 1_000_000, max_row_bytes=1000)
    assert (row.fields, len(row.raw)) == (None, 1002)
