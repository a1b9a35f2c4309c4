"""Rows on their way into several tables: held in memory up to a size, then written as batches that nobody sees yet."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import numpy.typing as npt
import pyarrow as pa

from proponent.schema.tables import LAKE_TABLES
from proponent.store.commit import WrittenBatch, remove_files, write_batch
from proponent.store.lake import LakeStore

BATCH_BYTES: Final = 16 << 20
"""Size of a batch; what is left at the end is written while nothing else is done, so more would cost time."""


class Output:
    """Takes rows and writes them, in the order in which each table got them.

    A batch is written while the next one is collected; there is never more than one on its way until the last ones,
    which are written together.
    """

    def __init__(self, lake: LakeStore) -> None:
        """Write into a lake's tables."""
        self._lake = lake
        self._held: defaultdict[str, list[pa.Table]] = defaultdict(list)
        self._held_bytes: Counter[str] = Counter()
        self._writer = ThreadPoolExecutor(2, thread_name_prefix="write")
        self._under_way: list[Future[WrittenBatch]] = []
        self._batches: list[WrittenBatch] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown()
        if error is not None:
            while self._under_way:
                with suppress(Exception):  # what failed is told already
                    self._wait()
            for batch in self._batches:
                remove_files(self._lake, batch)

    def add(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows that all have the same columns."""
        if rows:
            self.add_columns(table, {name: [row[name] for row in rows] for name in rows[0]})

    def add_columns(self, table: str, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any] | pa.Array]) -> None:
        """Add rows, column by column; write a table's rows when they are enough for a batch."""
        schema = LAKE_TABLES[table]
        rows = pa.Table.from_arrays([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
        self._held[table].append(rows)
        self._held_bytes[table] += rows.nbytes
        if self._held_bytes[table] >= BATCH_BYTES:
            self._wait()
            self._write(table)

    def finish(self) -> list[WrittenBatch]:
        """Write what is left; return all batches."""
        for table in sorted(self._held):
            self._write(table)
        self._wait()
        return self._batches

    def _write(self, table: str) -> None:
        rows = pa.concat_tables(self._held.pop(table))
        del self._held_bytes[table]
        self._under_way.append(self._writer.submit(write_batch, self._lake, table, rows))

    def _wait(self) -> None:
        while self._under_way:
            self._batches.append(self._under_way.pop(0).result())
