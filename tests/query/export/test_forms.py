"""Rows are the same in every form, whoever reads them, and text stays text."""

import csv
import io
import json
import subprocess
import sys
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import openpyxl
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proponent.cli import options
from proponent.query.export import excel
from proponent.query.export.forms import FORMS, form_of, write_file, write_rows
from proponent.query.session import Session
from proponent.schema.errors import InputError, SqlError
from proponent.store.lake import LakeStore

FORMULAS = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    '=HYPERLINK("http://x")',
]
ROWS = [
    {
        "text": text,
        "n": -number,
        "score": [0.5, float("nan"), float("-inf")][number % 3],
        "day": date(2020, 2, 1 + number),
        "at": datetime(2021, 5, 6, 7, 8, 9, tzinfo=UTC),
        "names": ["a", "日本"][: number % 3],
        "sum": Decimal(number),
        "raw": b"\xff=1",
        "yes": number % 2 == 0,
    }
    for number, text in enumerate([*FORMULAS, "a | b\n<b>`c`</b>", "\x1b[31m\u202ered", "🙂 é", ""])
] + [dict.fromkeys(("text", "n", "score", "day", "at", "names", "sum", "raw", "yes"))]


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pa.Table.from_pylist(ROWS)


def written(rows: pa.Table, form: str) -> bytes:
    sink = io.BytesIO()
    assert write_rows(rows, sink, form) == rows.num_rows
    return sink.getvalue()


def test_json_and_json_lines_are_numbers_text_and_null(table: pa.Table) -> None:
    rows = json.loads(written(table, "json"), parse_constant=pytest.fail)
    assert rows == [json.loads(line, parse_constant=pytest.fail) for line in written(table, "jsonl").splitlines()]
    assert [row["text"] for row in rows] == [row["text"] for row in ROWS]
    assert rows[0] | {"raw": None} == {
        "text": FORMULAS[0], "n": 0, "score": 0.5, "day": "2020-02-01", "at": "2021-05-06 07:08:09+00:00", "names": [],
        "sum": 0, "raw": None, "yes": True,
    }  # fmt: skip
    assert [row["score"] for row in rows[1:3]] == [None, None]
    assert written(table, "json").decode() == json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def test_no_rows_are_no_rows_in_every_form(table: pa.Table) -> None:
    none = table.slice(0, 0)
    assert written(none, "json") == b"[]\n"
    assert written(none, "jsonl") == b""
    assert written(none, "csv").count(b"\n") == 1
    assert pq.read_table(io.BytesIO(written(none, "parquet"))).equals(none)
    assert pa.ipc.open_file(written(none, "arrow")).read_all().equals(none)
    assert openpyxl.load_workbook(io.BytesIO(written(none, "xlsx"))).active.max_row == 1


def test_cells_of_csv_are_no_formulas_and_numbers_stay_numbers(table: pa.Table) -> None:
    rows = list(csv.DictReader(io.StringIO(written(table, "csv").decode(), newline="")))
    assert [row["text"] for row in rows[: len(FORMULAS)]] == [f"'{text}" for text in FORMULAS]
    assert [row["text"] for row in rows[len(FORMULAS) : -1]] == [row["text"] for row in ROWS[len(FORMULAS) : -1]]
    assert [row["n"] for row in rows[:-1]] == [str(-number) for number in range(len(ROWS) - 1)]
    assert written(pa.table({"=1": [1]}), "csv") == b"'=1\n1\n"


def test_cells_of_excel_are_no_formulas_and_have_their_types(table: pa.Table) -> None:
    data = written(table, "xlsx")
    sheet = openpyxl.load_workbook(io.BytesIO(data)).active
    head, *rows = sheet.iter_rows(values_only=True)
    assert list(head) == table.column_names
    assert rows[0] == (
        FORMULAS[0], 0, 0.5, datetime(2020, 2, 1), datetime(2021, 5, 6, 7, 8, 9), "", 0, "\\xff=1", True,
    )  # fmt: skip
    assert len(rows) == len(ROWS) - 1  # a row of nothing at the end is none
    kinds = {cell.data_type for cell in next(sheet.iter_cols(min_row=2, max_row=len(FORMULAS) + 1))}
    assert kinds <= {"s", "inlineStr"}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        xml = b"".join(archive.read(name) for name in archive.namelist())
    assert b"<f>" not in xml
    assert b"<hyperlinks>" not in xml


