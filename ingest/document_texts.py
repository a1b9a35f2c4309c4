"""Documents' texts, put together from their passages, one after the other in a stable order.

Notable: rows of table `passages` lie in the order of their arrival, and those of an updated document elsewhere.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa

from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot

from .sorting import sorting_session

_BATCH_PASSAGES: Final = 1024
_COLUMNS: Final = {
    "documents": ["doc_id", "published", "corpus", "doc_key", "content_hash"],
    "passages": ["doc_id", "ordinal", "char_start", "char_end", "text"],
}
_NUMBERED: Final = """
    CREATE TABLE numbered AS
    SELECT row_number() OVER (ORDER BY published NULLS LAST, corpus, doc_key) AS number, doc_id, content_hash
    FROM documents
"""
_PIECES: Final = """
    SELECT number, char_start, char_end, text
    FROM passages RIGHT JOIN numbered USING (doc_id)
    ORDER BY number, ordinal
"""


class OrderedTexts(NamedTuple):
    """All documents: the earliest published first, those without a date last, then by corpus and the corpus's id."""

    documents: pa.Table
    """Their columns doc_id and content_hash."""
    texts: Iterator[str]
    """Their texts, each made when it is asked for."""


@contextmanager
def ordered_texts(lake: LakeStore, at: Snapshot, scratch: Path) -> Iterator[OrderedTexts]:
    """Give the documents of a snapshot and their texts, in order, for the length of a with block.

    Raises LakeError when the folder `scratch` cannot hold what does not fit in memory.
    """
    with sorting_session(scratch) as connection:
        for table, columns in _COLUMNS.items():
            rows = lake.table(table, at=at).scanner(columns=columns, batch_size=_BATCH_PASSAGES)
            connection.from_arrow(rows).create_view(table)
        connection.execute(_NUMBERED)
        documents = connection.sql("SELECT doc_id, content_hash FROM numbered ORDER BY number").to_arrow_table()
        yield OrderedTexts(documents, _texts(connection.sql(_PIECES).to_arrow_reader(_BATCH_PASSAGES)))


def _texts(batches: Iterable[pa.RecordBatch]) -> Iterator[str]:
    rows = (row for batch in batches for row in zip(*(column.to_pylist() for column in batch.columns), strict=True))
    for _number, pieces in groupby(rows, key=itemgetter(0)):
        yield _joined(pieces)


def _joined(pieces: Iterable[tuple[Any, ...]]) -> str:
    """Return the text of a document's passages; a document without any has one row of nulls."""
    parts, reached = [], 0
    for _number, start, end, text in pieces:
        if text is not None:
            # Only white space was lost between passages, and none where a long word was cut.
            parts += [" ", text] if start > reached else [text]
            reached = end
    return "".join(parts)
