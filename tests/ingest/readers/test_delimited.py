"""CSV and TSV: the first line names the fields, quotes keep line ends, and a bad row is named with its line."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.ingest.readers import RawRow, read_file
from proponent.schema.errors import CorpusError
from proponent.schema.settings import ReadSettings

# Python's writer leaves a lone \r unquoted.
CELL = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r"), max_size=8)


def read(tmp_path: Path, data: bytes | str, name: str = "corpus.csv", **settings: Any) -> list[RawRow]:
    (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return list(read_file(tmp_path / name, ReadSettings(**settings)))


@given(
    st.lists(st.tuples(CELL, CELL), max_size=5),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([("corpus.csv", ","), ("corpus.tsv", "\t")]),
)
def test_every_cell_comes_back_as_it_was_written(
    tmp_path: Path, cells: list[tuple[str, str]], quoting: int, end: str, form: tuple[str, str]
) -> None:
    name, delimiter = form
    sink = io.StringIO()
    writer = csv.writer(sink, quoting=quoting, lineterminator=end, delimiter=delimiter)  # type: ignore[arg-type]
    writer.writerow(["id", "text"])
    writer.writerows(cells)
    found = read(tmp_path, sink.getvalue(), name)
    assert [row.fields for row in found] == [{"id": one or None, "text": other or None} for one, other in cells]


def test_a_row_has_the_line_on_which_it_begins(tmp_path: Path) -> None:
    found = read(tmp_path, '\ufeffid,text\n1,"a\nb, ""c"""\r\n\n2,x')
    assert found == [
        RawRow(2, b'1,"a\nb, ""c"""', {"id": "1", "text": 'a\nb, "c"'}),
        RawRow(5, b"2,x", {"id": "2", "text": "x"}),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1", "1 fields, but the first line names 2"),
        (b"1,2,3", "3 fields, but the first line names 2"),
        (b"1,caf\xe9", "not UTF-8"),
        (b'1,"a"b', "not CSV"),
        (b"1,a\rb", "not CSV"),
    ],
)
def test_a_bad_row_is_named_and_the_next_one_is_read(tmp_path: Path, line: bytes, reason: str) -> None:
    bad, good = read(tmp_path, b"id,text\n" + line + b"\n2,x\n")
    assert (bad.row, bad.raw, bad.fields) == (2, line, None)
    assert reason in (bad.error or "")
    assert (good.row, good.fields) == (3, {"id": "2", "text": "x"})


def test_a_quote_that_is_not_closed_costs_no_more_than_the_limit(tmp_path: Path) -> None:
    rows = "".join(f"{n},word\n" for n in range(2, 30))
    first, *rest = read(tmp_path, f'id,text\n1,"open\n{rows}', max_row_bytes=50)
    assert "is a quote not closed?" in (first.error or "")
    assert len(first.raw) <= 60
    assert rest[-1].fields == {"id": "29", "text": "word"}
    assert first.row == 2
    assert rest[0].row == 2 + first.raw.count(b"\n") + 1


def test_a_quote_that_is_open_at_the_end_is_a_reject(tmp_path: Path) -> None:
    [row] = read(tmp_path, 'id,text\n1,"open\n2,x\n')
    assert "not CSV" in (row.error or "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"id,id\n1,2\n", "names 'id' more than once"),
        (b"id,caf\xe9\n1,2\n", "first line is not UTF-8"),
        (b"id;text\n1;2\n", "has no commas between the names: 'id;text'"),
        (b'"id,text\n1,2\n', "first line names no fields"),
        ("id,text\n".encode("utf-16"), "UTF-16; convert it to UTF-8"),
    ],
)
def test_a_first_line_that_names_no_fields_stops_the_file(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(CorpusError, match=rf"corpus\.csv cannot be read: .*{reason}"):
        read(tmp_path, data)


@pytest.mark.parametrize("data", ["", "id,text\n", "id,text"])
def test_no_line_after_the_first_is_no_rows(tmp_path: Path, data: str) -> None:
    assert read(tmp_path, data) == []


def test_a_cell_of_megabytes_is_a_cell(tmp_path: Path) -> None:
    [row] = read(tmp_path, "id,text\n1," + "x" * 5_000_000)
    assert row.fields is not None
    assert len(row.fields["text"]) == 5_000_000
