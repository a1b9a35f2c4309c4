"""Looking after a lake: its state, its history, checks, compaction, backups."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from proponent import migrations
from proponent.schema import catalog as models
from proponent.store.at_work import runs_at_work, workers_at_work
from proponent.store.place import sizes_below
from proponent.store.snapshots import Snapshot
from proponent.store.stale import encoded_texts

from .base import LakeBase, Progress, StrPath, ignore

if TYPE_CHECKING:
    from proponent.query.results import Result
    from proponent.store.check import Finding


def _as_rows(found: "Sequence[Finding]") -> list[dict[str, str]]:
    columns = ("grade", "table", "where", "what", "remedy")
    return [{name: getattr(finding, name) for name in columns} for finding in found]


class Keeping(LakeBase):
    """Looking after a lake."""

    def compact(self, *, forget: bool = False, dry_run: bool = False, progress: Progress = ignore) -> dict[str, Any]:
        """Write tables of many small files anew, and remove files that no snapshot needs; return what that did.

        With `forget`, what is left of withdrawn documents is erased, and the snapshots that have them cannot be read
        any more. A dry run only says what would go. Raises LakeBusyError while anybody writes to the lake; a run that
        was cut short is finished by the next.
        """
        from proponent.store.compaction import compact

        done = vars(compact(self.store, forget=forget, dry_run=dry_run, progress=progress))
        if not dry_run:
            self._measure_indexes()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in done.items()}

    def check(
        self, *, deep: bool = False, repair: bool = False, go_back: bool = False, progress: Progress = ignore
    ) -> list[dict[str, str]]:
        """Compare all that is stored with what is said of it; return what is wrong: grade, table, where, what, remedy.

        Grades are `damage`, `leftover` of dead processes, and `note`, which is nothing wrong. `deep` reads the files of
        earlier snapshots, too. `repair` mends what can be mended without guessing, which is `mended`, and returns what
        is left. `go_back` first puts damaged documents back to the newest snapshot that has them whole. Raises
        LakeBusyError while the lake is compacted or, with `repair` and `go_back`, written, and DamagedLakeError when
        there is nothing to go back to.
        """
        from proponent.store import check as checking
        from proponent.store.check.going_back import go_back as put_back
        from proponent.store.check.repair import repair as mend

        find = mend if repair else checking.check
        went = [put_back(self.store, progress=progress)] if go_back else []
        found = went + find(self.store, deep=deep, progress=progress)
        return _as_rows(found)

    def catch_up(self) -> list[dict[str, str]]:
        """Bring a catalog that was restored from an older copy up to the tables; return what it has learnt and lost.

        Open the lake with `may_be_older`. Snapshots, documents, passages, encodings and their encoders are as they
        were, and what was withdrawn stays so; questions and traces since the copy are lost. Raises InputError for a
        catalog that is not older, LakeBusyError while anybody works on the lake.
        """
        from proponent.store.check.catching_up import catch_up

        told = catch_up(self.store)
        self._measure_indexes()
        return _as_rows(told)

    def backup(self, folder: StrPath, *, progress: Progress = ignore) -> dict[str, int]:
        """Copy the lake as it is at one moment into a folder, or bring the backup there up to date.

        Others may read and write meanwhile. `progress` is told bytes. Returns the newest snapshot, files, bytes, and
        how many files were copied. Raises LakeError for a folder that holds other things, LakeBusyError while the
        lake is compacted.
        """
        from proponent.store.backup import back_up

        return vars(back_up(self.store, Path(folder), upgrade=migrations.upgrade, progress=progress)).copy()

    def status(self) -> dict[str, Any]:
        """Return what is in the lake, at its newest snapshot."""
        at = self.snapshot
        tables = {name: self.store.table(name, at=at).count_rows() for name in sorted(at.versions)}
        with self.store.catalog.read() as session:
            encoders = [
                {
                    "encoder": row.name,
                    "dim": row.dim,
                    "codes": row.codes,
                    "fidelity": row.fidelity,
                    "moments": row.moments,
                    "coverage": row.coverage,
                    "encodings": len(encoded_texts(self.store, at, row.name)),
                    "index": self._index_of(row.name, at),
                }
                for row in session.scalars(select(models.Encoder).order_by(models.Encoder.name))
            ]
            return {
                "lake": str(self.store.root),
                "format": self.store.config.format,
                "snapshot": at.snapshot_id,
                "published": at.created_at.isoformat(timespec="seconds"),
                "corpora": list(session.scalars(select(models.Corpus.name).order_by(models.Corpus.name))),
                "models": list(session.scalars(select(models.Model.name).order_by(models.Model.name))),
                "encoders": encoders,
                "at_work": [asdict(run) for run in runs_at_work(self.store.catalog)],
                "traces": session.scalar(select(func.count()).select_from(models.Trace)),
                "rows": tables,
                "bytes": sum(sizes_below(self.store.root).values()),
            }

    def workers(self) -> list[dict[str, Any]]:
        """Return who works on runs that are not over: machine, process, units, documents or texts, last sign of life.

        Units that a worker has handed in count for it as long as the run goes on.
        """
        catalog = self.store.catalog
        return [asdict(one) for run in runs_at_work(catalog) for one in workers_at_work(catalog, run.run_id)]

    def history(self) -> "Result":
        """Return what changed the lake, newest first: snapshot, time, command, subject, status and counts."""
        from proponent.query.results import Result

        return Result(self._current_session().trusted("history"))

    def _measure_indexes(self) -> None:
        """Measure the indexes that were built without that, by a compaction."""
        from proponent.query.recall import measure_index, unmeasured

        for row in unmeasured(self.store, self.snapshot):
            measure_index(self.store, self.snapshot, row)

    def _index_of(self, encoder: str, at: Snapshot) -> dict[str, Any] | None:
        from proponent.query.recall import describe
        from proponent.store.indexes import built_index, recorded_index

        built = built_index(self.store, at, encoder)
        row = recorded_index(self.store, built) if built else None
        return describe(row) if row else None
