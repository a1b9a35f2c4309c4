"""Which rows of a run have an id that came before in it, in the order of the corpus's rows, whoever read them when.

Every unit lists the ids of its rows with what it took each for; what was seen earlier, in any unit, decides over what
comes later. A second row with the same content is a duplicate, one with other content is rejected.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .sorting import sorting_session

DUPLICATE: Final = "duplicate"
REPEATED: Final = "repeated"
_ROWS_AT_ONCE: Final = 1 << 16
_IDS: Final = pa.schema(
    [
        pa.field("place", pa.int64(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("fate", pa.string(), nullable=False),
    ]
)
_FIND: Final = """
WITH ids AS (
    SELECT parse_filename(filename, true)::BIGINT AS unit, place, doc_id, content_hash, fate
    FROM read_parquet($files, filename = true)
    WHERE fate <> 'withdrawn'
),
twice AS (SELECT doc_id FROM ids GROUP BY doc_id HAVING count(*) > 1),
judged AS (
    SELECT unit, place, fate,
        row_number() OVER earlier AS nth,
        CASE WHEN content_hash = first_value(content_hash) OVER earlier THEN 'duplicate' ELSE 'repeated' END AS verdict
    FROM ids SEMI JOIN twice USING (doc_id)
    WINDOW earlier AS (PARTITION BY doc_id ORDER BY unit, place)
)
SELECT unit, place, verdict, fate <> verdict AS is_new FROM judged WHERE nth > 1 ORDER BY unit, place
"""


class IdsWriter:
    """Lists what a unit reads, in order, without holding it."""

    def __init__(self, folder: Path, unit: int) -> None:
        """Write the list of a unit into a run's folder."""
        self._path = ids_path(folder, unit)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A worker that is held for dead may write the same unit.
        self._partial = self._path.with_suffix(f".{os.getpid()}.partial")
        self._writer = pq.ParquetWriter(self._partial, _IDS)
        self._columns: tuple[list[str], list[str], list[str]] = ([], [], [])
        self.n_rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError) if error else nullcontext():
            self._writer.close()
        self._partial.unlink(missing_ok=True)

    def add(self, doc_ids: Sequence[str], content_hashes: Sequence[str], fates: Sequence[str]) -> None:
        """Add rows and what became of them."""
        for column, values in zip(self._columns, (doc_ids, content_hashes, fates), strict=True):
            column.extend(values)
        self.n_rows += len(doc_ids)
        if len(self._columns[0]) >= _ROWS_AT_ONCE:
            self._flush()

    def finish(self) -> None:
        """Put the list into its place."""
        self._flush()
        self._writer.close()
        self._partial.replace(self._path)

    def _flush(self) -> None:
        places = pa.array(range(self.n_rows - len(self._columns[0]), self.n_rows), pa.int64())
        columns = [pa.array(column, pa.string()) for column in self._columns]
        self._writer.write_table(pa.Table.from_arrays([places, *columns], schema=_IDS))
        self._columns = ([], [], [])


def ids_path(folder: Path, unit: int) -> Path:
    """Return the file of a unit's ids."""
    return folder / ids_name(unit)


def ids_name(unit: int) -> str:
    """Return what the file of a unit's ids is called in the run's folder."""
    return f"ids/{unit}.parquet"


def find_repeats(folder: Path, *, units: int) -> list[int]:
    """Write the verdicts on rows whose id came before; return the units that did not know of all of theirs."""
    files = [str(ids_path(folder, unit)) for unit in range(units)]
    with sorting_session(folder) as session:
        found: pa.Table = session.sql(_FIND, params={"files": files}).to_arrow_table()
    unaware = pc.unique(found.filter(found["is_new"])["unit"].combine_chunks()).to_pylist()
    units_of_rows = found["unit"].to_numpy()
    (folder / "verdicts").mkdir(exist_ok=True)
    for unit in unaware:
        first, last = units_of_rows.searchsorted([unit, unit + 1])
        pq.write_table(found.slice(first, last - first).select(["place", "verdict"]), _verdicts_path(folder, unit))
    return sorted(unaware)


class Verdicts:
    """The verdicts on a unit's rows, to be asked for in the order of the rows."""

    def __init__(self, rows: Iterator[tuple[int, str]]) -> None:
        """Take places and verdicts by ascending place."""
        self._rows = rows
        self._next = next(rows, None)

    def between(self, start: int, stop: int) -> Iterator[tuple[int, str]]:
        """Yield the verdicts on the rows from one place to another, with their places; places may not go back."""
        while self._next is not None and self._next[0] < stop:
            place, verdict = self._next
            self._next = next(self._rows, None)
            if place >= start:
                yield place, verdict


def read_verdicts(folder: Path, unit: int) -> Verdicts:
    """Return the verdicts on a unit's rows."""

    def rows() -> Iterator[tuple[int, str]]:
        with pq.ParquetFile(_verdicts_path(folder, unit)) as file:
            for batch in file.iter_batches():
                yield from zip(batch["place"].to_pylist(), batch["verdict"].to_pylist(), strict=True)

    return Verdicts(rows())


def _verdicts_path(folder: Path, unit: int) -> Path:
    return folder / verdicts_name(unit)


def verdicts_name(unit: int) -> str:
    """Return what the file of the verdicts on a unit is called in the run's folder."""
    return f"verdicts/{unit}.parquet"


def replaced_documents(folder: Path, *, units: int) -> Iterator[str]:
    """Yield the ids of documents that the run replaces."""
    for unit in range(units):
        ids = pq.read_table(ids_path(folder, unit), columns=["doc_id", "fate"])
        yield from ids.filter(pc.equal(ids["fate"], "updated"))["doc_id"].to_pylist()
