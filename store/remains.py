"""What is left on disk of documents that were withdrawn, and which files hold it.

Notable: a file is judged by its rows as they lie in it, deleted ones included. An encoding is of a withdrawn document
when no passage that stays has its text. Rejected rows cannot be told apart, since what could not be read may belong to
any document: all of a corpus go with a withdrawn document of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select

from proponent.schema import catalog as models

from .files import Named, read_columns
from .lake import LakeStore
from .snapshots import Snapshot
from .stale import is_of_texts

_OF_DOCUMENTS = ("documents", "passages", "mentions")
_ROWS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Staying:
    """Which rows of a table stay: those with, or those without, one of some ids in a column."""

    column: str
    ids: pa.Array
    with_ids: bool = False

    def mask(self, values: pa.Array) -> pa.Array:
        """Return for values of the column whether their rows stay; of many at once, since each call hashes all ids."""
        found = pc.is_in(values, value_set=self.ids)
        return found if self.with_ids else pc.invert(found)

    def all_stay(self, columns: Iterable[pa.Array]) -> Iterator[bool]:
        """Return of each of many columns whether all of its rows stay."""
        for some in _in_groups(columns, _ROWS_AT_ONCE):
            mask, start = self.mask(pa.concat_arrays(some)), 0
            for column in some:
                yield mask.slice(start, len(column)).false_count == 0
                start += len(column)


@dataclass(frozen=True)
class Remains:
    """What withdrawn documents have left behind."""

    staying: Mapping[str, Staying]
    """For every table that may hold something of them, which rows stay."""
    passage_ids: frozenset[str]
    """Their passages, as far as any file still has them."""


def find_remains(lake: LakeStore, at: Snapshot, named: Mapping[str, Named]) -> Remains:
    """Return what is left of all withdrawn documents in the files that versions name."""
    with lake.catalog.read() as session:
        gone = session.execute(select(models.Withdrawal.doc_id, models.Withdrawal.corpus).distinct()).all()
    if not gone:
        return Remains({}, frozenset())
    doc_ids = pa.array({doc_id for doc_id, _ in gone}, pa.string())
    corpora = pa.array({corpus for _, corpus in gone}, pa.string())
    staying = {table: Staying("doc_id", doc_ids) for table in _OF_DOCUMENTS} | {"rejects": Staying("corpus", corpora)}
    texts, passage_ids = _passages(lake, at, named["passages"], staying["passages"])
    staying |= {table: Staying("text_hash", texts, with_ids=True) for table in named if is_of_texts(table)}
    return Remains(staying, passage_ids)


def _passages(lake: LakeStore, at: Snapshot, named: Named, staying: Staying) -> tuple[pa.Array, frozenset[str]]:
    """Return the texts of all passages in files that stay, and the passages in the others that do not."""
    living = lake.table("passages", at=at).to_table(columns=["text_hash"])["text_hash"].combine_chunks()
    texts, gone = [living], set[str]()
    for file in _data_files(named):
        rows = read_columns(lake.table_dir("passages") / file, ["doc_id", "passage_id", "text_hash"])
        stay = staying.mask(rows["doc_id"])
        if pc.all(stay).as_py() is False:
            gone.update(rows.filter(pc.invert(stay))["passage_id"].to_pylist())
        else:
            texts.append(rows["text_hash"].combine_chunks())
    return pc.unique(pa.concat_arrays(texts)), frozenset(gone)


def tainted_files(lake: LakeStore, table: str, staying: Staying, named: Named) -> frozenset[str]:
    """Return the files of a table that hold a row which does not stay, and the indexes that were made of one."""
    files = _data_files(named)
    values = (read_columns(lake.table_dir(table) / file, [staying.column])[staying.column] for file in files)
    stay = staying.all_stay(column.combine_chunks() for column in values)
    tainted = {file for file, whole in zip(files, stay, strict=True) if not whole}
    indexes = (name for names in named.values() if names & tainted for name in names if name.startswith("_indices/"))
    return frozenset(tainted.union(indexes))


def _in_groups(columns: Iterable[pa.Array], n_rows: int) -> Iterator[list[pa.Array]]:
    """Yield arrays in lists that have some rows together."""
    some: list[pa.Array] = []
    for column in columns:
        some.append(column)
        if sum(map(len, some)) >= n_rows:
            yield some
            some = []
    if some:
        yield some


def _data_files(named: Named) -> list[str]:
    return sorted({name for names in named.values() for name in names if name.startswith("data/")})
