"""Which passages belong to which groups at a snapshot, and what changed since another.

Notable: the difference is one of multisets of (group, stored vector, factor), so whatever brought it about counts:
documents added, updated, withdrawn or marked, passages cut anew, mentions found, texts encoded again. A stored vector
goes by the file and row that it lies in, since the same text may be encoded again, and slightly otherwise. Only
passages that a row belongs to which one of the snapshots has alone are compared.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from proponent.schema.errors import LakeBusyError, LakeError
from proponent.schema.tables import NORMS, codes_of, encodings_table, norms_table
from proponent.store.differences import differing
from proponent.store.group_sums import SIZES, Summed, stored_vectors
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot, latest_snapshot

MEMORY_LIMIT: Final = "1GB"
_COLUMNS: Final = {
    "documents": ["doc_id", "corpus", "source", "published", "published_precision"],
    "mentions": ["passage_id", "entity"],
    "passages": ["passage_id", "doc_id", "text_hash"],
}
_KEYS: Final = {"documents": "doc_id", "mentions": "passage_id", "passages": "passage_id"}
_VECTORS: Final = {
    "unit": "SELECT text_hash, vector_id, position, 1::DOUBLE AS factor FROM encoded",
    "lengths": "SELECT text_hash, vector_id, position, norm::DOUBLE AS factor FROM encoded",
    "norms": "SELECT text_hash, vector_id, position, 1 / norms.norm::DOUBLE AS factor "
    "FROM encoded LEFT JOIN norms USING (text_hash)",
}


class Largest(NamedTuple):
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
    """Members of groups at a snapshot, and what changed since a former one."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        lake: LakeStore,
        summed: Summed,
        present: Snapshot,
        *,
        hidden: pa.Array,
    ) -> None:
        self._connection = connection
        self._lake = lake
        self._summed = summed
        self._present = present
        self._hidden = hidden
        self._data_files: dict[str, int] = {}
        self._has_whole = False

    def compare(self, former: Snapshot, sizes: pa.Table) -> None:
        """Find what changed since a former snapshot, whose groups were of some sizes."""
        for name, keys in self._changed_keys(former).items():
            self._connection.from_arrow(pa.table({"key": keys})).create(name)
        nobody = pa.array([], pa.string())
        for schema, at, hidden in (("present", self._present, self._hidden), ("former", former, nobody)):
            with self._schema(schema):
                passages = self._lake.table("passages", at=at).scanner(columns=_COLUMNS["passages"])
                self._connection.from_arrow(passages).create_view("all_passages")
                self._connection.execute(_statement("group_changed_passages"))
                self._place(at, hidden)
        self._connection.execute(_statement("group_moves"))
        self._connection.from_arrow(sizes).create_view("former_sizes")
        self._connection.execute(_statement("group_sizes"))

    def count(self) -> None:
        """Count all members, where there is nothing to compare them with."""
        self._make_whole()
        counted = "SELECT kind, name, count(*) AS n_passages FROM whole.members GROUP BY kind, name"
        self._connection.execute(f"CREATE TABLE sizes AS {counted}")

    def sizes(self) -> pa.Table:
        """Return how many passages every group has, in rows of SIZES."""
        return self._connection.sql("SELECT kind, name, n_passages FROM sizes").to_arrow_table().cast(SIZES)

    def largest(self, kind: str, most: int) -> Largest:
        """Return the groups of a kind with the most passages, at most so many of them."""
        rows = self._connection.sql(_statement("group_largest"), params={"kind": kind, "most": max(most, 1)})
        found = rows.to_arrow_table()
        n_groups = found["n_groups"][0].as_py() if len(found) else 0
        found = found.slice(0, most)
        return Largest(found["name"].to_pylist(), found["n_passages"].to_numpy(), n_groups)

    def changes(self, kind: str, names: Sequence[str | None]) -> Changed:
        """Return what gets the sums of groups, numbered from 0, from the former snapshot to the present one."""
        return self._of_chosen(
            "SELECT number, factor, n, CASE WHEN n > 0 THEN position ELSE former_position END AS position "
            "FROM moves JOIN chosen ON chosen.name IS NOT DISTINCT FROM moves.name WHERE kind = $kind",
            kind,
            names,
        )

    def vectors(self, kind: str, names: Sequence[str | None]) -> Changed:
        """Return what the sums of groups, numbered from 0, are made of."""
        self._make_whole()
        return self._of_chosen(_statement("group_vectors"), kind, names)

    def _of_chosen(self, query: str, kind: str, names: Sequence[str | None]) -> Changed:
        chosen = pa.table({"number": np.arange(len(names)), "name": pa.array(names, pa.string())})
        self._connection.register("chosen", chosen)
        found = self._connection.sql(query, params={"kind": kind}).to_arrow_table()
        self._connection.unregister("chosen")
        return Changed(*(found[column].to_numpy() for column in ("number", "n", "factor", "position")))

    def _changed_keys(self, former: Snapshot) -> Mapping[str, pa.ChunkedArray]:
        """Return what the passages go by that may have changed."""
        tables = sorted({*self._present.versions, *former.versions})
        found: dict[str, list[pa.Array]] = {"documents": [self._hidden], "passages": [], "texts": []}
        for name in tables:
            column = _KEYS.get(name, "text_hash")
            one, *other = [self._lake.table(name, at=at) for at in (self._present, former) if at.has(name)]
            # Norms may have had no table.
            keys = differing(one, other[0], column) if other else one.to_table(columns=[column])[column]
            found[{"doc_id": "documents", "passage_id": "passages"}.get(column, "texts")] += keys.chunks
        return {f"changed_{name}": pa.chunked_array(keys, pa.string()) for name, keys in found.items()}

    def _make_whole(self) -> None:
        if not self._has_whole:
            with self._schema("whole"):
                passages = self._lake.table("passages", at=self._present).scanner(columns=_COLUMNS["passages"])
                self._connection.from_arrow(passages).create_view("passages")
                self._place(self._present, self._hidden)
            self._has_whole = True

    @contextmanager
    def _schema(self, name: str) -> Iterator[None]:
        self._connection.execute(f"CREATE SCHEMA {name}")
        self._connection.execute(f"SET search_path = '{name}'")
        yield
        self._connection.execute("SET search_path = 'main'")

    def _place(self, at: Snapshot, hidden: pa.Array) -> None:
        """Make the relation `members` of one snapshot in the current schema, of the passages that are there."""
        for name in ("documents", "mentions"):
            stored = self._lake.table(name, at=at).scanner(columns=_COLUMNS[name])
            self._connection.from_arrow(stored).create_view(name)
        self._connection.from_arrow(pa.table({"doc_id": hidden})).create_view("hidden")
        encodings = self._lake.table(encodings_table(self._summed.encoder), at=at)
        stream = stored_vectors(encodings, self._data_files)
        self._connection.from_arrow(stream).create_view("stored")  # which can be read once
        self._connection.execute("CREATE TABLE encoded AS FROM stored SEMI JOIN passages USING (text_hash)")
        scale = "lengths" if self._summed.with_lengths else "norms" if self._summed.curvature_id else "unit"
        if scale == "norms":
            name = norms_table(str(self._summed.curvature_id), codes_of(encodings.schema))
            norms = self._lake.table(name, at=at) if at.has(name) else NORMS.empty_table()
            self._connection.from_arrow(norms).create_view("norms")
        self._connection.execute(f"CREATE VIEW vectors AS {_VECTORS[scale]}")
        self._connection.execute(_statement("group_members"))
        ((lacking,),) = self._connection.sql("SELECT count(*) FROM vectors WHERE factor IS NULL").fetchall()
        if lacking:
            raise LakeBusyError(f"{lacking} texts were encoded or taken out meanwhile; start again")


@contextmanager
def membership(lake: LakeStore, summed: Summed, present: Snapshot, *, hidden: pa.Array) -> Iterator[Members]:
    """Work out who belongs to which groups at a snapshot, where `hidden` documents are no members.

    The snapshot, and a former one, name the versions of `versions_of`. Raises LakeBusyError when norms are not all
    there, LakeError when a table cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="proponent-") as folder, _session(Path(folder)) as connection:
        try:
            yield Members(connection, lake, summed, present, hidden=hidden)
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


def _statement(name: str) -> str:
    return files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
