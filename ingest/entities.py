"""Finding entities in passages that are there: what an extractor has not read yet is read, in one published snapshot.

Notable: a document says which run ingested it, and the run of every snapshot is known. So what came or changed after
the snapshot that an extractor last read is found without a mark on any passage, also where a document came back to a
text that it had before. Nothing else is locked while a model reads, which may take hours: what is ingested or
withdrawn meanwhile is seen before the mentions are published.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final, NamedTuple

import lance
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.tables import MENTIONS
from proponent.store.catalog import Catalog
from proponent.store.commit import Changes, committing, finish_interrupted, write_batch
from proponent.store.lake import LakeStore
from proponent.store.leases import Lease, lease
from proponent.store.runs import recorded_run
from proponent.store.scan import in_list
from proponent.store.snapshots import Snapshot, latest_snapshot

from .extractor import Extractor
from .models import require_name

WAIT_S = 5.0
"""Seconds to wait for another run of the same extractor to end."""
_READ_AT_ONCE: Final = 512
"""Passages given to an extractor at a time."""
_WRITE_AT_ONCE: Final = 200_000
_DELETE_AT_ONCE: Final = 1000


@dataclass(frozen=True)
class ExtractionCounts:
    """What an extraction did."""

    passages: int
    """Passages that were read."""
    known: int
    """Passages that the same extractor had read before, and that were left alone."""
    mentions: int
    entities: int
    """Entities that were found at least once."""
    replaced: int
    """Mentions that an extractor of this kind and name had found before, and that are gone."""


class _Documents(NamedTuple):
    """Ids of a snapshot's documents, parted by an earlier snapshot."""

    new: pa.Array
    """Those that came or changed after it."""
    same: pa.Array


def extract(
    lake: LakeStore, extractor: Extractor, *, name: str, progress: Callable[[int], object] = lambda _n: None
) -> ExtractionCounts:
    """Find entities in all passages that an extractor has not read yet.

    What an extractor of the same kind and name but of another version found before is replaced, and all passages are
    read. Nothing is published before the last passage is read. Raises SettingsError for a name that cannot be part of
    an origin, LakeBusyError while another process runs an extractor of this kind and name.
    """
    require_name(name, what="--name")
    origin = f"{extractor.kind} {name}"
    with lease(lake.catalog, f"entities {origin}", wait_s=WAIT_S) as held:
        finish_interrupted(lake)
        at = latest_snapshot(lake.catalog)
        read = {"origin": origin, "extractor": extractor.version, "read": at.snapshot_id}
        job = _Extraction(lake, origin, at, since=_last_read(lake.catalog, origin, extractor.version))
        with recorded_run(lake.catalog, "entities", {"name": name, **read, **extractor.about}) as run:
            with job.found(extractor, progress) as rows:
                counts = job.publish(run.run_id, rows, held)
            run.counts = dict(vars(counts))
    return counts


def _last_read(catalog: Catalog, origin: str, version: str) -> int:
    """Return the number of the snapshot that an extractor last read, or 0 if it has to begin anew."""
    published = (
        select(models.Run.settings)
        .join(models.Snapshot, models.Snapshot.run_id == models.Run.run_id)
        .where(models.Run.kind == "entities", models.Run.settings["origin"].as_string() == origin)
        .order_by(models.Snapshot.snapshot_id.desc())
        .limit(1)
    )
    with catalog.read() as session:
        last = session.scalars(published).first()
    return int(last["read"]) if last and last["extractor"] == version else 0


