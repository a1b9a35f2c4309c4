"""Arrow files and streams give the rows that they were made of."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from proponent.ingest.readers import read_file
from proponent.schema.errors import CorpusError

ROWS = [{"id": str(n), "n": n, "tags": ["a", None], "deep": {"x": n / 7}} for n in range(700)]


def write(path: Path, rows: list[dict[str, Any]], *, stream: bool, **options: Any) -> Path:
    table = pa.Table.from_pylist(rows, pa.Table.from_pylist(ROWS).schema)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=300)
    return path


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ["a.arrow", "a.feather", "a.ipc", "a.arrows", "unnamed"])
def test_files_and_streams_are_told_apart_by_their_content(tmp_path: Path, name: str, stream: bool) -> None:
    found = list(read_file(write(tmp_path / name, ROWS, stream=stream)))
    assert [row.fields for row in found] == ROWS
    assert [row.row for row in found] == list(range(1, len(ROWS) + 1))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_feather_is_read(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "a.feather", ROWS, stream=False, compression=compression)
    assert [row.fields for row in read_file(path)] == ROWS


@pytest.mark.parametrize("stream", [True, False])
def test_a_file_without_rows_has_none(tmp_path: Path, stream: bool) -> None:
    assert list(read_file(write(tmp_path / "a.arrow", [], stream=stream))) == []


@pytest.mark.parametrize("stream", [True, False])
def test_flipped_bytes_are_an_error_or_rows_but_never_a_crash(tmp_path: Path, stream: bool) -> None:
    path = write(tmp_path / "a.arrow", ROWS[:5], stream=stream)
    data = path.read_bytes()
    for place in range(0, len(data), 5):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        with suppress(CorpusError):
            list(read_file(path))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kept", [0, 5, 100, 5000])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, kept: int, stream: bool) -> None:
    path = write(tmp_path / "a.arrow", ROWS, stream=stream)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorpusError, match=r"a\.arrow cannot be read"):
        list(read_file(path))
