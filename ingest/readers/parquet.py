"""Parquet files, read in batches, so that memory does not grow with the file."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from proponent.schema.errors import CorpusError

from .row import RawRow

_BATCH_ROWS = 1024


class Parquet:
    """Reads `.parquet` files."""

    suffixes = (".parquet",)

    def rows(self, path: Path) -> Iterator[RawRow]:
        """Yield every row, numbered from 1."""
        number = 0
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                    for fields in batch.to_pylist():
                        number += 1
                        raw = json.dumps(fields, default=str, ensure_ascii=False).encode("utf-8", "backslashreplace")
                        yield RawRow(number, raw, fields)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # also values Python has no type for
            place = f" after row {number}" if number else ""
            raise CorpusError(f"{path} cannot be read{place}: {str(error).splitlines()[0]}") from error
