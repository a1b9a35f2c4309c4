"""What a worker does with a unit of an ingest: rows in; documents, passages, mentions and rejects out, unseen.

Notable: a worker decides by what was in the lake before the run (new, updated, unchanged, withdrawn) and lists the ids
that it has read. Whether an id came before in the run is found when all units are done (`repeats`); a unit that holds
such rows is then done once more, with the verdicts on them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import pyarrow as pa

from proponent.schema import catalog as models
from proponent.schema.ids import document_id, passage_and_text_ids
from proponent.schema.selectors import find
from proponent.schema.settings import FieldMapping, IngestSettings
from proponent.store.commit import remove_files
from proponent.store.lake import LakeStore
from proponent.store.place import remove
from proponent.store.units import count_units
from proponent.store.withdrawn import withdrawn_documents

from .cutter import Cutter, cutter_from_json
from .documents import Documents, documents_of, key_of
from .mentions import corpus_mentions
from .output import Output
from .passages import Passages
from .pieces import Piece, from_list
from .readers import RawRow, read_file
from .repeats import REPEATED, IdsWriter, Verdicts, ids_name, read_verdicts, verdicts_name
from .unfinished import batches_of
from .work import Report
from .worklist import fetch, give, read_list, run_folder

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
            result = _Unit(self, work, output, ids, report).result()
        give(self.lake, self.run_id, ids_name(work["ordinal"]))
        return result

    def undo(self, result: dict[str, Any]) -> None:
        """Remove rows that nobody takes, and of a run that is over what this worker has given it meanwhile."""
        for batch in batches_of(result):
            remove_files(self.lake, batch)
        if not count_units(self.lake.catalog, self.run_id):
            remove(self.lake.work_dir / self.run_id)


def read_work(lake: LakeStore, run: models.Run) -> ReadWork:
    """Return the work of an ingest in a worker process."""
    folder = run_folder(lake, run.run_id)
    for name in ("pieces", "known"):
        fetch(lake, run.run_id, f"{name}.arrow")
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

    def fates(self, doc_ids: Sequence[str], content_hashes: Sequence[str]) -> list[str]:
        """Return for every document whether it is added, updated or unchanged."""
        if not len(self._ids):
            return ["added"] * len(doc_ids)
        ids, contents = np.array(doc_ids, dtype="S26"), np.array(content_hashes, dtype="S26")
        places = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        is_known = self._ids[places] == ids
        is_same = self._contents[places] == contents
        return np.where(is_known, np.where(is_same, "unchanged", "updated"), "added").tolist()  # type: ignore[no-any-return]


def _fixed_width(column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks()
    data = array.buffers()[1] if len(array) else b""
    return np.frombuffer(data, dtype="S26", count=len(array), offset=array.offset * 26)


class _Unit:
    """The state of one unit."""

    def __init__(self, work: ReadWork, unit: dict[str, Any], output: Output, ids: IdsWriter, report: Report) -> None:
        self._work = work
        self._unit = unit
        self._report = report
        self._verdicts = Verdicts(iter(()))
        if unit.get("again"):
            fetch(work.lake, work.run_id, verdicts_name(unit["ordinal"]), anew=True)
            self._verdicts = read_verdicts(run_folder(work.lake, work.run_id), unit["ordinal"])
        self._output = output
        self._counts: Counter[str] = Counter()
        self._reject_reasons: Counter[str] = Counter()
        self._first_unread_date: str | None = None
        self._first_reject: str | None = None
        self._fields_seen: set[str] = set()
        self._columns_unseen = set(work.settings.explicit_fields)
        self._ids = ids
        self._pending: list[tuple[str, RawRow]] = []
        """Rows that were taken, and the files that they are in."""
        self._held_bytes = 0
        self._n_bytes = 0

    def result(self) -> dict[str, Any]:
        for piece in self._work.pieces(self._unit["start"], self._unit["stop"]):
            before = self._n_bytes
            for row in read_file(piece.file, self._work.settings, part=piece.part):
                self._pending.append((piece.file.name, row))
                self._held_bytes += row.size
                if self._held_bytes > _BATCH_BYTES:
                    self._n_bytes = min(self._n_bytes + self._held_bytes, before + piece.n_bytes)
                    self._write_pending()
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

    def _write_pending(self) -> None:
        """Store what the rows that were taken are, each in its order."""
        taken, self._pending, self._held_bytes = self._pending, [], 0
        self._counts["read"] += len(taken)
        stored = self._judged(taken)
        if len(stored):
            self._add(stored)
        self._report({**self._counts, "n_bytes": self._n_bytes})

    def _judged(self, taken: Sequence[tuple[str, RawRow]]) -> Documents:
        """Decide about rows in their order; return the documents to store."""
        readable, fields, refused = [], [], dict[int, str]()
        for place, (_, row) in enumerate(taken):
            if row.fields is None:
                refused[place] = row.error or "cannot be read"
            else:
                readable.append(place)
                fields.append(row.fields)
        self._see_fields(fields)
        documents, rows, reasons = documents_of(fields, self._work.settings, self._work.cutter.rule)
        for number, reason in reasons.items():
            if self._is_withdrawn(fields[number]):  # nothing of a withdrawn document is kept
                self._counts["withdrawn"] += 1
            else:
                refused[readable[number]] = reason
        fates = self._fates(documents)
        keys = documents.columns["doc_key"]
        for number, fate in enumerate(fates):
            if fate == REPEATED:
                told = f"id {keys[number]!r} came before in this run with other content"
                refused[readable[rows[number]]] = told
        self._output.add("rejects", [self._reject(*taken[place], refused[place]) for place in sorted(refused)])
        counted = Counter(fates)
        del counted[REPEATED]
        self._counts += counted
        stored = [number for number, fate in enumerate(fates) if fate in ("added", "updated")]
        return documents if len(stored) == len(documents) else documents.take(stored)

    def _is_withdrawn(self, fields: dict[str, Any]) -> bool:
        key = key_of(fields, self._work.settings.fields)
        return key is not None and document_id(self._work.settings.corpus, key) in self._work.withdrawn

    def _fates(self, documents: Documents) -> list[str]:
        """Return what becomes of documents, and list them with it."""
        doc_ids, content_hashes = documents.columns["doc_id"], documents.columns["content_hash"]
        fates = self._work.known.fates(doc_ids, content_hashes)
        if self._work.withdrawn:
            known = zip(doc_ids, fates, strict=True)
            fates = ["withdrawn" if doc_id in self._work.withdrawn else fate for doc_id, fate in known]
        first = self._ids.n_rows
        for place, verdict in self._verdicts.between(first, first + len(fates)):
            fates[place - first] = verdict
        self._ids.add(doc_ids, content_hashes, fates)
        return fates

    def _see_fields(self, rows: Sequence[dict[str, Any]]) -> None:
        self._fields_seen.update(*rows)
        for fields in rows:
            if not self._columns_unseen:
                return
            selectors = self._work.settings.fields.selectors
            unseen = {name for name in self._columns_unseen if not _has(fields, selectors[name].names)}
            self._columns_unseen = unseen

    def _reject(self, file: str, row: RawRow, reason: str) -> dict[str, Any]:
        """Count a row that is not taken; return its row of table `rejects`."""
        self._counts["rejected"] += 1
        self._first_reject = self._first_reject or f"{file}:{row.row}: {reason}"
        is_told = reason in self._reject_reasons or len(self._reject_reasons) < _MANY_REASONS
        self._reject_reasons[reason if is_told else "other reasons"] += 1
        run_id, corpus = self._work.run_id, self._work.settings.corpus
        return {"run_id": run_id, "corpus": corpus, "file": file, "row": row.row, "reason": reason, "raw": row.kept}

    def _add(self, documents: Documents) -> None:
        """Add documents, their passages and their mentions to what is written."""
        n = len(documents)
        passages = self._work.cutter.cut(documents.texts)
        n_passages = np.bincount(passages.document, minlength=n).tolist()
        said = {"corpus": [self._work.settings.corpus] * n, "run_id": [self._work.run_id] * n, "n_passages": n_passages}
        self._output.add_columns("documents", documents.columns | said)
        self._add_passages(documents, passages)
        undated = [
            text
            for day, text in zip(documents.columns["published"], documents.columns["published_text"], strict=True)
            if day is None
        ]
        unread = [text for text in undated if text]
        self._counts["undated"] += len(undated)
        self._counts["unread_dates"] += len(unread)
        self._first_unread_date = self._first_unread_date or next(iter(unread), None)

    def _add_passages(self, documents: Documents, passages: Passages) -> None:
        n, of, doc_ids = len(passages.text), passages.document.tolist(), documents.columns["doc_id"]
        ids, hashes = passage_and_text_ids(doc_ids, of, passages.ordinal.tolist(), passages.text)
        counts_tokens = self._work.cutter.counts_tokens
        self._counts["passages"] += n
        self._counts["tokens"] += int(passages.size.sum()) if counts_tokens else 0
        self._output.add_columns(
            "passages",
            {
                "passage_id": ids,
                "doc_id": [doc_ids[document] for document in of],
                "ordinal": passages.ordinal,
                "char_start": passages.char_start,
                "char_end": passages.char_end,
                "n_tokens": passages.size if counts_tokens else pa.nulls(n, pa.int32()),
                "text": passages.text,
                "text_hash": hashes,
            },
        )
        if any(documents.entities):
            mentions = (
                corpus_mentions(key, doc_ids[document], text, documents.entities[document])
                for key, document, text in zip(ids.to_pylist(), of, passages.text, strict=True)
            )
            self._output.add("mentions", list(chain.from_iterable(mentions)))


def _has(fields: dict[str, Any], names: Sequence[str]) -> bool:
    return all(name in fields or find(fields, name) is not None for name in names)