class _Extraction:
    """One run of an extractor: what it has to read, and what becomes of what it finds."""

    def __init__(self, lake: LakeStore, origin: str, at: Snapshot, *, since: int) -> None:
        self._lake = lake
        self._origin = origin
        self._at = at
        self._since = since
        self._unread = _documents(lake, at, after=since).new
        doc_ids = self._passages.to_table(columns=["doc_id"])["doc_id"]
        self._n_passages = len(doc_ids)
        self._places = pc.indices_nonzero(pc.is_in(doc_ids, value_set=self._unread))

    @property
    def _passages(self) -> lance.LanceDataset:
        return self._lake.table("passages", at=self._at)

    @contextmanager
    def found(self, extractor: Extractor, progress: Callable[[int], object]) -> Iterator[pa.Table]:
        """Read the passages; give the mentions in them as rows that lie on disk, not in memory."""
        with NamedTemporaryFile(prefix="proponent-", suffix=".arrows") as file:
            with pa.ipc.new_stream(file, MENTIONS) as out:
                for passages in self._unread_passages():
                    out.write_batch(_mentions(extractor, passages, self._origin))
                    progress(passages.num_rows)
            file.flush()
            with pa.memory_map(str(Path(file.name))) as mapped:
                yield pa.ipc.open_stream(mapped).read_all()

    def _unread_passages(self) -> Iterator[pa.Table]:
        passages = self._passages
        for start in range(0, len(self._places), _READ_AT_ONCE):
            places = self._places.slice(start, _READ_AT_ONCE)
            yield passages.take(places, columns=["passage_id", "doc_id", "text"])

    def publish(self, run_id: str, rows: pa.Table, held: Lease) -> ExtractionCounts:
        """Publish the mentions in documents that are still as they were when they were read."""
        while True:
            now = latest_snapshot(self._lake.catalog)
            changes = Changes()
            replaced = self._delete_old(changes, now)
            n_mentions, names = self._append(changes, rows, now)
            n_read = len(self._places)
            counts = ExtractionCounts(n_read, self._n_passages - n_read, n_mentions, len(names), replaced)
            if not n_read and not replaced:
                return counts
            with committing(self._lake, under=[held]) as committer:
                newest = latest_snapshot(self._lake.catalog)
                if newest.versions["documents"] == now.versions["documents"]:
                    # Also without a mention in them: the snapshot is what says that the passages were read.
                    committer.publish(run_id, changes.take())
                    return counts

    def _delete_old(self, changes: Changes, now: Snapshot) -> int:
        mentions, theirs = self._lake.table("mentions", at=now), f"origin = '{self._origin}'"
        if not self._since:
            if replaced := mentions.count_rows(filter=theirs):
                changes.delete("mentions", theirs)
            return int(replaced)
        # A run that publishes its documents in several snapshots may have had some of them read before: they are
        # unread by their run, and would get their mentions twice.
        doubled: set[str] = set()
        replaced = 0
        for batch in mentions.scanner(columns=["doc_id"], filter=theirs).to_batches():
            again = batch["doc_id"].filter(pc.is_in(batch["doc_id"], value_set=self._unread))
            doubled |= set(again.to_pylist())
            replaced += len(again)
        ids = pa.array(sorted(doubled), pa.string())
        for start in range(0, len(ids), _DELETE_AT_ONCE):
            changes.delete("mentions", f"{theirs} AND {in_list('doc_id', ids.slice(start, _DELETE_AT_ONCE))}")
        return replaced

    def _append(self, changes: Changes, rows: pa.Table, now: Snapshot) -> tuple[int, set[str]]:
        same = _documents(self._lake, now, after=self._at.snapshot_id).same
        n_mentions, names = 0, set[str]()
        for start in range(0, rows.num_rows, _WRITE_AT_ONCE):
            part = rows.slice(start, _WRITE_AT_ONCE)
            part = part.filter(pc.is_in(part["doc_id"], value_set=same))
            changes.append(write_batch(self._lake, "mentions", part))
            n_mentions += part.num_rows
            names |= set(pc.unique(part["entity"]).to_pylist())
        return n_mentions, names


def _documents(lake: LakeStore, at: Snapshot, *, after: int) -> _Documents:
    later = select(models.Snapshot.run_id).where(models.Snapshot.snapshot_id > after).distinct()
    with lake.catalog.read() as session:
        runs = pa.array(session.scalars(later).all(), pa.string())
    documents = lake.table("documents", at=at).to_table(columns=["doc_id", "run_id"])
    is_new = pc.is_in(documents["run_id"], value_set=runs)
    new, same = (documents.filter(mask)["doc_id"].combine_chunks() for mask in (is_new, pc.invert(is_new)))
    return _Documents(new, same)


def _mentions(extractor: Extractor, passages: pa.Table, origin: str) -> pa.RecordBatch:
    """Return the rows for table `mentions` of some passages."""
    found = extractor.find_all(passages["text"].to_pylist())
    rows = [
        {
            "passage_id": passage["passage_id"],
            "doc_id": passage["doc_id"],
            "entity": entity.name,
            "surface": passage["text"][start:end],
            "type": entity.type,
            "origin": origin,
            "char_start": start,
            "char_end": end,
        }
        for passage, mentions in zip(passages.to_pylist(), found, strict=True)
        for entity, start, end in mentions
    ]
    return pa.RecordBatch.from_pylist(rows, MENTIONS)
