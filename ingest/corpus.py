"""Ingesting a corpus: files in, documents, passages and mentions out, in one published snapshot.

Notable: everything that is read is accounted for (read = added + updated + unchanged + duplicates + withdrawn +
rejected), and nothing becomes visible before the last row has been taken: an ingest that is killed leaves the lake as
it was, and the same command starts it again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from proponent.schema import catalog as models
from proponent.schema.errors import CorpusError, DamagedLakeError
from proponent.schema.ids import passage_id, text_hash
from proponent.schema.selectors import find
from proponent.schema.settings import IngestSettings
from proponent.schema.tables import DOCUMENTS, MENTIONS, PASSAGES, REJECTS
from proponent.store.commit import Changes, committing, finish_interrupted, write_batch
from proponent.store.lake import LakeStore
from proponent.store.leases import Lease, lease
from proponent.store.runs import recorded_run
from proponent.store.snapshots import latest_snapshot
from proponent.store.withdrawn import withdrawn_documents

from .documents import Document, RejectedRowError, make_document
from .mentions import corpus_mentions
from .passages import RULE, Measure, cut_passages
from .readers import RawRow, find_reader, is_known, read_file
from .readers.files import Listing, list_files, told
from .removals import remove_documents

_BATCH_CHARACTERS = 4_000_000
_CUT_AT_ONCE = 256
_MANY = 1000
_MANY_REASONS = 100


@dataclass(frozen=True)
class Cutter:
    """How passages are measured: in tokens of a named tokenizer, or in characters."""

    name: str
    measure: Measure
    budget: int
    counts_tokens: bool

    @property
    def rule(self) -> str:
        """What a passage's boundaries depend on, besides the text."""
        return f"{RULE} {self.name} {self.budget}"


def character_cutter(budget: int) -> Cutter:
    """Return a cutter for lakes that know no tokenizer."""
    return Cutter("characters", lambda texts: [len(text) for text in texts], budget, counts_tokens=False)


