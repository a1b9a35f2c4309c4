"""Rows of a file in any format that a corpus may have, for what is no corpus."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from proponent.schema.errors import InputError


def rows_of(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a file. Raises InputError, which names file and row, for one that cannot be read."""
    from proponent.ingest.readers import read_file

    for row in read_file(path):
        if row.fields is None:
            raise InputError(f"{path}:{row.row}: {row.error}")
        yield row.fields
