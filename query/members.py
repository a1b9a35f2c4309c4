"""Which passages belong to which groups at a snapshot, and what changed since another.

Notable: the difference is one of multisets of (group, stored vector, factor), so whatever brought it about counts:
documents added, updated, withdrawn or marked, passages cut anew, mentions found, texts encoded again. A stored vector
goes by the file and row that it lies in, since the same text may be encoded again, and slightly otherwise.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from proponent.schema.errors import LakeBusyError, LakeError
from proponent.schema.tables import NORMS, codes_of, encodings_table, norms_table
from proponent.store.group_sums import Summed, stored_vectors
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot, latest_snapshot

MEMORY_LIMIT: Final = "1GB"
_COLUMNS: Final = {
    "documents": ["doc_id", "corpus", "source", "published", "published_precision"],
    "passages": ["passage_id", "doc_id", "text_hash"],
    "mentions": ["passage_id", "entity"],
}
_VECTORS: Final = {
    "unit": "SELECT text_hash, vector_id, position, 1::DOUBLE AS factor FROM encoded",
    "lengths": "SELECT text_hash, vector_id, position, norm::DOUBLE AS factor FROM encoded",
    "norms": "SELECT text_hash, vector_id, position, 1 / norms.norm::DOUBLE AS factor "
    "FROM encoded LEFT JOIN norms USING (text_hash)",
}


class Sizes(NamedTuple):
    """The largest groups of a kind."""

    names: Sequence[str | None]
    n_passages: np.ndarray
    """(groups,) int64."""
    n_groups: int
    """Groups that there are, these and others."""


class Changed(NamedTuple):
    """Vectors to add to sums, each (n,)."""

    numbers: np.ndarray
    """Number of the group."""
    n: np.ndarray
    """How often, int64; negative: how often to take it off."""
    factors: np.ndarray
    """float64."""
    positions: np.ndarray
    """Position in the present table where n > 0, else in the former one."""

    def only(self, which: np.ndarray) -> "Changed":
        """Return some of them."""
        return Changed(*(array[which] for array in self))

    def moves(self, n_groups: int) -> np.ndarray:
        """Return how many passages are added to each group's sum or taken off it, (groups,) int64."""
        return np.bincount(self.numbers, np.abs(self.n), n_groups).astype(np.int64)

    def passages(self, n_groups: int) -> np.ndarray:
        """Return how many passages each group has more than before, (groups,) int64."""
        return np.bincount(self.numbers, self.n, n_groups).astype(np.int64)


def versions_of(lake: LakeStore, at: Snapshot, summed: Summed) -> dict[str, int]:
    """Return the versions of the tables that decide sums at a snapshot.

    Norms are those of the newest snapshot, whatever snapshot is meant, as in `store.curvatures`.
    """
    encodings = encodings_table(summed.encoder)
    versions = {name: at.versions[name] for name in (*_COLUMNS, encodings)}
    if summed.curvature_id is not None:
        norms = norms_table(summed.curvature_id, codes_of(lake.table(encodings, at=at).schema))
        newest = latest_snapshot(lake.catalog)
        if newest.has(norms):
            versions[norms] = newest.versions[norms]
    return versions


class Members:
    """Members of groups at a snapshot, and at a former one."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def largest(self, kind: str, most: int) -> Sizes:
        """Return the groups of a kind with the most passages, at most so many of them."""
        rows = self._connection.sql(_statement("group_sizes"), params={"kind": kind, "most": max(most, 1)})
        found = rows.to_arrow_table()
        n_groups = found["n_groups"][0].as_py() if len(found) else 0
        found = found.slice(0, most)
        return Sizes(found["name"].to_pylist(), found["n_passages"].to_numpy(), n_groups)

    def changes(self, kind: str, names: Sequence[str | None], has_sum: np.ndarray) -> Changed:
        """Return what gets groups' sums from the former snapshot to the present one, or there from nothing.

        `names` are numbered from 0; `has_sum` (groups,) tells which have a sum of the former snapshot.
        """
        chosen = pa.table({"number": np.arange(len(names)), "name": pa.array(names, pa.string()), "has_sum": has_sum})
        self._connection.register("chosen", chosen)
        found = self._connection.sql(_statement("group_changes"), params={"kind": kind}).to_arrow_table()
        self._connection.unregister("chosen")
        n = found["n"].to_numpy()
        position = found["position"].fill_null(-1).to_numpy()
        former = found["former_position"].fill_null(-1).to_numpy()
        return Changed(found["number"].to_numpy(), n, found["factor"].to_numpy(), np.where(n > 0, position, former))


@contextmanager
def membership(
    lake: LakeStore, summed: Summed, present: Snapshot, *, hidden: pa.Array, former: Snapshot | None
) -> Iterator[Members]:
    """Work out who belongs to which groups at a snapshot, where `hidden` documents are no members, and at a former one.

    The snapshots name the versions of `versions_of`. Raises LakeBusyError when norms are not all there, LakeError when
    a table cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="proponent-") as folder, _session(Path(folder)) as connection:
        data_files: dict[str, int] = {}
        try:
            _place(connection, "present", lake, summed, present, hidden=hidden, data_files=data_files)
            if former is not None:
                nobody = pa.array([], pa.string())
                _place(connection, "former", lake, summed, former, hidden=nobody, data_files=data_files)
            else:
                connection.execute("CREATE SCHEMA former; CREATE TABLE former.members AS FROM present.members LIMIT 0")
            yield Members(connection)
        except duckdb.Error as error:
            raise LakeError(f"groups cannot be counted: {str(error).strip().splitlines()[0]}") from error


@contextmanager
def _session(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a session that puts what goes beyond its memory into files in a folder."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": str(folder),
        "threads": 2,
        "preserve_insertion_order": False,
    }
    with duckdb.connect(":memory:", config=settings) as connection:
        connection.execute("SET enable_progress_bar = false")
        yield connection


def _place(
    connection: duckdb.DuckDBPyConnection,
    schema: str,
    lake: LakeStore,
    summed: Summed,
    at: Snapshot,
    *,
    hidden: pa.Array,
    data_files: dict[str, int],
) -> None:
    """Make the relation `members` of one snapshot in a schema."""
    connection.execute(f"CREATE SCHEMA {schema}")
    connection.execute(f"SET search_path = '{schema}'")
    for name, columns in _COLUMNS.items():
        connection.from_arrow(lake.table(name, at=at).scanner(columns=columns)).create_view(name)
    connection.from_arrow(pa.table({"doc_id": hidden})).create_view("hidden")
    encodings = lake.table(encodings_table(summed.encoder), at=at)
    connection.from_arrow(stored_vectors(encodings, data_files)).create("encoded")  # a stream is read once
    scale = "lengths" if summed.with_lengths else "unit" if summed.curvature_id is None else "norms"
    if scale == "norms":
        norms = norms_table(str(summed.curvature_id), codes_of(encodings.schema))
        connection.from_arrow(lake.table(norms, at=at) if at.has(norms) else NORMS.empty_table()).create_view("norms")
    connection.execute(f"CREATE VIEW vectors AS {_VECTORS[scale]}")
    connection.execute(_statement("group_members"))
    ((lacking,),) = connection.sql("SELECT count(*) FROM placed WHERE factor IS NULL").fetchall()
    if lacking:
        raise LakeBusyError(f"{lacking} passages were encoded or taken out meanwhile; start again")
    connection.execute("SET search_path = 'main'")


def _statement(name: str) -> str:
    return files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
