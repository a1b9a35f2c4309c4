"""A lake in an object store is the lake that a folder is, and nothing that opens it is written into it."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import proponent
from proponent.lake import Lake
from proponent.schema.errors import DamagedLakeError, LakeError, LakeNotFoundError, SettingsError, StorageError
from proponent.schema.settings import EncoderSettings
from proponent.store.artifacts import load_artifact, save_artifact
from proponent.store.files import files_on_disk, named_files

SMALL = EncoderSettings(blocks=1, side=8, moments="estimated", sample=40)
ASKED = ("The capital of country 3", " lies on a river")


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    full = [sys.executable, "-m", "proponent", *map(str, arguments)]
    return subprocess.run(full, check=False, capture_output=True, text=True, timeout=300)


def test_a_lake_in_a_bucket_is_the_lake_of_a_folder(
    store: Any,
    catalog: Callable[[str], str],
    tmp_path: Path,
    corpus_files: Callable[..., Path],
    checkpoint_dir: Path,
    rows_of: Callable[..., dict[str, list[Any]]],
) -> None:
    files = corpus_files(tmp_path / "corpus", rows=60, files=2)
    told = []
    for place, how in ((tmp_path / "lake", {}), ("s3://lakes/a/lake", {"catalog": catalog("a")})):
        with proponent.init(place, **how) as lake:
            lake.add_model(checkpoint_dir, name="tiny")
            lake.ingest(files, corpus="c")
            lake.encode(settings=SMALL)
            hits = lake.trace(*ASKED, encoder="tiny", k=3).to_arrow().drop_columns(["trace_id"])
            summed = lake.group_influence(*ASKED, by="source").to_arrow()
            told.append((rows_of(lake), hits.to_pylist(), summed.to_pylist()))
    assert told[0] == told[1]
    assert len(told[0][0]["documents"]) == 60

    with proponent.open("s3://lakes/a/lake") as lake:
        lake.index_text()
        lake.delete(where="doc_key = '3'")
        assert lake.check(deep=True) == []
        lake.compact(forget=True)
        assert lake.check(deep=True) == []
        for table in lake.snapshot.versions:
            named = {name for names in named_files(lake.store, table).values() for name in names}
            assert files_on_disk(lake.store, table).keys() <= named
        lake.report("last", "s3://lakes/a/lake/reports/first.html")
        assert b"country 3" in store.cat_file("lakes/a/lake/reports/first.html")
        with pytest.raises(LakeError, match="is no folder of this machine"):
            lake.backup("s3://lakes/backup")
        lake.backup(tmp_path / "backup")
        now = rows_of(lake)
    tables = store.find("lakes/a/lake/tables")
    assert b"of country 3 lies" not in b"".join(store.cat_file(file) for file in tables)
    assert (tmp_path / "backup" / "backup.json").is_file()
    proponent.restore(tmp_path / "backup", "s3://lakes/again", catalog=catalog("again"))
    proponent.restore(tmp_path / "backup", tmp_path / "here")
    for place in ("s3://lakes/again", tmp_path / "here"):
        with proponent.open(place) as lake:
            assert rows_of(lake) == now
    with pytest.raises(LakeError, match="is not empty"):
        proponent.restore(tmp_path / "backup", "s3://lakes/again", catalog=catalog("third"))


def test_what_is_no_lake_in_a_bucket_says_so(store: Any, catalog: Callable[[str], str], tmp_path: Path) -> None:
    with pytest.raises(LakeNotFoundError, match="s3://lakes/none does not exist"):
        proponent.open("s3://lakes/none")
    with pytest.raises(SettingsError, match="needs a catalog elsewhere: proponent init s3://lakes/x --catalog"):
        proponent.init("s3://lakes/x")
    store.pipe("lakes/other/letter.txt", b"x")
    with pytest.raises(LakeError, match="is not empty and no lake"):
        proponent.init("s3://lakes/other", catalog=catalog("b"))
    with pytest.raises(SettingsError, match="not at ftp://"):
        proponent.open("ftp://lakes/x")
    with pytest.raises(SettingsError, match="'nonsense' is not valid"):
        proponent.open("s3://lakes/x", storage_options={"nonsense": "1"})
    proponent.init("s3://lakes/x", catalog=catalog("x")).close()
    with pytest.raises(LakeError, match="is a lake already"):
        proponent.init("s3://lakes/x", catalog=catalog("y"))
    (tmp_path / "x.db").rename(tmp_path / "gone.db")
    with pytest.raises(DamagedLakeError, match="is not on this machine"):
        proponent.open("s3://lakes/x")
    assert not (tmp_path / "x.db").exists()


@pytest.mark.full
def test_options_reach_a_store_and_stay_out_of_the_lake(
    s3_server: Any,
    store: Any,
    catalog: Callable[[str], str],
    tmp_path: Path,
    corpus_files: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {
        "aws_endpoint": s3_server.url,
        "aws_access_key_id": s3_server.key,
        "aws_secret_access_key": s3_server.secret,
        "aws_region": "us-east-1",
    }
    for name in s3_server.environment:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    files = corpus_files(tmp_path / "corpus", rows=6, files=1)
    with proponent.init("s3://lakes/b", catalog=catalog("b"), storage_options=options) as lake:
        lake.ingest(files, corpus="c", workers=2, max_reject_share=0.5)  # the workers are processes of their own
        state = {"a": torch.arange(3.0)}
        assert torch.equal(
            load_artifact(lake.store.artifacts_dir, save_artifact(lake.store.artifacts_dir, state))["a"], state["a"]
        )
    given = [f"--storage={name}={value}" for name, value in options.items()]
    done = command(*given, "sql", "s3://lakes/b", "SELECT count(*) AS n FROM documents", "--format", "json")
    assert '"n":6' in done.stdout.replace(" ", ""), done.stderr
    stored = b"".join(store.cat_file(file) for file in store.find("lakes/b")) + (tmp_path / "b.db").read_bytes()
    assert s3_server.secret.encode() not in stored
    assert s3_server.key.encode() + b"\n" not in stored
    wrong = options | {"aws_secret_access_key": "wrong", "client_retry_timeout": "2"}
    with pytest.raises(StorageError, match=rf"object store at {s3_server.url} cannot be used: .*403") as caught:
        proponent.open("s3://lakes/b", storage_options=wrong)
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match="is a folder"):
        proponent.open(tmp_path, storage_options=options)


def test_a_store_that_is_away_is_told_in_a_line_in_bounded_time(store: Any, catalog: Callable[[str], str]) -> None:
    proponent.init("s3://lakes/c", catalog=catalog("c")).close()
    began = time.monotonic()
    away = ("--storage=aws_endpoint=http://127.0.0.1:9", "--storage=client_retry_timeout=3")
    done = command(*away, "status", "s3://lakes/c")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the object store at http://127.0.0.1:9 cannot be used: ")
    assert done.stderr.count("\n") == 1
    assert "start again" in done.stderr
    assert time.monotonic() - began < 60


@pytest.mark.full
def test_credentials_may_lie_in_the_files_of_aws(
    s3_server: Any, store: Any, catalog: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proponent.init("s3://lakes/d", catalog=catalog("d")).close()
    (tmp_path / "credentials").write_text(
        f"[work]\naws_access_key_id = {s3_server.key}\naws_secret_access_key = {s3_server.secret}\n"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    with proponent.open("s3://lakes/d") as lake:
        assert lake.status()["rows"]["documents"] == 0


@pytest.mark.full
def test_a_restore_that_was_cut_short_leaves_no_lake_and_is_started_again(
    store: Any,
    catalog: Callable[[str], str],
    tmp_path: Path,
    corpus_files: Callable[..., Path],
    rows_of: Callable[..., dict[str, list[Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from proponent.store import restore as restoring

    with proponent.init(tmp_path / "lake") as lake:
        lake.ingest(corpus_files(tmp_path / "corpus", rows=6, files=1), corpus="c", max_reject_share=0.5)
        lake.backup(tmp_path / "backup")
        before = rows_of(lake)

    places = (tmp_path / "backup", "s3://lakes/e")

    def end(*_args: Any) -> None:
        raise KeyboardInterrupt

    for step in ("copy_from_sqlite", "_finish", "write_config"):
        with monkeypatch.context() as patch:
            patch.setattr(restoring, step, end)
            with pytest.raises(KeyboardInterrupt):
                proponent.restore(*places, catalog=catalog("e"))
        with pytest.raises(LakeError, match=r"was not finished|is no lake"):
            proponent.open("s3://lakes/e")
    proponent.restore(*places, catalog=catalog("e"))
    with proponent.open("s3://lakes/e") as again:
        assert rows_of(again) == before
    assert not [file for file in store.find("lakes/e") if "restoring" in file]


@pytest.mark.full
@pytest.mark.usefixtures("empty_postgres")
def test_a_password_of_the_catalog_is_not_in_the_lake(tmp_path: Path, postgres: str) -> None:
    secret = postgres.replace("postgres@", "postgres:hunter2zq@")
    with proponent.init(tmp_path / "lake", catalog=secret) as lake:
        assert isinstance(lake, Lake)
    assert "hunter2zq" not in (tmp_path / "lake" / "proponent.toml").read_text()
    with proponent.open(tmp_path / "lake") as lake:
        assert lake.snapshot.snapshot_id == 1


@pytest.mark.full
def test_a_catalog_of_another_lake_is_refused(
    tmp_path: Path, postgres: str, empty_postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import text

    with empty_postgres.connect().execution_options(isolation_level="AUTOCOMMIT") as server:
        server.execute(text("CREATE DATABASE another"))
    try:
        proponent.init(tmp_path / "lake", catalog=postgres).close()
        another = postgres.replace("/postgres?", "/another?")
        proponent.init(tmp_path / "other", catalog=another).close()
        monkeypatch.setenv("PROPONENT_CATALOG", another)
        with pytest.raises(LakeError, match="see that PROPONENT_CATALOG names the right one"):
            proponent.open(tmp_path / "lake")
        proponent.open(tmp_path / "other").close()
    finally:
        with empty_postgres.connect().execution_options(isolation_level="AUTOCOMMIT") as server:
            server.execute(text("DROP DATABASE another WITH (FORCE)"))
