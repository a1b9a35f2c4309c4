"""A stream is the rows of a result, batch by batch, whatever happens around it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from proponent.query.running import BATCH_ROWS
from proponent.query.session import Session
from proponent.schema.errors import SqlError
from proponent.schema.settings import SqlSettings
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot

LONG = "SELECT range AS n, 'text ' || range AS text FROM range(1000000)"
FAILS = "SELECT CASE WHEN range = 500000 THEN error('boom') ELSE 'x' || range END AS x FROM range(1000000)"
ENDLESS = "SELECT a.range AS n FROM range(100000000000) AS a WHERE a.range < 200000 OR hash(a.range) = 3"


def test_a_stream_has_the_rows_of_the_result_in_pieces(session: Session) -> None:
    query = "SELECT doc_key AS k, doc_key AS k, published, range FROM documents, range(5000) ORDER BY doc_key, range"
    with session.stream(query) as stream:
        assert stream.columns == ["k", "k_1", "published", "range"]
        batches = list(stream.batches())
    assert len(batches) > 1
    assert max(batch.num_rows for batch in batches) <= BATCH_ROWS
    assert pa.Table.from_batches(batches) == session.sql(query).to_arrow().combine_chunks()


def test_rows_are_the_named_tuples_of_a_result(session: Session) -> None:
    query = "SELECT doc_key, published FROM documents WHERE source = $source ORDER BY ALL"
    parameters = {"source": "O'Reilly"}
    with session.stream(query, parameters) as stream:
        assert list(stream) == list(session.sql(query, parameters))


def test_arrow_readers_take_a_stream(session: Session) -> None:
    assert pl.DataFrame(session.stream(LONG)).height == 1_000_000
    assert pa.table(session.stream("FROM documents")).num_rows == 60
    with duckdb.connect() as other:
        stream = session.stream(LONG)
        assert other.from_arrow(pa.RecordBatchReader.from_stream(stream)).count("*").fetchall() == [(1_000_000,)]


def test_a_stream_is_read_once_and_not_after_it_is_closed(session: Session) -> None:
    stream = session.stream("SELECT 1 AS one")
    assert list(stream) == [(1,)]
    with pytest.raises(SqlError, match="read once"):
        stream.batches()
    with session.stream(LONG) as stream:
        next(stream.batches())
    with pytest.raises(SqlError, match="ask again"):
        iter(stream)


def test_streams_and_queries_run_side_by_side(session: Session) -> None:
    with session.stream(LONG) as first, session.stream(LONG) as second:
        for one, other in zip(first.batches(), second.batches(), strict=True):
            assert one == other
            assert len(session.sql("FROM documents")) == 60


def test_a_stream_outlives_its_session_and_reads_on_in_utc(filled: LakeStore, at: Snapshot) -> None:
    with Session(filled, at, threads=1) as session:
        stream = session.stream("SELECT created_at, doc_key, range FROM documents, traces, range(10000)")
        batches = stream.batches()
        read = next(batches).num_rows
    assert stream.schema.field("created_at").type == pa.timestamp("us", "UTC")
    assert read + sum(batch.num_rows for batch in batches) == 600_000


def test_a_stream_reaches_no_more_than_the_session(session: Session) -> None:
    for query in ("DROP VIEW documents", "SELECT 1; SELECT 2", "FROM read_text('/etc/hostname')"):
        with pytest.raises(SqlError):
            session.stream(query)


def test_an_error_in_a_later_row_is_named_and_the_session_lives_on(session: Session) -> None:
    with session.stream(FAILS) as stream, pytest.raises(SqlError, match=r"^Invalid Input Error: boom$"):
        list(stream.batches())
    with pytest.raises(pa.ArrowException, match="boom"):
        pa.table(session.stream(FAILS))
    assert len(session.sql("FROM documents")) == 60


def test_the_time_limit_counts_the_query_and_not_its_reader(session: Session) -> None:
    with session.stream("FROM range(400000)", settings=SqlSettings(time_limit_s=1)) as stream:
        for _ in stream.batches():
            time.sleep(0.2)  # seven of them
    with (
        session.stream(ENDLESS, settings=SqlSettings(time_limit_s=0.5)) as stream,
        pytest.raises(SqlError, match=r"the query took longer than 0\.5 s and was stopped"),
    ):
        list(stream.batches())
    assert len(session.sql("FROM documents")) == 60


@pytest.fixture
def interrupt() -> Iterator[threading.Timer]:
    """Ctrl-C in a moment; tests that are run in the background would not notice."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    yield timer
    timer.cancel()
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupt")
def test_ctrl_c_stops_a_query_and_the_session_lives_on(session: Session) -> None:
    with pytest.raises(KeyboardInterrupt):
        session.sql(ENDLESS)
    assert len(session.sql("FROM documents")) == 60


@pytest.mark.usefixtures("interrupt")
def test_ctrl_c_stops_a_stream_in_the_middle(session: Session) -> None:
    with session.stream(ENDLESS) as stream:
        batches = stream.batches()
        next(batches)
        with pytest.raises(KeyboardInterrupt):
            list(batches)
    assert len(session.sql("FROM documents")) == 60


def test_a_forgotten_stream_leaves_nothing_behind_when_python_ends(filled: LakeStore) -> None:
    script = (
        "import proponent\n"
        f"lake = proponent.open({str(filled.root)!r})\n"
        "stream = lake.stream('FROM range(1000000)')\n"
        "half = lake.stream('FROM range(1000000)').batches()\n"
        "print(next(half).num_rows)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{BATCH_ROWS}\n", "")
