"""Which rows of a run have an id that came before in it, in the order of the corpus's rows, whoever read them when.

Every unit lists the ids of its rows with what it took each for; what was seen earlier, in any unit, decides over what
comes later. A second row with the same content is a duplicate, one with other content is rejected.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .sorting import sorting_session

DUPLICATE: Final = "duplicate"
REPEATED: Final = "repeated"
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


def write_ids(folder: Path, unit: int, ids: Sequence[tuple[str, str, str]]) -> None:
    """Write what a unit has read, in order: doc_id, content_hash and what became of the row."""
    columns = [pa.array(range(len(ids)), pa.int64())]
    columns += [pa.array([row[column] for row in ids], pa.string()) for column in range(3)]
    path = ids_path(folder, unit)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_arrays(columns, schema=_IDS), partial)
    partial.replace(path)  # a worker that is held for dead may write the same unit


def ids_path(folder: Path, unit: int) -> Path:
    """Return the file of a unit's ids."""
    return folder / "ids" / f"{unit}.parquet"


def find_repeats(folder: Path, *, units: int) -> list[int]:
    """Write the verdicts on rows whose id came before; return the units that did not know of all of theirs."""
    files = [str(ids_path(folder, unit)) for unit in range(units)]
    with sorting_session(folder) as session:
        found: pa.Table = session.sql(_FIND, params={"files": files}).to_arrow_table()
    unaware = pc.unique(found.filter(found["is_new"])["unit"].combine_chunks()).to_pylist()
    (folder / "verdicts").mkdir(exist_ok=True)
    for unit in unaware:
        theirs = found.filter(pc.equal(found["unit"], unit)).select(["place", "verdict"])
        pq.write_table(theirs, _verdicts_path(folder, unit))
    return sorted(unaware)


def read_verdicts(folder: Path, unit: int) -> dict[int, str]:
    """Return the verdicts on a unit's rows, by their places."""
    verdicts = pq.read_table(_verdicts_path(folder, unit))
    return dict(zip(verdicts["place"].to_pylist(), verdicts["verdict"].to_pylist(), strict=True))


def _verdicts_path(folder: Path, unit: int) -> Path:
    return folder / "verdicts" / f"{unit}.parquet"


def replaced_documents(folder: Path, *, units: int) -> Iterator[str]:
    """Yield the ids of documents that the run replaces."""
    for unit in range(units):
        ids = pq.read_table(ids_path(folder, unit), columns=["doc_id", "fate"])
        yield from ids.filter(pc.equal(ids["fate"], "updated"))["doc_id"].to_pylist()
