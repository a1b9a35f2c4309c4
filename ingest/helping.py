"""Helping with the runs that another machine has begun: units taken, done and handed in, published by who began.

Notable: a run's units say what is to be done, and nothing that a helper hands in is seen before the process that began
the run publishes it. A helper leaves a run alone that it would do differently, or whose files it does not have, and
hands a unit back when its own machine, disk or network fails, so that it can only make a run faster.
"""

import os
import time
from dataclasses import dataclass, field
from typing import Final

import pyarrow.compute as pc
from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.errors import StorageError, WorkerError
from proponent.store.lake import LakeStore
from proponent.store.runs import library_versions
from proponent.store.units import has_units

from .engine import help_through
from .worklist import fetch, leave_run_folder, read_list, run_folder

_POLL_S: Final = 0.5
_KINDS: Final = ("ingest", "encode")


@dataclass
class Helped:
    """What a helper has done."""

    runs: list[str] = field(default_factory=list)
    """Runs that it has worked on."""
    left_alone: dict[str, str] = field(default_factory=dict)
    """Runs that it has not, or not to their end, and why."""


def help_out(lake: LakeStore, *, workers: int, wait_s: float) -> Helped:
    """Work in some processes on runs that are at work, until there has been none for some seconds."""
    helped = Helped()
    until = time.monotonic() + wait_s
    while True:
        run = next((one for one in _at_work(lake) if one.run_id not in helped.left_alone), None)
        if run is not None:
            _help(lake, run, helped, workers=workers)
            until = time.monotonic() + wait_s
        elif time.monotonic() >= until:
            return helped
        else:
            time.sleep(_POLL_S)


def _help(lake: LakeStore, run: models.Run, helped: Helped, *, workers: int) -> None:
    try:
        why_not = _why_not(lake, run)
        if why_not is None:
            help_through(lake, run.run_id, workers=workers)
            helped.runs += [] if run.run_id in helped.runs else [run.run_id]
    except WorkerError as error:
        why_not = str(error)
    finally:
        leave_run_folder(lake, run.run_id)
    if why_not is not None:
        helped.left_alone[run.run_id] = why_not


def _at_work(lake: LakeStore) -> list[models.Run]:
    """Return the runs with units that wait or are being worked on, the oldest first."""
    running = select(models.Run).where(models.Run.status == "running", models.Run.kind.in_(_KINDS))
    with lake.catalog.read() as session:
        runs = list(session.scalars(running.order_by(models.Run.started_at)))
    return [run for run in runs if has_units(lake.catalog, run.run_id, "waiting", "leased")]


def _why_not(lake: LakeStore, run: models.Run) -> str | None:
    """Return why this machine must not work on a run, None where it may."""
    here = library_versions()
    for name, version in run.versions.items():
        if here.get(name) != version:
            return f"it is done with {name} {version}, and here is {here.get(name, 'none')}"
    return why_no_files(lake, run)


def why_no_files(lake: LakeStore, run: models.Run) -> str | None:
    """Return why this machine cannot read the files of a run, None where it can."""
    if run.kind == "ingest":
        try:
            fetch(lake, run.run_id, "pieces.arrow")
            pieces = read_list(run_folder(lake, run.run_id), "pieces")
        except StorageError:
            raise
        except OSError:  # it is over
            return None
        whole = pc.is_null(pieces["part"])
        sizes = pieces.select(["location", "n_bytes"]).append_column("whole", whole).to_pylist()
        return next(filter(None, (_why_not_file(**one) for one in sizes)), None)
    return None


def _why_not_file(location: bytes | None, n_bytes: int, *, whole: bool) -> str | None:
    """Return why this machine has not a file, or a part of one; what is called the same may be another file here."""
    if location is None:
        return "its files were given with a password or a signature"
    if b"://" in location:
        return None
    path = os.fsdecode(location)
    if not os.path.isfile(path):
        return f"{path} is not on this machine"
    size = os.path.getsize(path)
    if whole and n_bytes and size != n_bytes:  # parts of Parquet files count bytes that are not compressed
        return f"{path} is another file on this machine, of {size:,} bytes"
    return None
