"""Parquet files, read in batches, so that memory does not grow with the file."""

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow.parquet as pq

from .arrow import batch_rows
from .row import Opened, Part, RawRow, Reader

_BATCH_ROWS = 64


class Parquet(Reader):
    """Reads `.parquet` files."""

    name = "parquet"
    suffixes = (".parquet", ".pq")
    magic = (b"PAR1",)
    seeks = True

    def rows(self, opened: Opened) -> Iterator[RawRow]:
        """Yield every row, numbered from 1."""
        part = opened.part
        groups = list(range(part.start, part.stop)) if part else None
        with pq.ParquetFile(opened.file) as file:
            batches = file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups)
            yield from batch_rows(batches, first=part.first_row if part else 1)

    def parts(self, file: BinaryIO, n_bytes: int) -> Iterator[Part]:
        """Yield runs of row groups; a group cannot be divided."""
        with pq.ParquetFile(file) as opened:
            groups = [opened.metadata.row_group(place) for place in range(opened.metadata.num_row_groups)]
        start, row, filled, n_rows = 0, 1, 0, 0
        for place, group in enumerate(groups):
            filled, n_rows = filled + group.total_byte_size, n_rows + group.num_rows
            if filled >= n_bytes or place == len(groups) - 1:
                yield Part(start, place + 1, row, filled)
                start, row, filled, n_rows = place + 1, row + n_rows, 0, 0
