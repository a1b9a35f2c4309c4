"""Corpora on a real S3 server: the same lake as from files, and failures told in a line."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import proponent
from proponent.ingest import pieces
from proponent.schema.errors import CorpusError

pytestmark = pytest.mark.full  # a server takes seconds to start

KEY, SECRET = "a-key", "a-secret-that-nobody-may-read"
TABLES = ("documents", "passages", "mentions", "rejects")


@pytest.fixture(scope="module")
def server(s3_server: Any) -> str:
    """The address of an S3 server."""
    return str(s3_server.url)


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket `corpora`, with the environment that reaches it."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem()
    store.mkdir("corpora")
    yield store
    store.rm("corpora", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus in three formats, with a row that is rejected."""
    rows = [
        {"id": str(n), "text": f"Text {n} says this. It says that, too.", "source": "ab"[n % 2], "entities": ["Peru"]}
        for n in range(3000)
    ]
    made = tmp_path / "corpus" / "x"
    made.mkdir(parents=True)
    thirds = [rows[:1000], rows[1000:2000], rows[2000:]]
    lines = ["".join(json.dumps(row) + "\n" for row in some).encode() for some in thirds]
    (made / "a.jsonl").write_bytes(lines[0] + b'{"id": "without text"}\n')
    (made / "b.jsonl.gz").write_bytes(gzip.compress(lines[1]))
    pq.write_table(pa.Table.from_pylist(thirds[2]), made / "c.parquet", row_group_size=100)
    return made


def _content(lake: proponent.Lake) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for name in TABLES:
        data = lake.store.table(name, at=lake.snapshot).to_table()
        kept = data.drop_columns([column for column in ("run_id", "file") if column in data.column_names])
        found[name] = kept.to_pylist()
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_a_corpus_in_a_bucket_makes_the_lake_that_its_files_make(
    tmp_path: Path, bucket: Any, folder: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 10_000)  # so that the Parquet file is read in parts
    bucket.put(f"{folder}/", "corpora/x/", recursive=True)
    with proponent.init(tmp_path / "of files") as files, proponent.init(tmp_path / "of objects") as objects:
        files.ingest(folder, corpus="c")
        counts = objects.ingest("s3://corpora/x", corpus="c", workers=workers)
        assert counts.rejected == 1
        assert _content(objects) == _content(files)
        again = objects.ingest("s3://corpora/x/*", corpus="c", workers=workers)
        assert (again.added, again.unchanged) == (0, 3000)


def test_an_object_that_has_changed_is_read_anew(tmp_path: Path, bucket: Any, folder: Path) -> None:
    bucket.put(f"{folder}/", "corpora/x/", recursive=True)
    with proponent.init(tmp_path / "lake") as lake:
        lake.ingest("s3://corpora/x/b.jsonl.gz", corpus="c")
        bucket.pipe("corpora/x/b.jsonl.gz", gzip.compress(b'{"id": "1000", "text": "Now it says this."}\n'))
        assert lake.ingest("s3://corpora/x/b.jsonl.gz", corpus="c").updated == 1


def _wrong_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")


def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")


def _as_it_is(_monkeypatch: pytest.MonkeyPatch) -> None:
    pass


@pytest.mark.parametrize(
    ("url", "wrong", "message"),
    [
        ("s3://corpora/nothing.jsonl", _as_it_is, r"s3://corpora/nothing\.jsonl does not exist"),
        ("s3://no-bucket/a.jsonl", _as_it_is, r"s3://no-bucket/a\.jsonl does not exist"),
        ("s3://corpora/x/*.csv", _as_it_is, r"there is no file that matches s3://corpora/x/\*\.csv"),
        ("s3://corpora/x", _wrong_secret, "s3://corpora/x cannot be read: PermissionError"),
        ("s3://corpora/x", _no_server, "s3://corpora/x cannot be read: EndpointConnectionError"),
    ],
)
def test_what_cannot_be_reached_is_told_in_a_line_without_the_secret(
    tmp_path: Path,
    bucket: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    wrong: Callable[[pytest.MonkeyPatch], None],
    message: str,
) -> None:
    bucket.put(f"{folder}/", "corpora/x/", recursive=True)
    wrong(monkeypatch)
    type(bucket).clear_instance_cache()
    with proponent.init(tmp_path / "lake") as lake:
        before = lake.snapshot.snapshot_id
        with pytest.raises(CorpusError, match=message) as caught:
            lake.ingest(url, corpus="c")
        assert "\n" not in str(caught.value)
        assert SECRET not in str(caught.value)
        assert lake.snapshot.snapshot_id == before


def test_no_secret_is_written_into_the_lake(tmp_path: Path, bucket: Any, folder: Path) -> None:
    bucket.put(f"{folder}/", "corpora/x/", recursive=True)
    with proponent.init(tmp_path / "lake") as lake:
        lake.ingest("s3://corpora/x", corpus="c", workers=2)
    files = [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
