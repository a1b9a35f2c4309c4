"""Which rows of a table have some texts: a join by their hashes that memory does not bound.

Notable: a lake of a hundred million passages has gigabytes of hashes. DuckDB joins them here with little memory, and
what does not fit is in files of this machine (`TMPDIR`) for a while. What is kept of the answer is a bit for each row.
A join takes 30 ms to begin with, which few texts, or a small table's, need not wait for.
"""

import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import Final

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.errors import LakeError

MEMORY_LIMIT: Final = "256MB"
_FEW: Final = 10_000
"""Texts, or rows of a table, that are looked up without a join; every batch of a look-up prepares all of them."""
_READ: Final = 1 << 16
_NONE: Final = pa.array([], pa.bool_())
_PLACES: Final = pa.schema([("text_hash", pa.string()), ("place", pa.int64())])


def matched(
    table: lance.LanceDataset, wanted: pa.RecordBatchReader, *, stopped: threading.Event | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `wanted` whose texts a table has, with the texts' places in stored order, in any order.

    Column `text_hash` of `wanted` gives way to `place`, int64. Ends soon when `stopped` is set. Raises what reading
    raises, and LakeError where the disk cannot hold what memory does not.
    """
    if table.count_rows() <= _FEW:
        yield from _looked_up(table, wanted)
        return
    columns = "stored.place, wanted.* EXCLUDE (text_hash)"
    yield from _joined(columns, wanted, _stored(table), stopped or threading.Event())


def _looked_up(table: lance.LanceDataset, wanted: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    stored = table.scanner(columns=["text_hash"], scan_in_order=True).to_table()["text_hash"].combine_chunks()
    for batch in wanted:
        places = pc.index_in(batch.column("text_hash"), value_set=stored).cast(pa.int64())
        found = batch.drop_columns(["text_hash"]).append_column("place", places)
        yield found.filter(places.is_valid())


def with_texts(
    rows: pa.RecordBatchReader, texts: pa.Array | pa.ChunkedArray, *, stopped: threading.Event | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield those of some rows that have any of some different texts (n,), with the text's `number` among these, int64.

    It takes the place of the column `text_hash`. Otherwise as `matched`.
    """
    numbered = pa.table({"text_hash": texts, "number": np.arange(len(texts))}).to_reader()
    columns = "wanted.number, stored.* EXCLUDE (text_hash)"
    yield from _joined(columns, numbered, rows, stopped or threading.Event())


def _joined(
    columns: str, wanted: pa.RecordBatchReader, stored: pa.RecordBatchReader, stopped: threading.Event
) -> Iterator[pa.RecordBatch]:
    import duckdb

    failed: list[Exception] = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="proponent-") as folder,
            duckdb.connect(":memory:", config=_settings(folder)) as connection,
        ):
            connection.execute("SET enable_progress_bar = false")
            for name, reader in (("wanted", wanted), ("stored", stored)):
                connection.from_arrow(_heard(reader, failed, stopped)).create_view(name)
            joined = connection.sql(f"SELECT {columns} FROM wanted JOIN stored USING (text_hash)")  # noqa: S608
            for batch in joined.to_arrow_reader():
                yield batch
                _go_on_unless(stopped)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if failed:
            raise failed[0] from None
        problem = str(error).strip().splitlines()[0]
        raise LakeError(f"texts cannot be matched: {problem}; TMPDIR may name another disk") from error


def _settings(folder: str) -> dict[str, str | bool | int | float | list[str]]:
    return {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": folder,
        "threads": 2,
        "preserve_insertion_order": False,
    }


def _go_on_unless(stopped: threading.Event) -> None:
    if stopped.is_set():
        raise LakeError("the matching of texts was stopped")


def rows_of(table: lance.LanceDataset, texts: pa.Array | pa.ChunkedArray) -> pa.BooleanArray:
    """Return for each row of a table (n,), in stored order, whether it is of one of some texts. Raises LakeError."""
    if len(texts) > _FEW:
        found = matched(table, pa.table({"text_hash": texts}).to_reader())
        return marked(table.count_rows(), (batch.column("place") for batch in found))
    read = table.scanner(columns=["text_hash"], batch_size=_READ, scan_in_order=True).to_batches()
    return pa.concat_arrays([_NONE, *(pc.is_in(batch.column("text_hash"), value_set=texts) for batch in read)])


def which_are_in(table: lance.LanceDataset, texts: pa.Array | pa.ChunkedArray) -> pa.BooleanArray:
    """Return for each of some different texts (n,) whether a table has a row of it. Raises LakeError."""
    there = table.scanner(columns=["text_hash"]).to_reader()
    return marked(len(texts), (batch.column("number") for batch in with_texts(there, texts)))


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


def _heard(reader: pa.RecordBatchReader, failed: list[Exception], stopped: threading.Event) -> pa.RecordBatchReader:
    """Return a reader of the same, which keeps what reading raised: DuckDB makes a message of its own of that."""

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in reader:
                _go_on_unless(stopped)
                yield batch
        except Exception as error:
            failed.append(error)
            raise

    return pa.RecordBatchReader.from_batches(reader.schema, batches())
