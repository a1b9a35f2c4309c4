"""What a worker does with a unit of an ingest: rows in; documents, passages, mentions and rejects out, unseen.

Notable: a worker decides by what was in the lake before the run (new, updated, unchanged, withdrawn) and lists the ids
that it has read. Whether an id came before in the run is found when all units are done (`repeats`); a unit that holds
such rows is then done once more, with the verdicts on them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from proponent.schema import catalog as models
from proponent.schema.ids import document_id, passage_ids, text_hashes
from proponent.schema.selectors import find
from proponent.schema.settings import FieldMapping, IngestSettings
from proponent.store.lake import LakeStore
from proponent.store.withdrawn import withdrawn_documents

from .cutter import Cutter, cutter_from_json
from .documents import Document, RejectedRowError, document_of, document_row, key_of
from .mentions import corpus_mentions
from .output import Output
from .passages import Passage
from .pieces import Piece, from_list
from .readers import RawRow, read_file
from .repeats import REPEATED, IdsWriter, Verdicts, read_verdicts
from .work import Report
from .worklist import read_list, run_folder

KNOWN: Final = pa.schema(
    [pa.field(name, pa.binary(26), nullable=False) for name in ("doc_id", "content_hash")],
)
_BATCH_BYTES: Final = 1_000_000
_MANY_REASONS: Final = 100


@dataclass
class ReadWork:
    """Reads pieces of a corpus by their places in a run's list."""

    lake: LakeStore
    run_id: str
    settings: IngestSettings
    cutter: Cutter
    pieces: Callable[[int, int], Sequence[Piece]]
    """Gives the pieces between two places."""
    known: "KnownDocuments"
    withdrawn: set[str]

    def do(self, work: dict[str, Any], report: Report) -> dict[str, Any]:
        """Read the pieces from `start` to `stop`, and write what they say."""
        folder = run_folder(self.lake, self.run_id)
        with Output(self.lake) as output, IdsWriter(folder, work["ordinal"]) as ids:
            return _Unit(self, work, output, ids, report).result()


def read_work(lake: LakeStore, run: models.Run) -> ReadWork:
    """Return the work of an ingest in a worker process."""
    folder = run_folder(lake, run.run_id)
    listed = read_list(folder, "pieces")
    settings = ingest_settings(run.settings["ingest"])
    return ReadWork(
        lake,
        run.run_id,
        settings,
        cutter_from_json(run.settings["cutter"]),
        lambda start, stop: from_list(listed.slice(start, stop - start)),
        KnownDocuments(read_list(folder, "known")),
        withdrawn_documents(lake.catalog, settings.corpus),
    )


def ingest_settings(described: dict[str, Any]) -> IngestSettings:
    """Return the settings that a run's record has."""
    explicit, fields = frozenset(described["explicit_fields"]), FieldMapping(**described["fields"])
    return IngestSettings(**described | {"fields": fields, "explicit_fields": explicit})


class KnownDocuments:
    """The documents of a corpus that the lake had before the run, ordered by id."""

    def __init__(self, listed: pa.Table) -> None:
        """Take doc_id and content_hash, ordered by doc_id, as they lie in a file."""
        self._ids = _fixed_width(listed["doc_id"])
        self._contents = _fixed_width(listed["content_hash"])

    def fates(self, documents: Sequence[Document]) -> list[str]:
        """Return for every document whether it is added, updated or unchanged."""
        ids = np.array([document.doc_id for document in documents], dtype="S26")
        contents = np.array([document.content_hash for document in documents], dtype="S26")
        if not len(self._ids):
            return ["added"] * len(documents)
        places = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        is_known = self._ids[places] == ids
        is_same = self._contents[places] == contents
        return np.where(is_known, np.where(is_same, "unchanged", "updated"), "added").tolist()  # type: ignore[no-any-return]


