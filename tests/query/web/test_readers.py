"""What tells one state of a lake from another, for whoever keeps what was made of it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proponent.lake import init
from proponent.query.memo import Memo
from proponent.query.session import Session
from proponent.query.web.readers import Readers
from proponent.schema.errors import SqlError
from proponent.schema.settings import SqlSettings
from proponent.store.commit import committing
from proponent.store.lake import LakeStore
from proponent.store.runs import new_run, recorded_run


def readers_of(lake: LakeStore) -> Readers:
    return Readers(lake, most=1, settings=SqlSettings(), memo=Memo(), shared=True)


def test_a_run_that_goes_on_leaves_another_state(tmp_path: Path) -> None:
    with init(tmp_path / "lake") as lake:
        readers, catalog = readers_of(lake.store), lake.store.catalog
        with pytest.raises(KeyError), recorded_run(catalog, "ingest", {}) as run:
            raise KeyError
        failed = readers.state().settled
        with recorded_run(catalog, "ingest", {}, resume=run.run_id):
            pass
        assert readers.state().settled != failed


def test_what_a_process_that_died_had_planned_leaves_another_state(tmp_path: Path) -> None:
    with init(tmp_path / "lake") as lake:
        readers, run = readers_of(lake.store), new_run("delete", {})
        with lake.store.catalog.write() as session:
            session.add(run)
        before = readers.state().settled
        with committing(lake.store) as committer:
            committer.publish(run.run_id, [])
        assert readers.state().settled != before, "it is visible, and its run never ends"


def test_a_trace_that_is_stored_leaves_what_was_stored_before(tmp_path: Path) -> None:
    with init(tmp_path / "lake") as lake:
        readers = readers_of(lake.store)
        before = readers.state()
        with recorded_run(lake.store.catalog, "trace", {}) as run, committing(lake.store) as committer:
            committer.publish(run.run_id, [])
        assert readers.state() != before
        assert readers.state().settled == before.settled


def test_readers_of_one_state_share_a_session_that_is_closed_with_it(tmp_path: Path) -> None:
    with init(tmp_path / "lake") as lake:
        readers = Readers(lake.store, most=4, settings=SqlSettings(), memo=Memo(), shared=True)
        opened, together, opens = list[Session](), threading.Barrier(4), readers._open

        def counted(at: int) -> Session:
            opened.append(opens(at))
            return opened[-1]

        readers._open = counted  # type: ignore[method-assign]

        def read(number: int) -> int:
            with readers.session() as session:
                together.wait(60)  # all have theirs at one time
                return int(session.sql("SELECT ? AS n", [number]).to_dicts()[0]["n"])

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(read, range(4))) == [0, 1, 2, 3]
        assert len(opened) == 1
        with readers.session() as old:
            with recorded_run(lake.store.catalog, "trace", {}) as run, committing(lake.store) as committer:
                committer.publish(run.run_id, [])
            with readers.session() as new:
                assert new.at.snapshot_id > old.at.snapshot_id
            assert old.sql("SELECT 1 AS n").to_dicts() == [{"n": 1}], "who reads at an earlier state goes on"
        with readers.session():
            assert len(opened) == 2
        with pytest.raises(SqlError, match="closed"):
            opened[0].sql("SELECT 1")
        readers.close()
        with pytest.raises(SqlError, match="closed"):
            opened[1].sql("SELECT 1")


def test_what_fails_for_one_reader_leaves_the_others_their_session(tmp_path: Path) -> None:
    with init(tmp_path / "lake") as lake:
        readers = Readers(lake.store, most=2, settings=SqlSettings(), memo=Memo(), shared=True)
        with readers.session() as one:
            with pytest.raises(SqlError), readers.session() as other:
                other.sql("SELECT * FROM nothing")
            assert one.sql("SELECT 1 AS n").to_dicts() == [{"n": 1}]
        with readers.session() as again:
            assert again.sql("SELECT 2 AS n").to_dicts() == [{"n": 2}]
        readers.close()
