"""A look at what an ingest would store, without storing it and without a lock."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

from proponent.schema.settings import IngestSettings

from .corpus import corpus_files
from .cutter import Cutter
from .documents import RejectedRowError, document_of, document_row
from .readers import read_file

_NOT_YET = ("run_id", "content_hash")


@dataclass
class Preview:
    """What would become of the first rows."""

    read: int = 0
    documents: list[dict[str, Any]] = field(default_factory=list)
    """Columns of `documents`, with the entities, and the text of the first passage."""
    rejects: list[str] = field(default_factory=list)
    """File, row and reason of every row that would not be taken."""
    skipped_files: list[str] = field(default_factory=list)


def preview(files: Sequence[str | Path], settings: IngestSettings, cutter: Cutter, *, rows: int) -> Preview:
    """Return what an ingest would make of the first rows of a corpus.

    What only the other rows decide is not seen: ids that come twice, documents that the lake has already. Raises
    CorpusError for files that cannot be read.
    """
    listing = corpus_files(files, settings)
    found = Preview(skipped_files=listing.skipped)
    every = chain.from_iterable(zip(repeat(file.name), read_file(file, settings)) for file in listing.files)
    for file, row in islice(every, rows):
        found.read += 1
        try:
            if row.fields is None:
                raise RejectedRowError(row.error or "cannot be read")
            found.documents.append(_described(row.fields, settings, cutter))
        except RejectedRowError as error:
            found.rejects.append(f"{file}:{row.row}: {error}")
    return found


def _described(fields: dict[str, Any], settings: IngestSettings, cutter: Cutter) -> dict[str, Any]:
    document = document_of(fields, settings, cutter.rule)
    [pieces] = cutter.cut([document.text])
    row = document_row(document, corpus=settings.corpus, n_passages=len(pieces), run_id="")
    stored = {name: value for name, value in row.items() if name not in _NOT_YET}
    return stored | {"entities": list(document.entities), "text": pieces[0].text if pieces else ""}
