"""Ingesting a corpus: files in, documents, passages and mentions out, in one published snapshot.

Notable: the files are cut into pieces that workers read (`read_work`), and this process alone decides what of it is
published. Everything that is read is accounted for (read = added + updated + unchanged + duplicates + withdrawn +
rejected), and nothing becomes visible before the last row has been taken. A run that was cut short goes on where it was
when it is started again over the same files and the same lake; the outcome is that of a run that was never disturbed.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from proponent.schema import catalog as models
from proponent.schema.errors import CorpusError, DamagedLakeError, RefusedCorpusError
from proponent.schema.settings import IngestSettings
from proponent.schema.tables import rows_hash
from proponent.store.commit import (
    Change,
    Changes,
    Committer,
    committing,
    discard,
    finish_interrupted,
    is_there,
)
from proponent.store.lake import LakeStore
from proponent.store.leases import Lease, lease
from proponent.store.snapshots import Snapshot, latest_snapshot
from proponent.store.units import (
    add_units,
    all_units,
    reopen_units,
    repeat_units,
    reports_of,
    written_units,
)
from proponent.store.withdrawn import withdrawn_documents

from .cutter import Cutter
from .engine import work_through
from .pieces import Piece, SeenFile, content_of, from_list, pieces_of, require_sharable, seen, to_list, units_of
from .progress import Progress, Tell, tell_nobody
from .read_work import KNOWN, KnownDocuments, ReadWork
from .readers import find_reader, is_known
from .readers.files import Listing, list_files, local_file, told
from .removals import remove_documents
from .repeats import find_repeats, ids_name, replaced_documents, verdicts_name
from .unfinished import batches_of, ingest_run, settle_unfinished
from .worklist import fetch, give, is_given, read_list, run_folder, write_list

_MOST_ROUNDS: Final = 3
_CHANGING: Final = "the files have changed while they were being read; ingest a copy of them"
_ENOUGH_REJECTS: Final = 1000
"""Rejects after which a run that has too many of them stops, whatever may still come."""


@dataclass
class Counts:
    """What became of the rows that were read."""

    read: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0
    withdrawn: int = 0
    """Documents that were withdrawn before, and stay so."""
    rejected: int = 0
    passages: int = 0
    undated: int = 0
    unread_dates: int = 0
    first_unread_date: str | None = None
    reject_reasons: dict[str, int] = field(default_factory=dict)
    skipped_files: list[str] = field(default_factory=list)

    def add(self, result: dict[str, Any]) -> None:
        """Add what came of a unit."""
        for name, number in result["counts"].items():
            if name != "tokens":
                mine = {"duplicate": "duplicates"}.get(name, name)
                setattr(self, mine, getattr(self, mine) + number)
        self.first_unread_date = self.first_unread_date or result["first_unread_date"]
        self.reject_reasons = dict(Counter(self.reject_reasons) + Counter(result["reject_reasons"]))

    def prove(self) -> None:
        """Raise DamagedLakeError unless every row that was read is accounted for."""
        told = self.added + self.updated + self.unchanged + self.duplicates + self.withdrawn + self.rejected
        if self.read != told:
            raise DamagedLakeError(f"{self.read} rows were read but {told} accounted for; nothing was published")


def ingest(
    lake: LakeStore,
    files: Sequence[str | Path],
    settings: IngestSettings,
    cutter: Cutter,
    *,
    workers: int | None = None,
    tell: Tell = tell_nobody,
) -> Counts:
    """Add or update the documents of a corpus; return what became of every row.

    `files` are names, patterns, folders, URLs or `-`. Workers are as in `work_through`. Raises
    CorpusError for files that cannot be read and for a run with too many rejects, LakeBusyError while another process
    ingests the same corpus. Nothing is published then, but the rejects of a refused run are kept.
    """
    if not files:
        raise CorpusError("no files to ingest")
    listing = corpus_files(files, settings)
    with lease(lake.catalog, f"ingest {settings.corpus}", wait_s=5) as held:
        finish_interrupted(lake)
        known = _known_documents(lake, settings.corpus, latest_snapshot(lake.catalog))
        looked_at = seen(listing.files)
        described = {
            "ingest": asdict(settings) | {"explicit_fields": sorted(settings.explicit_fields)},
            "corpus": settings.corpus,
            "files": [told(one) for one in files],
            "rule": cutter.rule,
            "cutter": cutter.to_json(),
            "content": content_of(looked_at),
            "known": rows_hash(known),
            "withdrawn": len(withdrawn_documents(lake.catalog, settings.corpus)),
        }
        described = json.loads(json.dumps(described))  # as it is read again
        unfinished = settle_unfinished(lake, described)
        if unfinished.counts is not None:
            return Counts(**unfinished.counts)
        with ingest_run(lake, described, resume=unfinished.resumable) as run:
            job = _Ingest(lake, settings, cutter, run, held, skipped=listing.skipped, tell=tell)
            try:
                job.lay_out(looked_at, known, workers=workers)
                job.read(workers=workers)
                if content_of(seen(listing.files)) != described["content"]:
                    raise RefusedCorpusError(_CHANGING)
                job.publish()
            finally:
                run.counts = asdict(job.counts)
    return job.counts


def corpus_files(files: Sequence[str | Path], settings: IngestSettings) -> Listing:
    """Return the files that a corpus is read from, and those in its folders that are left out.

    Raises CorpusError for what is not there, SettingsError for an unknown reader.
    """
    if settings.reader is None:
        return list_files(files, is_known)
    find_reader(settings.reader)
    return list_files(files, lambda _name: True)


class _Ingest:
    """The state of one ingest run."""

    def __init__(
        self,
        lake: LakeStore,
        settings: IngestSettings,
        cutter: Cutter,
        run: models.Run,
        held: Lease,
        *,
        skipped: list[str],
        tell: Tell,
    ) -> None:
        self._lake = lake
        self._settings = settings
        self._cutter = cutter
        self._run = run
        self._held = held
        self._skipped = skipped
        self._tell = tell
        self._folder = run_folder(lake, run.run_id)
        self._pieces: list[Piece] = []
        self._units: list[dict[str, Any]] = []
        self._results: dict[int, dict[str, Any]] = {}
        """What came of the units that are written, by their ordinals."""
        self._collected: dict[str, int] = {}
        """Their ids, with their ordinals."""
        self._totals: Counter[str] = Counter()

    @property
    def counts(self) -> Counts:
        """What became of the rows so far."""
        counts = Counts(skipped_files=self._skipped)
        for ordinal in sorted(self._results):
            counts.add(self._results[ordinal])
        return counts

    def lay_out(self, files: Sequence[SeenFile], known: pa.Table, *, workers: int | None) -> None:
        """Cut the work into units, or find those of the run that this one goes on with."""
        units = all_units(self._lake.catalog, self._run.run_id)
        if units:
            self._pieces = from_list(self._list("pieces"))
            self._units = [unit.work for unit in units]
            lost = {unit.ordinal: unit.work for unit in units if unit.status == "written" and self._is_lost(unit)}
            repeat_units(self._lake.catalog, self._run.run_id, lost)
            reopen_units(self._lake.catalog, self._run.run_id)
            return
        files = [self._kept(place, one) if one.file.is_stream else one for place, one in enumerate(files)]
        if workers not in (None, 1) or self._lake.cluster is not None:
            require_sharable(files)
        self._pieces = list(pieces_of(files, self._settings))
        self._units = units_of(self._pieces)
        write_list(self._folder, "pieces", to_list(self._pieces))
        write_list(self._folder, "known", known.cast(KNOWN))
        for name in ("pieces", "known"):
            give(self._lake, self._run.run_id, f"{name}.arrow")
        add_units(self._lake.catalog, self._run.run_id, self._units)

    def _list(self, name: str) -> pa.Table:
        fetch(self._lake, self._run.run_id, f"{name}.arrow")
        return read_list(self._folder, name)

    def _kept(self, place: int, stream: SeenFile) -> SeenFile:
        """Copy stdin or a pipe into the run's folder, since a unit may have to be read twice."""
        path = self._folder / f"stream-{place}"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with stream.file.open() as source, path.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        file = local_file(path)._replace(name=stream.file.name, key=stream.file.key)
        return SeenFile(file, *file.facts())

    def _is_lost(self, unit: models.Unit) -> bool:
        """Whether somebody has removed what a unit wrote."""
        has_ids = is_given(self._lake, self._run.run_id, ids_name(unit.ordinal))
        return not (has_ids and all(is_there(self._lake, batch) for batch in batches_of(unit.result or {})))

    @cached_property
    def _n_bytes(self) -> int:
        return sum(piece.n_bytes for piece in self._pieces)

    def read(self, *, workers: int | None) -> None:
        """Have every unit read, and those with ids that came before once more, now that this is known."""
        for _ in range(_MOST_ROUNDS):
            work_through(self._lake, self._run.run_id, workers=workers, here=self._work_here, collect=self._collect)
            self._collect()
            for unit in range(len(self._units)):
                fetch(self._lake, self._run.run_id, ids_name(unit), anew=True)
            again = find_repeats(self._folder, units=len(self._units))
            if not again:
                return
            for unit in again:
                give(self._lake, self._run.run_id, verdicts_name(unit))
            repeat_units(
                self._lake.catalog, self._run.run_id, {place: self._units[place] | {"again": True} for place in again}
            )
            self._drop(set(again))
        raise RefusedCorpusError(_CHANGING)

    def _drop(self, units: set[int]) -> None:
        """Forget what came of units that are done once more."""
        for unit in units:
            result = self._results.pop(unit)
            self._totals -= _numbers(result)
            discard(self._lake, batches_of(result))
        self._collected = {key: unit for key, unit in self._collected.items() if unit not in units}

    def _work_here(self) -> ReadWork:
        return ReadWork(
            self._lake,
            self._run.run_id,
            self._settings,
            self._cutter,
            lambda start, stop: self._pieces[start:stop],
            KnownDocuments(self._list("known")),
            withdrawn_documents(self._lake.catalog, self._settings.corpus),
        )

    def _collect(self) -> None:
        for unit in written_units(self._lake.catalog, self._run.run_id, known=self._collected):
            assert unit.result is not None
            self._collected[unit.unit_id] = unit.ordinal
            self._results[unit.ordinal] = unit.result
            self._totals += _numbers(unit.result)
        self._tell_progress()
        self._require_few_rejects()

    def _tell_progress(self) -> None:
        counted = sum(map(Counter, reports_of(self._lake.catalog, self._run.run_id)), self._totals)
        counts = {
            "documents": counted["added"] + counted["updated"],
            "passages": counted["passages"],
            "tokens": counted["tokens"],
            "rejected": counted["rejected"],
        }
        self._tell(Progress("reading", counted["n_bytes"], self._n_bytes, counts))

    def _require_few_rejects(self) -> None:
        """Raise CorpusError when the rows up to some unit, taken in order, show that too many are rejected."""
        read = rejected = 0
        for ordinal in range(len(self._results)):
            if ordinal not in self._results:
                return
            counts = self._results[ordinal]["counts"]
            read, rejected = read + counts.get("read", 0), rejected + counts.get("rejected", 0)
            if rejected >= _ENOUGH_REJECTS and rejected > self._settings.max_reject_share * read:
                self._refuse(list(range(ordinal + 1)))

    def publish(self) -> None:
        """Publish everything in one snapshot. Raises CorpusError for a run that must not be."""
        counts = self.counts
        counts.prove()
        if not counts.read:
            raise RefusedCorpusError("the files have no rows; nothing was ingested")
        self._require_columns()
        if counts.rejected > self._settings.max_reject_share * counts.read:
            self._refuse(sorted(self._results))
        written = self._written(sorted(self._results))
        replaced = pa.array(replaced_documents(self._folder, units=len(self._units)), pa.string())
        with committing(self._lake, under=[self._held]) as committer:
            remove_documents(self._lake, latest_snapshot(self._lake.catalog), written, replaced)
            corpus = models.Corpus(name=self._settings.corpus)
            self._publish(committer, written.take(), rows=[corpus], status="done")

    def _require_columns(self) -> None:
        seen = {name for one in self._results.values() for name in one["fields_seen"]}
        unseen = set.intersection(*(set(one["columns_unseen"]) for one in self._results.values()))
        absent = sorted(f"--{name.replace('_', '-')} {getattr(self._settings.fields, name)}" for name in unseen)
        if absent and seen:
            self._publish_rejects(sorted(self._results))
            raise RefusedCorpusError(f"no row has the field of {', '.join(absent)}; the rows have {sorted(seen)}")

    def _refuse(self, units: Sequence[int]) -> None:
        """Keep the rejects of some units, and refuse the run for them."""
        self._publish_rejects(units)
        results = [self._results[unit] for unit in units]
        read, rejected = (sum(one["counts"].get(name, 0) for one in results) for name in ("read", "rejected"))
        first = next(one["first_reject"] for one in results if one["first_reject"])
        raise RefusedCorpusError(
            f"{rejected} of {read} rows were rejected, nothing was ingested; the first: {first} "
            "(--max-rejects moves the threshold)"
        )

    def _publish_rejects(self, units: Sequence[int]) -> None:
        rejects = [change for change in self._written(units).take() if change.table == "rejects"]
        with committing(self._lake, under=[self._held]) as committer:
            self._publish(committer, rejects, rows=[], status="failed")

    def _written(self, units: Sequence[int]) -> Changes:
        changes = Changes()
        for unit in units:
            for batch in batches_of(self._results[unit]):
                changes.append(batch)
        return changes

    def _publish(
        self, committer: Committer, changes: Sequence[Change], *, rows: Sequence[models.Base], status: str
    ) -> None:
        if changes:
            # Numbers alone: the journal keeps them, and nothing in it may quote a document.
            numbers = {name: value for name, value in asdict(self.counts).items() if isinstance(value, int)}
            counted = models.Run(run_id=self._run.run_id, counts=numbers, status=status)
            committer.publish(self._run.run_id, changes, rows=rows, amend=[counted])


def _numbers(result: dict[str, Any]) -> Counter[str]:
    return Counter(result["counts"]) + Counter(n_bytes=result["n_bytes"])


def _known_documents(lake: LakeStore, corpus: str, at: Snapshot) -> pa.Table:
    """Return doc_id and content_hash of a corpus's documents, ordered by doc_id."""
    quoted = corpus.replace("'", "''")
    known = lake.table("documents", at=at).to_table(columns=list(KNOWN.names), filter=f"corpus = '{quoted}'")
    return known.sort_by("doc_id")
