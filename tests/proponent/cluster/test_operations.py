"""What docs/operations.md says of disks that fill, buckets that move and credentials that change, tried for real."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

import proponent
from proponent.lake import Lake
from proponent.schema.errors import LakeError, OlderCatalogError

pytestmark = pytest.mark.full

POSTGRES = Path("/usr/lib/postgresql/15/bin")
Rows = Callable[[Lake], dict[str, list[Any]]]


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proponent", *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with room for some megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", disk], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_ends_a_run_with_one_line_and_it_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path, corpus_rows: Callable[[int], list[dict[str, Any]]], rows_of: Rows
) -> None:
    lines = [json.dumps(row | {"more": os.urandom(1500).hex()}) for row in corpus_rows(4000)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), "utf-8")
    assert run("init", small_disk / "lake").returncode == 0
    done = run("ingest", small_disk / "lake", tmp_path / "a.jsonl", "--corpus", "c", "--workers", 2, "-q")
    assert done.returncode == 1, "4,000 rows of 3 kB do not fit"
    assert "No space left on device" in done.stderr
    with proponent.open(small_disk / "lake") as lake:
        assert lake.snapshot.snapshot_id == 1
        assert [one for one in lake.check() if one["grade"] == "damage"] == []
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    done = run("ingest", small_disk / "lake", tmp_path / "a.jsonl", "--corpus", "c", "--workers", 2, "-q")
    assert done.returncode == 0, done.stderr
    with proponent.open(small_disk / "lake") as lake, proponent.init(tmp_path / "other") as other:
        other.ingest(tmp_path / "a.jsonl", corpus="c")
        assert rows_of(lake) == rows_of(other)
        lake.check(repair=True)
        assert lake.check(deep=True) == []


def copied(postgres: str, name: str) -> str:
    """Copy the catalog into another database of the server, as pg_dump does; return its URL."""
    host = postgres.partition("host=")[2]
    dump = subprocess.check_output([POSTGRES / "pg_dump", "-h", host, "-U", "postgres", "postgres"])
    psql = [POSTGRES / "psql", "-h", host, "-U", "postgres", "-q", "-v", "ON_ERROR_STOP=1"]
    subprocess.run([*psql, "-d", "postgres", "-c", f"CREATE DATABASE {name}"], check=True)
    subprocess.run([*psql, "-d", name], input=dump, check=True, stdout=subprocess.DEVNULL)
    return f"postgresql+psycopg://postgres@/{name}?host={host}"


@pytest.fixture
def databases(postgres: str) -> Iterator[list[str]]:
    names: list[str] = []
    yield names
    engine = create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name in names:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    engine.dispose()


def test_a_lake_whose_bucket_and_catalog_were_copied_opens_elsewhere_and_catches_up(
    store: Any,
    s3_server: Any,
    postgres: str,
    empty_postgres: Any,
    databases: list[str],
    tmp_path: Path,
    corpus_files: Callable[..., Path],
    rows_of: Rows,
) -> None:
    corpus = corpus_files(tmp_path / "corpus", rows=60, files=3)
    databases.append("elsewhere")
    with proponent.init("s3://lakes/here", catalog=postgres) as lake:
        lake.ingest(corpus / "000.jsonl", corpus="c")
        url = copied(postgres, "elsewhere")  # the catalog first ...
        lake.ingest(corpus / "001.jsonl", corpus="c")
        lake.delete("doc_key = '3'")
        wanted = rows_of(lake)
    other = s3_server.bucket("elsewhere")
    other.copy("lakes/here/", "elsewhere/there/", recursive=True)  # ... then the bucket, to which more has come
    try:
        with pytest.raises(OlderCatalogError, match="--catch-up"):
            proponent.open("s3://elsewhere/there", catalog=url)
        with proponent.open("s3://elsewhere/there", catalog=url, may_be_older=True) as moved:
            moved.catch_up()
        with proponent.open("s3://elsewhere/there", catalog=url) as moved:
            assert rows_of(moved) == wanted
            moved.ingest(corpus / "002.jsonl", corpus="c")
            assert moved.check(deep=True) == []
        with proponent.open("s3://lakes/here", catalog=postgres) as lake:
            assert rows_of(lake) == wanted, "the old place knows nothing of it"
    finally:
        other.rm("elsewhere", recursive=True)


def test_a_bucket_that_was_copied_before_the_catalog_is_told_and_copied_again(
    store: Any,
    s3_server: Any,
    postgres: str,
    empty_postgres: Any,
    databases: list[str],
    tmp_path: Path,
    corpus_files: Callable[..., Path],
    rows_of: Rows,
) -> None:
    corpus = corpus_files(tmp_path / "corpus", rows=40, files=2)
    databases.append("wrongway")
    other = s3_server.bucket("elsewhere")
    with proponent.init("s3://lakes/here", catalog=postgres) as lake:
        lake.ingest(corpus / "000.jsonl", corpus="c")
        other.copy("lakes/here/", "elsewhere/there/", recursive=True)
        lake.ingest(corpus / "001.jsonl", corpus="c")
        url, wanted = copied(postgres, "wrongway"), rows_of(lake)
    try:
        with proponent.open("s3://elsewhere/there", catalog=url) as moved:
            assert "damage" in {one["grade"] for one in moved.check()}
            with pytest.raises(LakeError):
                rows_of(moved)
        other.copy("lakes/here/", "elsewhere/there/", recursive=True)
        with proponent.open("s3://elsewhere/there", catalog=url) as moved:
            assert rows_of(moved) == wanted
            assert moved.check(deep=True) == []
    finally:
        other.rm("elsewhere", recursive=True)


def once_it_has_units(run: subprocess.Popen[str], catalog: Path) -> None:
    """Wait until a run has cut its work, so that its workers are at it or about to be."""
    with closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True)) as connection:
        while not connection.execute("SELECT count(*) FROM units").fetchone()[0]:
            assert run.poll() is None, "it was over before"
            time.sleep(0.02)


def test_credentials_that_change_end_a_run_with_one_line_and_it_goes_on_with_new_ones(
    own_s3_server: Any,
    tmp_path: Path,
    corpus_files: Callable[..., Path],
    rows_of: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = own_s3_server
    server.bucket("lakes")
    corpus = corpus_files(tmp_path / "corpus", rows=400, files=40)
    catalog, lake = f"sqlite:///{tmp_path / 'catalog.db'}", "s3://lakes/one"
    assert run("init", lake, "--catalog", catalog, **server.environment).returncode == 0
    command = ("ingest", lake, corpus, "--corpus", "c", "--workers", 2, "-q")
    arguments = [sys.executable, "-m", "proponent", *map(str, command)]
    ingest = subprocess.Popen(arguments, env=os.environ | server.environment, stderr=subprocess.PIPE, text=True)
    once_it_has_units(ingest, tmp_path / "catalog.db")
    server.kill()
    config = tmp_path / "s3" / "s3.json"
    config.write_text(config.read_text().replace(server.secret, "another-secret-for-today"))
    server.secret = "another-secret-for-today"
    server.start()
    _, errors = ingest.communicate(timeout=300)
    assert ingest.returncode == 1, errors
    assert errors.splitlines()[-1].startswith("error: the object store at"), errors
    assert "a-secret" not in errors
    late = run(*command, **server.environment)  # which has the old one
    assert late.returncode == 1
    assert late.stderr.startswith("error: the object store at")
    assert "403" in late.stderr, late.stderr
    assert "a-secret" not in late.stderr
    new = server.environment | {"AWS_SECRET_ACCESS_KEY": server.secret}
    assert run(*command, **new).returncode == 0
    for name, value in new.items():
        monkeypatch.setenv(name, value)
    with proponent.open(lake) as opened, proponent.init(tmp_path / "local") as local:
        local.ingest(corpus, corpus="c")
        assert rows_of(opened) == rows_of(local)
