"""Parquet files, read in batches, so that memory does not grow with the file."""

from collections.abc import Iterator

import pyarrow.parquet as pq

from .arrow import batch_rows
from .row import Opened, RawRow, Reader

_BATCH_ROWS = 1024


class Parquet(Reader):
    """Reads `.parquet` files."""

    name = "parquet"
    suffixes = (".parquet", ".pq")
    magic = (b"PAR1",)
    seeks = True

    def rows(self, opened: Opened) -> Iterator[RawRow]:
        """Yield every row, numbered from 1."""
        with pq.ParquetFile(opened.file) as file:
            yield from batch_rows(file.iter_batches(batch_size=_BATCH_ROWS))
