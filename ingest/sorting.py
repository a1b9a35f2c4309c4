"""Sorting and matching more rows than memory holds, by a DuckDB session that spills to a run's folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from proponent.schema.errors import LakeError

MEMORY_LIMIT: Final = "1GB"


@contextmanager
def sorting_session(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a session in memory, which puts what goes beyond its limit into files in a folder.

    Raises LakeError when the folder cannot hold them.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": str(folder / "spilled"),
        "threads": 2,
        "preserve_insertion_order": False,
    }
    with duckdb.connect(":memory:", config=settings) as session:
        try:
            session.execute("SET enable_progress_bar = false")
            yield session
        except duckdb.Error as error:
            problem = str(error).strip().splitlines()[0]
            raise LakeError(f"rows cannot be sorted in {folder}: {problem}; nothing was changed") from error
