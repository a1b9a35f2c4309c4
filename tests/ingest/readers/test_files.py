"""The list of a corpus's files is the same whatever order the file system has, and what is missing is told."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

from proponent.ingest.readers import is_known, read_file
from proponent.ingest.readers.files import list_files, local_file, told, without_secrets
from proponent.schema.errors import CorpusError

NAMES = ["b.jsonl", "a/z.csv.gz", "a/b/c.jsonl", "a.jsonl", "a/notes.pdf", ".hidden.jsonl", ".git/x.jsonl", "z.JSONL"]
SORTED = ["a/b/c.jsonl", "a/z.csv.gz", "a.jsonl", "b.jsonl", "z.JSONL"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    return tmp_path / "corpus"


@pytest.fixture
def store(folder: Path) -> Iterator[str]:
    """The same files in a store that is reached by URL."""
    memory = fsspec.filesystem("memory")
    memory.put(f"{folder}/", "/bucket/corpus/", recursive=True)
    yield "memory://bucket/corpus"
    memory.rm("/bucket", recursive=True)


def keys(*given: str | Path) -> list[str]:
    return [file.key for file in list_files(given, is_known).files]


def test_a_folder_gives_its_files_of_known_formats_sorted(folder: Path) -> None:
    found = list_files([folder], is_known)
    assert [file.key for file in found.files] == SORTED
    assert [file.name for file in found.files] == [f"{folder}/{name}" for name in SORTED]
    assert found.skipped == [f"{folder}/a/notes.pdf"]
    assert keys(f"{folder}/") == SORTED


def test_the_order_of_the_file_system_means_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = os.walk

    def backwards(*args: Any, **options: Any) -> Iterator[Any]:
        yield from reversed([(parent, folders, names[::-1]) for parent, folders, names in walk(*args, **options)])

    monkeypatch.setattr(os, "walk", backwards)
    assert keys(folder) == SORTED


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("**/*.jsonl", ["a/b/c.jsonl", "a.jsonl", "b.jsonl"]),
        ("?.jsonl", ["a.jsonl", "b.jsonl"]),
        ("[ab].jsonl", ["a.jsonl", "b.jsonl"]),
        ("a/**", ["b/c.jsonl", "z.csv.gz"]),
        ("*", ["a.jsonl", "b.jsonl", "z.JSONL"]),
    ],
)
def test_patterns_mean_the_same_here_and_in_a_store(folder: Path, store: str, pattern: str, found: list[str]) -> None:
    assert keys(f"{folder}/{pattern}") == keys(f"{store}/{pattern}") == found


def test_a_store_has_the_same_files(folder: Path, store: str) -> None:
    found = list_files([store], is_known)
    assert [file.key for file in found.files] == SORTED
    assert [file.name for file in found.files] == [f"memory:///bucket/corpus/{name}" for name in SORTED]
    assert found.skipped == ["memory:///bucket/corpus/a/notes.pdf"]
    assert [row.fields for row in read_file(found.files[0])] == [{}]
    assert keys(f"{store}/a.jsonl") == ["a.jsonl"]


def test_what_is_given_keeps_its_order(folder: Path) -> None:
    assert keys(folder / "z.JSONL", f"{folder}/[ab].jsonl", folder / "a/z.csv.gz") == [
        *("z.JSONL", "a.jsonl", "b.jsonl", "z.csv.gz"),
    ]


def test_a_name_that_looks_like_a_pattern_is_a_name_first(tmp_path: Path) -> None:
    (tmp_path / "a[1].jsonl").write_text("{}")
    (tmp_path / "a1.jsonl").write_text("{}")
    assert keys(tmp_path / "a[1].jsonl") == ["a[1].jsonl"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing.jsonl", r"missing\.jsonl does not exist"),
        ("*.csv", r"there is no file that matches .*\*\.csv"),
        ("a/*.pdf", r"no file that matches .*a/\*\.pdf has a known suffix; there are .*notes\.pdf"),
        ("empty", r"there is no file in .*empty"),
    ],
)
def test_what_is_not_there_is_told(folder: Path, store: str, given: str, message: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(CorpusError, match=message):
        list_files([f"{folder}/{given}"], is_known)
    if given != "empty":  # stores have no empty folders
        with pytest.raises(CorpusError, match=message):
            list_files([f"{store}/{given}"], is_known)


def test_an_unknown_store_is_told() -> None:
    with pytest.raises(CorpusError, match=r"nonsense://bucket/x\.jsonl cannot be read: .*proponent\[s3\]"):
        list_files(["nonsense://bucket/x.jsonl"], is_known)


def test_a_file_that_vanishes_from_a_store_is_told(store: str) -> None:
    [file, *_] = list_files([store], is_known).files
    fsspec.filesystem("memory").rm("/bucket/corpus/a/b/c.jsonl")
    with pytest.raises(CorpusError, match=r"memory:///bucket/corpus/a/b/c\.jsonl cannot be read"):
        list(read_file(file))


def test_a_folder_that_may_not_be_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str, *_: object) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(CorpusError, match="corpus cannot be read: Permission denied"):
        list_files([folder], is_known)


def test_a_file_that_may_not_be_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, *_: object, **_options: object) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(CorpusError, match=r"a\.jsonl cannot be read: Permission denied"):
        list(read_file(folder / "a.jsonl"))


def test_errors_of_stores_are_told_without_what_is_secret_in_their_urls() -> None:
    error = "403, url='https://user:word@host/a.jsonl?X-Amz-Signature=SECRET' and s3://bucket/b?sig=SECRET"
    told = without_secrets(error)
    assert told == "403, url='https://host/a.jsonl' and s3://bucket/b"


def test_stdin_can_be_given_once() -> None:
    with pytest.raises(CorpusError, match="only once"):
        list_files(["-", "-"], is_known)


def test_secrets_of_urls_are_not_told() -> None:
    assert told("https://me:secret@example.org/a.jsonl?Signature=secret#x") == "https://example.org/a.jsonl"
    [file], _ = list_files(["https://me:secret@example.org/a.jsonl?Signature=secret"], is_known)
    assert (file.name, file.key) == ("https://example.org/a.jsonl", "a.jsonl")
    assert told("a?b") == "a?b"


def test_a_name_that_is_not_utf8_is_told_printably() -> None:
    assert local_file(os.fsdecode(b"caf\xe9.jsonl")).name == "caf\\xe9.jsonl"


class Dataset:
    """A folder as `datasets` saves it."""

    def __init__(self, folder: Path, shards: list[list[dict[str, Any]]]) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        files = [f"data-{n:05}-of-{len(shards):05}.arrow" for n in range(len(shards))]
        for name, rows in zip(files, shards, strict=True):
            table = pa.Table.from_pylist(rows)
            with pa.ipc.new_stream(folder / name, table.schema) as writer:
                writer.write_table(table)
        state = {"_data_files": [{"filename": name} for name in files], "_split": None}
        (folder / "state.json").write_text(json.dumps(state))
        (folder / "dataset_info.json").write_text('{"features": {}}')


def test_a_dataset_on_disk_gives_the_files_that_its_state_names(tmp_path: Path) -> None:
    made = Dataset(tmp_path / "ds", [[{"id": 1}], [{"id": 2}]])
    (made.folder / "cache-123.arrow").write_bytes(b"left over")
    found = list_files([made.folder], is_known)
    assert [row.fields for file in found.files for row in read_file(file)] == [{"id": 1}, {"id": 2}]
    assert found.skipped == []


def test_a_dataset_of_splits_gives_all_of_them(tmp_path: Path) -> None:
    for split in ("train", "test"):
        Dataset(tmp_path / "ds" / split, [[{"split": split}]])
    (tmp_path / "ds" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    found = list_files([tmp_path / "ds"], is_known)
    assert [row.fields for file in found.files for row in read_file(file)] == [{"split": "test"}, {"split": "train"}]


def test_a_dataset_that_lacks_a_file_or_a_split_is_refused(tmp_path: Path) -> None:
    made = Dataset(tmp_path / "ds" / "train", [[{"id": 1}], [{"id": 2}]])
    (tmp_path / "ds" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(CorpusError, match=r"dataset_dict\.json names the split 'test', which is not there"):
        list_files([tmp_path / "ds"], is_known)
    (made.folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(CorpusError, match=r"state\.json names .*data-00001-of-00002\.arrow, which is not there"):
        list_files([made.folder], is_known)


@pytest.mark.parametrize("state", ["{", "{}", '{"_data_files": 1}'])
def test_a_dataset_with_a_damaged_state_is_refused(tmp_path: Path, state: str) -> None:
    made = Dataset(tmp_path / "ds", [[{"id": 1}]])
    (made.folder / "state.json").write_text(state)
    with pytest.raises(CorpusError, match=r"state\.json cannot be read"):
        list_files([made.folder], is_known)
