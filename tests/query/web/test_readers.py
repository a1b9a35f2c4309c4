"""What tells one state of a lake from another, for whoever keeps what was made of it."""

from pathlib import Path

import pytest

from proponent.lake import init
from proponent.query.memo import Memo
from proponent.query.web.readers import Readers
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