def _fixed_width(column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks()
    data = array.buffers()[1] if len(array) else b""
    return np.frombuffer(data, dtype="S26", count=len(array), offset=array.offset * 26)


class _TakenRow(NamedTuple):
    """A row on its way, and the document that it is, or the reason why it is none.

    Without a reason it is of a withdrawn document.
    """

    file: str
    row: RawRow
    document: Document | None
    reason: str


class _Unit:
    """The state of one unit."""

    def __init__(self, work: ReadWork, unit: dict[str, Any], output: Output, ids: IdsWriter, report: Report) -> None:
        self._work = work
        self._unit = unit
        self._report = report
        folder = run_folder(work.lake, work.run_id)
        self._verdicts = read_verdicts(folder, unit["ordinal"]) if unit.get("again") else Verdicts(iter(()))
        self._output = output
        self._counts: Counter[str] = Counter()
        self._reject_reasons: Counter[str] = Counter()
        self._first_unread_date: str | None = None
        self._first_reject: str | None = None
        self._fields_seen: set[str] = set()
        self._columns_unseen = set(work.settings.explicit_fields)
        self._ids = ids
        self._pending: list[_TakenRow] = []
        self._held_bytes = 0
        self._n_bytes = 0

    def result(self) -> dict[str, Any]:
        for piece in self._work.pieces(self._unit["start"], self._unit["stop"]):
            before = self._n_bytes
            for row in read_file(piece.file, self._work.settings, part=piece.part):
                self._n_bytes = min(self._n_bytes + row.size, before + piece.n_bytes)
                self._take(piece.file.name, row)
            self._n_bytes = before + piece.n_bytes
        self._write_pending()
        batches = self._output.finish()
        self._ids.finish()
        return {
            "counts": dict(self._counts),
            "reject_reasons": dict(self._reject_reasons),
            "first_reject": self._first_reject,
            "first_unread_date": self._first_unread_date,
            "fields_seen": sorted(self._fields_seen),
            "columns_unseen": sorted(self._columns_unseen),
            "n_bytes": self._n_bytes,
            "batches": [batch.to_json() for batch in batches],
        }

    def _take(self, file: str, row: RawRow) -> None:
        self._counts["read"] += 1
        self._pending.append(_TakenRow(file, row, *self._document_of(row)))
        self._held_bytes += row.size
        if self._held_bytes > _BATCH_BYTES:
            self._write_pending()

    def _document_of(self, row: RawRow) -> tuple[Document | None, str]:
        if row.fields is None:
            return None, row.error or "cannot be read"
        self._see_fields(row.fields)
        try:
            return document_of(row.fields, self._work.settings, self._work.cutter.rule), ""
        except RejectedRowError as error:
            key = key_of(row.fields, self._work.settings.fields)
            is_withdrawn = key is not None and document_id(self._work.settings.corpus, key) in self._work.withdrawn
            return None, "" if is_withdrawn else str(error)

    def _see_fields(self, fields: dict[str, Any]) -> None:
        if not self._fields_seen >= fields.keys():
            self._fields_seen |= fields.keys()
        if self._columns_unseen:
            selectors = self._work.settings.fields.selectors
            unseen = {name for name in self._columns_unseen if not _has(fields, selectors[name].names)}
            self._columns_unseen = unseen

    def _reject(self, file: str, row: RawRow, reason: str) -> None:
        self._counts["rejected"] += 1
        self._first_reject = self._first_reject or f"{file}:{row.row}: {reason}"
        is_told = reason in self._reject_reasons or len(self._reject_reasons) < _MANY_REASONS
        self._reject_reasons[reason if is_told else "other reasons"] += 1
        run_id, corpus = self._work.run_id, self._work.settings.corpus
        reject = {"run_id": run_id, "corpus": corpus, "file": file, "row": row.row, "reason": reason, "raw": row.kept}
        self._output.add("rejects", [reject])

    def _write_pending(self) -> None:
        stored = self._judged()
        self._pending, self._held_bytes = [], 0
        cuts = self._work.cutter.cut([document.text for document in stored])
        corpus, run_id = self._work.settings.corpus, self._work.run_id
        rows = [
            document_row(document, corpus=corpus, n_passages=len(pieces), run_id=run_id)
            for document, pieces in zip(stored, cuts, strict=True)
        ]
        self._output.add("documents", rows)
        self._add_passages(stored, cuts)
        for document in stored:
            self._count_date(document)
        self._output.pack()
        self._report({**self._counts, "n_bytes": self._n_bytes})

    def _judged(self) -> list[Document]:
        """Decide about the rows that were taken, in their order; return the documents to store."""
        fates = iter(self._work.known.fates([one.document for one in self._pending if one.document]))
        stored = []
        for file, row, document, reason in self._pending:
            if document is None:
                if reason:
                    self._reject(file, row, reason)
                else:  # nothing of a withdrawn document is kept
                    self._counts["withdrawn"] += 1
                continue
            known = next(fates)
            known = "withdrawn" if document.doc_id in self._work.withdrawn else known
            fate = self._verdicts.on(self._ids.n_rows) or known
            self._ids.add(document.doc_id, document.content_hash, fate)
            if fate == REPEATED:
                self._reject(file, row, f"id {document.doc_key!r} came before in this run with other content")
                continue
            self._counts[fate] += 1
            if fate in ("added", "updated"):
                stored.append(document)
        return stored

    def _count_date(self, document: Document) -> None:
        if document.published is None:
            self._counts["undated"] += 1
            if document.published_text:
                self._counts["unread_dates"] += 1
                self._first_unread_date = self._first_unread_date or document.published_text

    def _add_passages(self, documents: Sequence[Document], cuts: Sequence[Sequence[Passage]]) -> None:
        placed = [
            (document, ordinal, piece)
            for document, pieces in zip(documents, cuts, strict=True)
            for ordinal, piece in enumerate(pieces)
        ]
        sizes = [piece.size for _, _, piece in placed] if self._work.cutter.counts_tokens else [None] * len(placed)
        ids = passage_ids((document.doc_id, ordinal, piece.text) for document, ordinal, piece in placed)
        self._counts["passages"] += len(placed)
        self._counts["tokens"] += sum(size or 0 for size in sizes)
        self._output.add_columns(
            "passages",
            {
                "passage_id": ids,
                "doc_id": [document.doc_id for document, _, _ in placed],
                "ordinal": [ordinal for _, ordinal, _ in placed],
                "char_start": [piece.char_start for _, _, piece in placed],
                "char_end": [piece.char_end for _, _, piece in placed],
                "n_tokens": sizes,
                "text": [piece.text for _, _, piece in placed],
                "text_hash": text_hashes(piece.text for _, _, piece in placed),
            },
        )
        for key, (document, _, piece) in zip(ids, placed, strict=True):
            if document.entities:
                self._output.add("mentions", corpus_mentions(key, document.doc_id, piece.text, document.entities))


def _has(fields: dict[str, Any], names: Sequence[str]) -> bool:
    return all(name in fields or find(fields, name) is not None for name in names)
