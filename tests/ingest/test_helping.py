"""Which runs of others a machine may help with."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from proponent.ingest.helping import _why_not
from proponent.ingest.pieces import LIST
from proponent.ingest.worklist import run_folder, write_list


@pytest.mark.parametrize(
    ("written", "n_bytes", "part", "told"),
    [
        (b"the file", 8, None, None),
        (b"the file", 0, None, None),
        (b"the file", 4, [0, 4, 0, 4], None),
        (b"another file", 8, None, "is another file on this machine, of 12 bytes"),
        (b"compressed", 80, [0, 1, 0, 80], None),
        (None, 8, None, "is not on this machine"),
    ],
)
def test_files_that_are_called_the_same_have_to_be_the_same(
    tmp_path: Path, written: bytes | None, n_bytes: int, part: list[int] | None, told: str | None
) -> None:
    lake: Any = SimpleNamespace(root=tmp_path / "lake", work_dir=tmp_path / "lake" / "work")
    run: Any = SimpleNamespace(run_id="run", kind="ingest", versions={})
    file = tmp_path / "rows.jsonl"
    if written is not None:
        file.write_bytes(written)
    row = {"location": bytes(file), "name": file.name, "key": "k", "n_bytes": n_bytes, "part": part}
    write_list(run_folder(lake, "run"), "pieces", pa.Table.from_pylist([row], LIST))
    found = _why_not(lake, run)
    assert found is None if told is None else told in str(found)
