"""A look at what an ingest would store, without storing it and without a lock."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

from proponent.schema.settings import IngestSettings
from proponent.schema.tables import DOCUMENTS

from .corpus import corpus_files
from .cutter import Cutter
from .documents import Documents, documents_of
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
        if row.fields is None:
            found.rejects.append(f"{file}:{row.row}: {row.error or 'cannot be read'}")
            continue
        documents, _, reasons = documents_of([row.fields], settings, cutter.rule)
        found.documents += _described(documents, settings, cutter)
        found.rejects += [f"{file}:{row.row}: {reason}" for reason in reasons.values()]
    return found


def _described(documents: Documents, settings: IngestSettings, cutter: Cutter) -> Iterator[dict[str, Any]]:
    cuts = cutter.cut(documents.texts).by_document(len(documents))
    for place, (pieces, entities) in enumerate(zip(cuts, documents.entities, strict=True)):
        said = {name: column[place] for name, column in documents.columns.items()}
        said |= {"corpus": settings.corpus, "n_passages": len(pieces)}
        stored = {name: said[name] for name in DOCUMENTS.names if name not in _NOT_YET}
        yield stored | {"entities": list(entities), "text": pieces[0].text if pieces else ""}
