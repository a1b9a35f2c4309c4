"""Four workers on an object store and PostgreSQL make the lake of a folder, whatever the network and the server do."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import proponent
from proponent.ingest import pieces
from proponent.lake import Lake
from proponent.schema.errors import LakeError, StorageError
from proponent.schema.settings import EncoderSettings
from proponent.store.objects import ObjectPath
from proponent.store.place import lake_path
from proponent.store.units import count_units

pytestmark = pytest.mark.full

SMALL = EncoderSettings(blocks=1, side=8, moments="none", sample=40)
ROWS = 900
Rows = Callable[[Lake], dict[str, list[Any]]]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 2000)


@pytest.fixture
def corpus(tmp_path: Path, corpus_files: Callable[..., Path]) -> Path:
    return corpus_files(tmp_path / "corpus", rows=ROWS, files=30)


@pytest.fixture
def wanted(tmp_path: Path, corpus: Path, rows_of: Rows) -> dict[str, list[Any]]:
    with proponent.init(tmp_path / "local") as lake:
        lake.ingest(corpus, corpus="c")
        return rows_of(lake)


@contextmanager
def once_some_units_are_done(lake: Lake, act: Callable[[], None]) -> Iterator[threading.Event]:
    """Do something in a with block as soon as three units of a run are written."""
    acted, over = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            with lake.store.catalog.read() as session:
                runs = [row[0] for row in session.connection().exec_driver_sql("SELECT DISTINCT run_id FROM units")]
            if any(count_units(lake.store.catalog, run).get("written", 0) >= 3 for run in runs):
                act()
                acted.set()
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield acted
    finally:
        over.set()
        watching.join()


def started_until_done(act: Callable[[], Any], times: int = 4) -> int:
    """Start something again as its message says; return how often that was."""
    for again in range(times):
        with suppress(LakeError):
            act()
            return again
    pytest.fail("it is not done after so many starts")


def test_four_workers_make_the_lake_that_one_makes_in_a_folder(
    store: Any, postgres: str, empty_postgres: Any, corpus: Path, checkpoint_dir: Path, tmp_path: Path, rows_of: Rows
) -> None:
    found = []
    for place, workers, how in (
        (tmp_path / "local", 1, {}),
        ("s3://lakes/four", 4, {"catalog": postgres}),
    ):
        with proponent.init(place, **how) as lake:
            lake.add_model(checkpoint_dir, name="tiny")
            lake.ingest(corpus, corpus="c", workers=workers)
            lake.encode(settings=SMALL, workers=workers)
            assert lake.check() == []
            found.append(rows_of(lake))
    names = [name for name in found[0] if not name.startswith("encodings")]
    assert {name: found[0][name] for name in names} == {name: found[1][name] for name in names}
    here, there = (one["encodings_tiny"] for one in found)
    assert [row["text_hash"] for row in here] == [row["text_hash"] for row in there]
    assert here == there


def test_a_server_that_is_killed_and_started_again_loses_and_doubles_nothing(
    own_s3_server: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    corpus: Path,
    wanted: dict[str, list[Any]],
    rows_of: Rows,
) -> None:
    for name, value in own_s3_server.environment.items():
        monkeypatch.setenv(name, value)
    own_s3_server.bucket("lakes")

    def power_cut() -> None:
        own_s3_server.kill()
        time.sleep(2)
        own_s3_server.start()

    with proponent.init("s3://lakes/killed", catalog=f"sqlite:///{tmp_path / 'c.db'}") as lake:
        with once_some_units_are_done(lake, power_cut) as killed:
            started_until_done(lambda: lake.ingest(corpus, corpus="c", workers=4))
        assert killed.is_set()
        assert rows_of(lake) == wanted
        assert {finding["grade"] for finding in lake.check(deep=True)} <= {"leftover", "note"}
        lake.compact()
        assert lake.check(deep=True) == []


def _slow(proxy: Any) -> None:
    proxy.delay_s = 0.03


def _failing(proxy: Any) -> None:
    proxy.fail_every = 5


def _cut(proxy: Any) -> None:
    proxy.cut()
    time.sleep(3)
    proxy.heal()


@pytest.mark.parametrize("trouble", [_slow, _failing, _cut])
def test_trouble_that_passes_changes_nothing(
    s3_server: Any,
    store: Any,
    proxy_to: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    corpus: Path,
    wanted: dict[str, list[Any]],
    rows_of: Rows,
    trouble: Callable[[Any], None],
) -> None:
    proxy = proxy_to(s3_server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    with proponent.init(f"s3://lakes/{trouble.__name__}", catalog=f"sqlite:///{tmp_path / 'c.db'}") as lake:
        with once_some_units_are_done(lake, lambda: trouble(proxy)) as troubled:
            started_again = started_until_done(lambda: lake.ingest(corpus, corpus="c", workers=2))
        assert started_again == 0 or trouble is _cut, "what fails for a moment is tried again"
        assert troubled.is_set()
        assert proxy.failed or trouble is not _failing
        proxy.heal()
        assert rows_of(lake) == wanted
        assert {finding["grade"] for finding in lake.check()} <= {"leftover", "note"}


def test_a_server_that_goes_on_failing_ends_a_run_with_a_line_and_the_next_goes_on(
    s3_server: Any,
    store: Any,
    proxy_to: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    corpus: Path,
    wanted: dict[str, list[Any]],
    rows_of: Rows,
) -> None:
    proxy = proxy_to(s3_server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    options = {"client_max_retries": "2", "client_retry_timeout": "3"}
    catalog = f"sqlite:///{tmp_path / 'c.db'}"
    with proponent.init("s3://lakes/failing", catalog=catalog, storage_options=options) as lake:
        before = lake.snapshot
        with (
            once_some_units_are_done(lake, proxy.fail),
            pytest.raises(StorageError, match=f"at http://127.0.0.1:{proxy.port} cannot be used: .*503") as caught,
        ):
            lake.ingest(corpus, corpus="c", workers=2)
        assert "\n" not in str(caught.value)
        assert lake.snapshot == before
        proxy.heal()
        assert lake.ingest(corpus, corpus="c", workers=2).added == ROWS
        assert rows_of(lake) == wanted


def test_a_large_object_is_there_as_a_whole_or_not_at_all(
    s3_server: Any, store: Any, proxy_to: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy = proxy_to(s3_server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    (tmp_path / "large").write_bytes(bytes(range(256)) * (40 << 12))  # forty megabytes, in several parts
    place = lake_path("s3://lakes/large", {"client_max_retries": "1", "client_retry_timeout": "2"})
    assert isinstance(place, ObjectPath)
    proxy.stall_at = b"partNumber=3"
    cutting = threading.Thread(target=lambda: (proxy.stalled.wait(60), proxy.cut()))
    cutting.start()
    with pytest.raises(StorageError, match="cannot be used"):
        place.upload(tmp_path / "large")
    cutting.join()
    assert proxy.stalled.is_set()
    proxy.heal()
    assert not place.is_file()
    assert place.parent.entries() == []
    place.upload(tmp_path / "large")
    assert place.read_bytes() == (tmp_path / "large").read_bytes()
