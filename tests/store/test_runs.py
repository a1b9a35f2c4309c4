"""Every run leaves a record of what it was and how it ended."""

import pytest

from proponent.schema import catalog as models
from proponent.store.lake import LakeStore
from proponent.store.runs import library_versions, recorded_run


def stored(lake: LakeStore, run: models.Run) -> models.Run:
    with lake.catalog.read() as session:
        return session.get_one(models.Run, run.run_id)


def test_a_run_is_recorded_while_it_goes_on_and_when_it_is_done(lake: LakeStore) -> None:
    with recorded_run(lake.catalog, "test", {"k": [1, "ü"]}) as run:
        assert (stored(lake, run).status, stored(lake, run).finished_at) == ("running", None)
        run.counts = {"rows": 3}
    after = stored(lake, run)
    assert (after.kind, after.status, after.error, after.counts) == ("test", "done", None, {"rows": 3})
    assert after.settings == {"k": [1, "ü"]}
    assert after.versions == library_versions()
    assert after.finished_at is not None
    assert after.finished_at >= after.started_at


@pytest.mark.parametrize("error", [ValueError("no\nsuch thing"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failed_run_is_recorded_with_its_error_and_what_it_had_counted(lake: LakeStore, error: BaseException) -> None:
    runs = []

    def fail() -> None:
        with recorded_run(lake.catalog, "test", {}) as run:
            runs.append(run)
            run.counts = {"rows": 2}
            raise error

    with pytest.raises(type(error)):
        fail()
    after = stored(lake, runs[0])
    assert (after.status, after.counts) == ("failed", {"rows": 2})
    assert after.error is not None
    assert after.error == f"{type(error).__name__}: {error}"


def test_the_recorded_versions_are_those_of_the_libraries_that_decide_results() -> None:
    versions = library_versions()
    assert {"proponent", "torch", "transformers", "pylance", "duckdb"} <= set(versions)
    assert all(versions.values())
