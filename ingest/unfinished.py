"""A run of an ingest and what it leaves when it is cut short: gone on with, told as done, or cleared away.

Under the corpus's lock no run that is found unfinished is alive. One over the same files and the same lake goes on
where it was; one that was killed when everything was published has only its counts left to tell; all others are
forgotten.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from sqlalchemy import or_, select

from proponent.schema import catalog as models
from proponent.schema.errors import DamagedLakeError, RefusedCorpusError, SettingsError
from proponent.store.commit import WrittenBatch, discard
from proponent.store.lake import LakeStore
from proponent.store.runs import close_run, has_published, library_versions, recorded_run
from proponent.store.units import count_units, remove_units, written_units

from .worklist import is_given, remove_run_folder

_OF_THE_LAKE: Final = ("known", "withdrawn")
"""What a run's record says of the lake that it found."""


class Unfinished(NamedTuple):
    """What is left of the runs of a corpus that were cut short."""

    counts: dict[str, Any] | None
    """What one over the same files came to, which had published everything."""
    resumable: str | None
    """The run that can be gone on with."""


def settle_unfinished(lake: LakeStore, described: dict[str, Any]) -> Unfinished:
    """Look at the runs of a corpus that were cut short, and forget those that nobody can go on with.

    `described` is the record of the run that is to begin, as JSON data, with the name of its `corpus`, and with None
    as its `content` where nobody can tell whether files have changed.
    """
    counts = resumable = None
    can_be_same = described["content"] is not None
    for run in _unfinished_runs(lake, described["corpus"]):
        if counts is None and can_be_same and run.status == "done" and _files(run.settings) == _files(described):
            counts = run.counts
        elif resumable is None and can_be_same and _can_go_on(lake, run, described):
            resumable = run.run_id
            continue
        forget_run(lake, run)
    return Unfinished(counts, resumable)


def _files(described: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in described.items() if name not in _OF_THE_LAKE}


def _can_go_on(lake: LakeStore, run: models.Run, described: dict[str, Any]) -> bool:
    is_same = run.settings == described and run.versions == library_versions()
    has_list = is_given(lake, run.run_id, "pieces.arrow")
    has_units = has_list and bool(count_units(lake.catalog, run.run_id))
    return is_same and has_units and not has_published(lake.catalog, run.run_id)


def _unfinished_runs(lake: LakeStore, corpus: str) -> list[models.Run]:
    unfinished = or_(models.Run.status == "running", models.Run.run_id.in_(select(models.Unit.run_id)))
    with lake.catalog.read() as session:
        runs = session.scalars(select(models.Run).where(models.Run.kind == "ingest", unfinished))
        return [run for run in runs if run.settings.get("corpus") == corpus]


@contextmanager
def ingest_run(lake: LakeStore, described: dict[str, Any], *, resume: str | None) -> Iterator[models.Run]:
    """Record a run, or go on with one; what it leaves that can be gone on with stays for the next one."""
    with recorded_run(lake.catalog, "ingest", described, resume=resume) as run:
        try:
            yield run
        except BaseException as error:
            # Other errors, such as a full disk, say nothing against going on with what is done.
            if described["content"] is None or isinstance(error, RefusedCorpusError | SettingsError | DamagedLakeError):
                forget_run(lake, run)
            raise
    remove_units(lake.catalog, [run.run_id])
    remove_run_folder(lake, run.run_id)


def forget_run(lake: LakeStore, run: models.Run) -> None:
    """Remove a run's units, its folder, and what its workers wrote and nobody has published."""
    written = [batch for unit in written_units(lake.catalog, run.run_id) for batch in batches_of(unit.result or {})]
    remove_units(lake.catalog, [run.run_id])
    discard(lake, written)
    remove_run_folder(lake, run.run_id)
    close_run(lake.catalog, run.run_id)


def batches_of(result: dict[str, Any]) -> list[WrittenBatch]:
    """Return the batches that a unit has written."""
    return [WrittenBatch.from_json(batch) for batch in result["batches"]]
