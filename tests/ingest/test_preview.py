"""A dry run shows what an ingest would store, and leaves no trace."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import proponent
from proponent.store.leases import lease

Rows = list[dict[str, Any]]
Write = Callable[..., Path]


def test_it_shows_documents_as_they_are_stored(
    lake: proponent.Lake, write_jsonl: Write, read_table: Callable[..., Rows], countries: Rows
) -> None:
    file = write_jsonl(countries)
    found = lake.preview(file, corpus="c", max_chars=40)
    lake.ingest(file, corpus="c", max_chars=40)
    stored = {row["doc_id"]: row for row in read_table(lake, "documents")}
    for document, row in zip(found.documents, countries, strict=True):
        shown = {name: value for name, value in document.items() if name not in ("entities", "text")}
        assert shown.items() <= stored[document["doc_id"]].items()
        assert document["entities"] == row["entities"]
        assert row["text"].startswith(document["text"])


def test_it_shows_the_first_rows_with_their_rejects(lake: proponent.Lake, write_jsonl: Write, countries: Rows) -> None:
    file = write_jsonl([countries[0], "{", {"id": 5}, *countries[1:]])
    found = lake.preview(file, corpus="c", rows=4)
    assert found.read == 4
    assert [document["doc_key"] for document in found.documents] == ["FR-1", "PE-1"]
    first, second = found.rejects
    assert first.startswith(f"{file}:2: not JSON")
    assert second.startswith(f"{file}:3: no text in field 'text'")


def test_it_writes_nothing_and_waits_for_nobody(
    lake: proponent.Lake, tmp_path: Path, write_jsonl: Write, countries: Rows
) -> None:
    file = write_jsonl(countries)

    def state() -> dict[str, bytes]:
        files = [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in files if path.suffix != ".db-shm"}  # SQLite's own readers

    with lease(lake.store.catalog, "ingest c", wait_s=5):
        before = state()
        assert len(lake.preview(file, corpus="c").documents) == 4
        assert state() == before


def test_it_names_the_files_that_it_leaves_out(lake: proponent.Lake, tmp_path: Path, countries: Rows) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps(countries[0]))
    (folder / "notes.pdf").write_text("x")
    assert lake.preview(folder, corpus="c").skipped_files == [f"{folder}/notes.pdf"]
    assert lake.ingest(folder, corpus="c").skipped_files == [f"{folder}/notes.pdf"]
