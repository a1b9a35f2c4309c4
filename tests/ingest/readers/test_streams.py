"""What a file is is found by what it begins with; a name that says otherwise, and every damage, is told."""

import bz2
import gzip
import io
import json
import lzma
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proponent.ingest.readers import read_file
from proponent.ingest.readers.files import list_files
from proponent.schema.errors import CorpusError
from proponent.schema.settings import ReadSettings

ROWS = [{"id": str(n), "text": f"Text {n * 7919 % 10007}."} for n in range(3000)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("named", [True, False])
def test_compression_is_found_by_content_whether_or_not_the_name_says_it(
    tmp_path: Path, suffix: str, named: bool
) -> None:
    path = tmp_path / ("rows.jsonl" + (suffix.upper() if named else ""))
    path.write_bytes(COMPRESSIONS[suffix](LINES))
    assert [row.fields for row in read_file(path)] == ROWS


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_files_of_several_compressed_parts_are_read_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.jsonl{suffix}"
    half = LINES.index(b"\n", len(LINES) // 2) + 1
    path.write_bytes(COMPRESSIONS[suffix](LINES[:half]) + COMPRESSIONS[suffix](LINES[half:]))
    assert [row.fields for row in read_file(path)] == ROWS


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_formats_that_need_to_seek_may_be_compressed_too(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.parquet{suffix}"
    path.write_bytes(COMPRESSIONS[suffix](parquet()))
    assert [row.fields for row in read_file(path)] == ROWS


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused_with_its_name(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"rows.jsonl{suffix}"
    data = COMPRESSIONS[suffix](LINES)
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(CorpusError, match=r"rows\.jsonl.* cannot be read"):
        list(read_file(path))


def test_a_wrong_checksum_in_the_middle_is_told_with_the_place(tmp_path: Path) -> None:
    first = bytearray(gzip.compress(LINES))
    first[-6] ^= 0x55
    (tmp_path / "rows.jsonl.gz").write_bytes(bytes(first) + gzip.compress(LINES))
    with pytest.raises(CorpusError, match=r"rows\.jsonl\.gz cannot be read after row \d+: CRC check failed"):
        list(read_file(tmp_path / "rows.jsonl.gz"))


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.jsonl.gz", LINES, "its name says gzip, but it is not compressed"),
        ("a.jsonl.gz", bz2.compress(LINES), "its name says gzip, but it is compressed with bzip2"),
        ("a.jsonl.gz", b"", "its name says gzip, but it is empty"),
        ("a.jsonl", parquet(), "its name says jsonl, but it is parquet"),
        ("a.csv", gzip.compress(parquet()), "its name says csv, but it is parquet"),
        ("a.parquet", LINES, "it is no parquet file: it does not begin like one"),
        ("a.arrow", parquet(), "it is no arrow file: it begins like parquet"),
        ("a.parquet", b"", "it is no parquet file: it is empty"),
        ("a.doc", LINES, "no known suffix"),
        ("a.jsonl", "{}".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_wrong_name_is_told(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorpusError, match=f"{name} cannot be read: .*{told}") as caught:
        list(read_file(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_named_reader_needs_no_suffix(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(gzip.compress(LINES))
    assert [row.fields for row in read_file(tmp_path / "rows", ReadSettings(reader="jsonl"))] == ROWS


def test_content_alone_is_enough_for_binary_formats(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(parquet())
    assert [row.fields for row in read_file(tmp_path / "rows")] == ROWS


class Pipe(io.RawIOBase):
    """Bytes that come in small pieces and never again."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self._data.read(min(3, len(buffer)))
        buffer[: len(data)] = data
        return len(data)


@pytest.mark.parametrize(("data", "reader"), [(LINES, "jsonl"), (gzip.compress(LINES), "jsonl"), (parquet(), None)])
def test_stdin_is_a_file_that_is_read_once(monkeypatch: pytest.MonkeyPatch, data: bytes, reader: str | None) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Pipe(data))))
    [file], _ = list_files(["-"], lambda _name: False)
    assert [row.fields for row in read_file(file, ReadSettings(reader=reader))] == ROWS


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_memory_grows_neither_with_the_file_nor_with_what_it_unpacks_to(tmp_path: Path, suffix: str) -> None:
    def peak(times: int) -> int:
        path = tmp_path / f"rows.jsonl{suffix}"
        path.write_bytes(COMPRESSIONS[suffix](LINES * times))
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_file(path)) == times * len(ROWS)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)
    assert peak(16) < 1.2 * peak(4)


def test_a_row_larger_than_the_limit_is_rejected_without_being_held(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b'{"text": "' + b"x" * 50_000_000 + b'"}\n{"id": 2}\n'))
    tracemalloc.start()
    try:
        large, good = read_file(tmp_path / "rows.jsonl.gz", ReadSettings(max_row_bytes=100_000))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert large.error == "the row is larger than 100000 bytes (--max-row-bytes)"
    assert len(large.raw) == 65_536
    assert (good.row, good.fields) == (2, {"id": 2})