def token_cutter(tokenizer: Any, *, name: str, budget: int) -> Cutter:
    """Return a cutter that counts a tokenizer's tokens, its special tokens included."""

    def measure(texts: Sequence[str]) -> list[int]:
        encoded = tokenizer(list(texts), add_special_tokens=True, return_attention_mask=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    return Cutter(name, measure, budget, counts_tokens=True)


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
    progress: Callable[[int], object] = lambda _n: None,
) -> Counts:
    """Add or update the documents of a corpus; return what became of every row.

    `files` are names, patterns, folders, URLs or `-`. Raises CorpusError for files that cannot be read and for a run
    with too many rejects, LakeBusyError while another process ingests the same corpus. Nothing is published
    then, but the rejects of a refused run are kept.
    """
    if not files:
        raise CorpusError("no files to ingest")
    listing = corpus_files(files, settings)
    described = asdict(settings) | {"files": [told(one) for one in files], "rule": cutter.rule}
    described["explicit_fields"] = sorted(settings.explicit_fields)
    with (
        lease(lake.catalog, f"ingest {settings.corpus}", wait_s=5) as held,
        recorded_run(lake.catalog, "ingest", described) as run,
    ):
        finish_interrupted(lake)
        job = _Ingest(lake, settings, cutter, run, held)
        job.counts.skipped_files = listing.skipped
        try:
            for file in listing.files:
                for row in read_file(file, settings):
                    job.take(file.name, row)
                    progress(1)
            job.finish()
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

    def __init__(self, lake: LakeStore, settings: IngestSettings, cutter: Cutter, run: models.Run, held: Lease) -> None:
        self.counts = Counts()
        self._lake = lake
        self._settings = settings
        self._cutter = cutter
        self._run = run
        self._held = held
        self._changes = Changes()
        self._rejects: list[dict[str, Any]] = []
        self._first_reject = ""
        self._pending: list[Document] = []
        self._pending_characters = 0
        self._seen: dict[str, str] = {}
        self._replaced: list[str] = []
        self._pending_reject_bytes = 0
        self._fields_seen: set[str] = set()
        self._columns_unseen = set(settings.explicit_fields)
        self._known = self._known_documents()
        self._withdrawn = withdrawn_documents(lake.catalog, settings.corpus)

    def _known_documents(self) -> dict[str, str]:
        dataset = self._lake.table("documents", at=latest_snapshot(self._lake.catalog))
        corpus = self._settings.corpus.replace("'", "''")
        known = dataset.to_table(columns=["doc_id", "content_hash"], filter=f"corpus = '{corpus}'")
        return dict(zip(known["doc_id"].to_pylist(), known["content_hash"].to_pylist(), strict=True))

    def take(self, file: str, row: RawRow) -> None:
        self.counts.read += 1
        if row.fields is None:
            self._reject(file, row, row.error or "cannot be read")
            return
        self._fields_seen |= row.fields.keys()
        self._columns_unseen = {name for name in self._columns_unseen if not self._has(row.fields, name)}
        try:
            self._sort(document_of(row.fields, self._settings, self._cutter))
        except RejectedRowError as error:
            self._reject(file, row, str(error))

    def _has(self, fields: dict[str, Any], column: str) -> bool:
        names = self._settings.fields.selectors[column].names
        return all(name in fields or find(fields, name) is not None for name in names)

    def _sort(self, document: Document) -> None:
        if document.doc_id in self._withdrawn:  # before all else, or its second row would be kept as a reject
            self.counts.withdrawn += 1
            return
        earlier = self._seen.get(document.doc_id)
        if earlier is not None:
            if earlier != document.content_hash:
                raise RejectedRowError(f"id {document.doc_key!r} came before in this run with other content")
            self.counts.duplicates += 1
            return
        self._seen[document.doc_id] = document.content_hash
        known = self._known.get(document.doc_id)
        if known == document.content_hash:
            self.counts.unchanged += 1
            return
        if known is None:
            self.counts.added += 1
        else:
            self.counts.updated += 1
            self._replaced.append(document.doc_id)
        self._count_date(document)
        self._pending.append(document)
        self._pending_characters += len(document.text)
        if self._pending_characters > _BATCH_CHARACTERS:
            self._write_pending()

    def _count_date(self, document: Document) -> None:
        self.counts.undated += document.published is None
        if document.published is None and document.published_text:
            self.counts.unread_dates += 1
            self.counts.first_unread_date = self.counts.first_unread_date or document.published_text

    def _reject(self, file: str, row: RawRow, reason: str) -> None:
        self.counts.rejected += 1
        self._first_reject = self._first_reject or f"{file}:{row.row}: {reason}"
        reasons = self.counts.reject_reasons
        told = reason if reason in reasons or len(reasons) < _MANY_REASONS else "other reasons"
        reasons[told] = reasons.get(told, 0) + 1
        self._rejects.append(
            {
                "run_id": self._run.run_id,
                "corpus": self._settings.corpus,
                "file": file,
                "row": row.row,
                "reason": reason,
                "raw": row.raw,
            }
        )
        self._pending_reject_bytes += len(row.raw)
        if len(self._rejects) >= _MANY or self._pending_reject_bytes > _BATCH_CHARACTERS:
            self._write_rejects()

    def _write_rejects(self) -> None:
        if self._rejects:
            self._changes.append(write_batch(self._lake, "rejects", pa.Table.from_pylist(self._rejects, REJECTS)))
            self._rejects, self._pending_reject_bytes = [], 0

    def finish(self) -> None:
        self.counts.prove()
        if not self.counts.read:
            raise CorpusError("the files have no rows; nothing was ingested")
        self._write_pending()
        self._write_rejects()
        try:
            self._require_sense()
        except CorpusError:
            self._publish([change for change in self._changes.take() if change.table == "rejects"])
            raise
        with committing(self._lake, under=[self._held]) as committer:
            at, replaced = latest_snapshot(self._lake.catalog), pa.array(self._replaced, pa.string())
            remove_documents(self._lake, at, self._changes, replaced)
            if changes := self._changes.take():
                corpus = models.Corpus(name=self._settings.corpus)
                committer.publish(self._run.run_id, changes, rows=[corpus])

    def _require_sense(self) -> None:
        absent = sorted(
            f"--{name.replace('_', '-')} {getattr(self._settings.fields, name)}" for name in self._columns_unseen
        )
        if absent and self._fields_seen:
            raise CorpusError(f"no row has the field of {', '.join(absent)}; the rows have {sorted(self._fields_seen)}")
        share = self.counts.rejected / max(1, self.counts.read)
        if share > self._settings.max_reject_share:
            raise CorpusError(
                f"{self.counts.rejected} of {self.counts.read} rows were rejected, nothing was ingested; the first: "
                f"{self._first_reject}"
            )

    def _publish(self, changes: list[Any]) -> None:
        if changes:
            with committing(self._lake, under=[self._held]) as committer:
                committer.publish(self._run.run_id, changes)

    def _write_pending(self) -> None:
        documents, passages, mentions = [], [], []
        for some in _slices(self._pending, _CUT_AT_ONCE):
            cuts = cut_passages(
                [document.text for document in some], measure=self._cutter.measure, budget=self._cutter.budget
            )
            for document, pieces in zip(some, cuts, strict=True):
                documents.append(
                    document_row(
                        document, corpus=self._settings.corpus, n_passages=len(pieces), run_id=self._run.run_id
                    )
                )
                for ordinal, piece in enumerate(pieces):
                    row = _passage_row(document.doc_id, ordinal, piece, counts_tokens=self._cutter.counts_tokens)
                    passages.append(row)
                    mentions += corpus_mentions(row["passage_id"], document.doc_id, piece.text, document.entities)
        self._pending, self._pending_characters = [], 0
        self.counts.passages += len(passages)
        for table, rows, schema in (
            ("documents", documents, DOCUMENTS),
            ("passages", passages, PASSAGES),
            ("mentions", mentions, MENTIONS),
        ):
            if rows:
                self._changes.append(write_batch(self._lake, table, pa.Table.from_pylist(rows, schema)))


def document_of(fields: dict[str, Any], settings: IngestSettings, cutter: Cutter) -> Document:
    """Return the document of a row. Raises RejectedRowError."""
    return make_document(
        fields,
        settings.fields,
        corpus=settings.corpus,
        rule=cutter.rule,
        split_entities=settings.split_entities,
    )


def document_row(document: Document, *, corpus: str, n_passages: int, run_id: str) -> dict[str, Any]:
    """Return a document's row of table `documents`."""
    return {
        "doc_id": document.doc_id,
        "doc_key": document.doc_key,
        "corpus": corpus,
        **document.columns,
        "published": document.published,
        "published_precision": document.published_precision,
        "published_text": document.published_text,
        "trained_on": document.trained_on,
        "n_passages": n_passages,
        "metadata": document.metadata,
        "content_hash": document.content_hash,
        "run_id": run_id,
    }


def _passage_row(doc_id: str, ordinal: int, piece: Any, *, counts_tokens: bool) -> dict[str, Any]:
    return {
        "passage_id": passage_id(doc_id, ordinal, piece.text),
        "doc_id": doc_id,
        "ordinal": ordinal,
        "char_start": piece.char_start,
        "char_end": piece.char_end,
        "n_tokens": piece.size if counts_tokens else None,
        "text": piece.text,
        "text_hash": text_hash(piece.text),
    }


def _slices(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