def test_excel_keeps_what_a_cell_cannot_hold_as_text() -> None:
    rows = pa.table({"text": ["😀" * 20_000], "big": [2**60], "old": [date(1582, 10, 4)]})
    [(text, big, old)] = openpyxl.load_workbook(io.BytesIO(written(rows, "xlsx"))).active.iter_rows(
        min_row=2, values_only=True
    )
    assert text == "😀" * 16_383 + "…"
    assert (big, old) == (str(2**60), "1582-10-04")


def test_excel_says_when_a_sheet_is_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(excel, "MOST_ROWS", 3)
    with pytest.raises(InputError, match="has 3 rows"):
        write_file(pa.table({"n": range(4)}), tmp_path / "x.xlsx", "xlsx")
    assert list(tmp_path.iterdir()) == []


def test_excel_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    with pytest.raises(InputError, match=r"proponent\[excel\]"):
        write_file(pa.table({"n": [1]}), tmp_path / "x.xlsx", "xlsx")


def test_markdown_rows_stay_rows(table: pa.Table) -> None:
    lines = written(table, "md").decode().splitlines()
    assert len(lines) == len(ROWS) + 2
    assert "a \\| b &lt;b>\\`c\\`&lt;/b>" in lines[2 + len(FORMULAS)]


def test_other_libraries_read_the_same_rows(table: pa.Table, tmp_path: Path) -> None:
    for form in ("parquet", "arrow", "jsonl", "xlsx"):
        write_file(table, tmp_path / f"rows.{form}", form)
    plain = table.select(["text", "n", "day"])
    assert pl.read_parquet(tmp_path / "rows.parquet").select(plain.column_names).to_arrow().to_pylist() == (
        plain.to_pylist()
    )
    assert pl.read_ipc(tmp_path / "rows.arrow").height == len(ROWS)
    assert pd.read_json(tmp_path / "rows.jsonl", lines=True)["text"].tolist()[:9] == FORMULAS
    assert pd.read_excel(tmp_path / "rows.xlsx")["text"].tolist()[:2] == FORMULAS[:2]


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_is_written_as_its_rows(session: Session, form: str) -> None:
    query = "SELECT doc_key, source, published, range FROM documents, range(200) ORDER BY ALL"
    sink = io.BytesIO()
    with session.stream(query) as stream:
        assert write_rows(stream, sink, form) == 12_000
    if form == "parquet":
        assert pq.read_table(io.BytesIO(sink.getvalue())).equals(session.sql(query).to_arrow())
    elif form == "arrow":
        assert pa.ipc.open_file(sink.getvalue()).read_all().equals(session.sql(query).to_arrow())
    elif form == "xlsx":
        assert openpyxl.load_workbook(io.BytesIO(sink.getvalue()), read_only=True).active.max_row == 12_001
    else:
        assert sink.getvalue() == written(session.sql(query).to_arrow(), form)


def test_a_stream_that_fails_leaves_no_file_and_the_former_one_as_it_was(session: Session, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("former")
    fails = "SELECT CASE WHEN range = 200000 THEN error('boom') ELSE 1 END AS x FROM range(300000)"
    for form in FORMS:
        with session.stream(fails) as stream, pytest.raises(SqlError, match="boom"):
            write_file(stream, tmp_path / f"rows.{form}", form)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("rows.csv", "former")]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        write_file(pa.table({}), tmp_path / "no" / "x.csv", "csv")
    with pytest.raises(InputError, match="is a folder"):
        write_file(pa.table({}), tmp_path, "csv")
    with pytest.raises(InputError, match="no suffix"):
        form_of(tmp_path / "rows.tsv")


def test_the_command_line_offers_every_form() -> None:
    assert options.FORMS == FORMS


@pytest.mark.full
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_memory_does_not_grow_with_the_rows(filled: LakeStore, tmp_path: Path, form: str) -> None:
    script = (
        "import resource, sys, proponent\n"
        "with proponent.open(sys.argv[1]) as lake:\n"
        "    query = \"SELECT range AS n, 'text of a passage ' || range AS text FROM range($rows)\"\n"
        "    lake.export(sys.argv[2], sql=query, parameters={'rows': int(sys.argv[3])})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = []
    for rows in (1, 3_000_000):
        command = [sys.executable, "-c", script, str(filled.root), str(tmp_path / f"rows.{form}"), str(rows)]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True, text=True).stdout))
    assert peaks[1] - peaks[0] < 200_000  # kB; the rows are 200 MB as text and more in Python
