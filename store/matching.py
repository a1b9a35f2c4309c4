"""Which rows of a table have some texts: a join by their hashes that memory does not bound.

Notable: a lake of a hundred million passages has gigabytes of hashes. DuckDB joins them here with little memory, and
what does not fit is in files of this machine (`TMPDIR`) for a while. What is kept of the answer is a bit for each row.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Final

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.errors import LakeError

MEMORY_LIMIT: Final = "256MB"
_MOST_THREADS: Final = 4
"""Each needs some of the memory."""
_FEW: Final = 10_000
"""Texts that are looked up as they are: a join takes 30 ms to begin with, and every look-up prepares all texts."""
_READ: Final = 1 << 16
_NONE: Final = pa.array([], pa.bool_())
_PLACES: Final = pa.schema([("text_hash", pa.string()), ("place", pa.int64())])


def matched(table: lance.LanceDataset, wanted: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `wanted` whose texts a table has, with the texts' places in stored order, in any order.

    Column `text_hash` of `wanted` gives way to `place`, int64. Raises what reading `wanted` raises, and LakeError where
    the disk cannot hold what memory does not.
    """
    import duckdb

    failed: list[BaseException] = []
    with tempfile.TemporaryDirectory(prefix="proponent-") as folder:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": folder,
            "threads": min(_MOST_THREADS, os.cpu_count() or 1),
            "preserve_insertion_order": False,
        }
        with duckdb.connect(":memory:", config=settings) as connection:
            try:
                connection.execute("SET enable_progress_bar = false")
                connection.from_arrow(_heard(wanted, failed)).create_view("wanted")
                connection.from_arrow(_heard(_stored(table), failed)).create_view("stored")
                yield from connection.sql(
                    "SELECT stored.place, wanted.* EXCLUDE (text_hash) FROM wanted JOIN stored USING (text_hash)"
                ).to_arrow_reader()
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                if failed:
                    raise failed[0] from None
                problem = str(error).strip().splitlines()[0]
                raise LakeError(
                    f"texts cannot be matched in {folder}: {problem}; TMPDIR may name another disk"
                ) from error


def rows_of(table: lance.LanceDataset, texts: pa.Array | pa.ChunkedArray) -> pa.BooleanArray:
    """Return for each row of a table (n,), in stored order, whether it is of one of some texts. Raises LakeError."""
    if len(texts) > _FEW:
        found = matched(table, pa.table({"text_hash": texts}).to_reader())
        return marked(table.count_rows(), (batch.column("place") for batch in found))
    read = table.scanner(columns=["text_hash"], batch_size=_READ, scan_in_order=True).to_batches()
    return pa.concat_arrays([_NONE, *(pc.is_in(batch.column("text_hash"), value_set=texts) for batch in read)])


def which_are_in(table: lance.LanceDataset, texts: pa.Array | pa.ChunkedArray) -> pa.BooleanArray:
    """Return for each of some texts (n,) whether a table has a row of it. Raises LakeError."""
    numbered = pa.table({"text_hash": texts, "number": np.arange(len(texts))})
    return marked(len(texts), (batch.column("number") for batch in matched(table, numbered.to_reader())))


def texts_of(table: lance.LanceDataset, rows: pa.BooleanArray) -> pa.Array:
    """Return the text hashes of some rows of a table, in stored order."""
    found, start = [pa.array([], pa.string())], 0
    for batch in table.scanner(columns=["text_hash"], scan_in_order=True).to_batches() if rows.true_count else ():
        found.append(batch.column("text_hash").filter(rows.slice(start, batch.num_rows)))
        start += batch.num_rows
    return pa.concat_arrays(found)


def marked(n: int, places: Iterable[pa.Array]) -> pa.BooleanArray:
    """Return n values, of which those at some places are true."""
    found = np.zeros(n, bool)
    for some in places:
        found[some.to_numpy()] = True
    return pa.array(found)


def _stored(table: lance.LanceDataset) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in table.scanner(columns=["text_hash"], scan_in_order=True).to_batches():
            places = np.arange(start, start + batch.num_rows)
            start += batch.num_rows
            yield pa.record_batch([batch.column("text_hash"), places], schema=_PLACES)

    return pa.RecordBatchReader.from_batches(_PLACES, batches())


def _heard(reader: pa.RecordBatchReader, failed: list[BaseException]) -> pa.RecordBatchReader:
    """Return a reader of the same, which keeps what reading raised: DuckDB makes a message of its own of that."""

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except BaseException as error:
            failed.append(error)
            raise

    return pa.RecordBatchReader.from_batches(reader.schema, batches())
