"""Pieces of files: whoever reads which of them, together they are the files, row for row and with the same numbers."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proponent.ingest import pieces
from proponent.ingest.pieces import Piece, content_of, from_list, pieces_of, seen, to_list, units_of
from proponent.ingest.readers import lines, read_file
from proponent.ingest.readers.files import CorpusFile, local_file
from proponent.schema.errors import CorpusError
from proponent.schema.settings import ReadSettings

SETTINGS = ReadSettings()
MAGIC = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"PAR1", b"ARROW1", b"WARC/")
ROWS = st.lists(st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b" ")), max_size=30)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 50)
    monkeypatch.setattr(lines, "_READ_AT_ONCE", 20)


def rows_of(cut: list[Piece]) -> list[object]:
    return [row for piece in cut for row in read_file(piece.file, SETTINGS, part=piece.part)]


@pytest.mark.usefixtures("small")
@given(ROWS, st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.booleans())
def test_the_parts_of_a_jsonl_file_are_the_file(
    tmp_path: Path, rows: list[bytes], end: bytes, has_mark: bool, ends: bool
) -> None:
    path = tmp_path / "rows.jsonl"
    content = (b"\xef\xbb\xbf" if has_mark else b"") + end.join(rows) + (end if ends else b"")
    assume(not content.startswith(MAGIC))  # whatever begins so is no file of lines
    path.write_bytes(content)
    cut = list(pieces_of(seen([local_file(path)]), SETTINGS))
    assert sum(piece.n_bytes for piece in cut) == path.stat().st_size
    assert rows_of(cut) == list(read_file(path, SETTINGS))


@pytest.mark.usefixtures("small")
def test_a_line_that_is_longer_than_a_part_and_than_a_row_may_be_stays_one_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"id": 1}\n' + b'{"id": "' + b"x" * 500_000 + b'"}\n' + b'{"id": 3}\n')
    settings = ReadSettings(max_row_bytes=200_000)
    cut = list(pieces_of(seen([local_file(path)]), settings))
    assert len(cut) > 1
    rows = [row for piece in cut for row in read_file(piece.file, settings, part=piece.part)]
    assert [(row.row, row.fields) for row in rows] == [(1, {"id": 1}), (2, None), (3, {"id": 3})]


@pytest.mark.usefixtures("small")
@given(st.integers(0, 40), st.integers(1, 12))
def test_the_parts_of_a_parquet_file_are_the_file(tmp_path: Path, n_rows: int, group: int) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": list(range(n_rows)), "text": ["word " * 10] * n_rows}), path, row_group_size=group)
    cut = list(pieces_of(seen([local_file(path)]), SETTINGS))
    assert rows_of(cut) == list(read_file(path, SETTINGS))
    assert len(cut) > 1 or n_rows <= group or n_rows == 0


@pytest.mark.usefixtures("small")
def test_a_compressed_file_is_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": 1}\n' * 10_000, 0))
    assert [piece.part for piece in pieces_of(seen([local_file(path)]), SETTINGS)] == [None]


@pytest.mark.usefixtures("small")
def test_small_files_share_a_unit_and_parts_of_large_ones_have_their_own(tmp_path: Path) -> None:
    sizes = [10, 10, 40, 5, 200, 3]
    files = []
    for place, size in enumerate(sizes):
        path = tmp_path / f"{place}.jsonl"
        path.write_bytes(b"{}\n" * (size // 3))
        files.append(local_file(path))
    cut = list(pieces_of(seen(files), SETTINGS))
    units = units_of(cut)
    assert [(unit["ordinal"], unit["start"]) for unit in units] == [
        (place, 0 if place == 0 else units[place - 1]["stop"]) for place in range(len(units))
    ]
    assert units[-1]["stop"] == len(cut)
    assert units[0] == {"ordinal": 0, "start": 0, "stop": 3}
    assert len(units) >= 4


@pytest.mark.usefixtures("small")
def test_another_process_opens_the_same_pieces(tmp_path: Path) -> None:
    path = tmp_path / "rows \udce9.jsonl"  # a name that is not UTF-8
    path.write_bytes(b'{"id": 1}\n' * 30)
    cut = list(pieces_of(seen([local_file(path, "rows")]), SETTINGS))
    again = from_list(to_list(cut))
    assert [(one.part, one.n_bytes, one.file.name, one.file.key) for one in again] == [
        (one.part, one.n_bytes, one.file.name, one.file.key) for one in cut
    ]
    assert rows_of(again) == rows_of(cut)


def test_a_corpus_that_has_changed_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n", "utf-8")
    before = content_of(seen([local_file(path)]))
    assert before == content_of(seen([local_file(path)]))
    path.write_text("{}\n{}\n", "utf-8")
    assert content_of(seen([local_file(path)])) not in (before, None)


def test_a_corpus_of_which_nobody_knows_whether_it_changes_has_no_content_id(tmp_path: Path) -> None:
    stream = CorpusFile("-", "stdin", lambda: (tmp_path / "x").open("rb"))
    assert content_of(seen([stream])) is None


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"gone\.jsonl cannot be read: No such file"):
        seen([local_file(tmp_path / "gone.jsonl")])
