"""What has to hold between the rows of all tables, as data: a new table is an entry of these lists.

Notable: ids are compared in Arrow, the referring ones some at a time; what stays in memory are the ids referred to,
some 40 bytes each.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import lance
import pyarrow as pa
import pyarrow.compute as pc

from proponent.schema.ids import identity_curvature_id
from proponent.schema.settings import IDENTITY

from .facts import Facts
from .findings import BACKUP, Finding, named, remedy_of

_AT_ONCE: Final = 1 << 20
_KEPT: Final = 10_000
"""Ids of one finding that a repair may need."""


@dataclass(frozen=True)
class Reference:
    """Every value of a column stands in a column of another table; `*` stands for the same encoder in both."""

    table: str
    column: str
    to: str
    """Another table, or one of the catalog's, after `catalog.`."""
    to_column: str


REFERENCES: Final = (
    Reference("passages", "doc_id", "documents", "doc_id"),
    Reference("mentions", "passage_id", "passages", "passage_id"),
    Reference("mentions", "doc_id", "documents", "doc_id"),
    Reference("near_duplicates", "doc_id", "documents", "doc_id"),
    Reference("near_duplicates", "of_doc_id", "documents", "doc_id"),
    Reference("documents", "corpus", "catalog.corpora", "name"),
    Reference("documents", "run_id", "catalog.runs", "run_id"),
    Reference("rejects", "run_id", "catalog.runs", "run_id"),
    Reference("hits", "trace_id", "catalog.traces", "trace_id"),
    Reference("queries", "query_id", "catalog.queries", "query_id"),
    Reference("queries", "encoder", "catalog.encoders", "name"),
    Reference("index_*", "text_hash", "encodings_*", "text_hash"),
)
"""Encodings and norms may be of texts that no passage has any more (`stale.py`), so they refer to nothing."""

UNIQUE: Final = (
    ("documents", ("doc_id",)),
    ("passages", ("passage_id",)),
    ("passages", ("doc_id", "ordinal")),
    ("hits", ("trace_id", "side", "rank")),
    ("queries", ("query_id", "encoder")),
    ("encodings_*", ("text_hash",)),
    ("norms_*", ("text_hash",)),
    ("index_*", ("text_hash",)),
)
"""Columns that no two rows of a table have the same values in."""

Tables = Mapping[str, lance.LanceDataset]
"""The tables of the newest snapshot whose files are sound."""


def broken_rules(tables: Tables, facts: Facts, older: Callable[[int], lance.LanceDataset | None]) -> Iterator[Finding]:
    """Yield what does not hold between the rows of sound tables.

    `older` gives the passages as a snapshot had them, or None when they cannot be read.
    """
    for reference in REFERENCES:
        for table, to in _pairs(reference, tables, facts):
            there = _values(tables, facts, to, reference.to_column)
            yield from _dangling(tables[table], table, reference.column, there=there, to=to)
    for pattern, columns in UNIQUE:
        for table in _matching(pattern, tables):
            yield from _repeated(table, tables[table], columns)
    if {"documents", "passages"} <= tables.keys():
        yield from _miscounted(tables["documents"], tables["passages"])
    if {"hits", "passages"} <= tables.keys():
        yield from _hits_of_nothing(tables["hits"], tables["passages"], facts, older)
    yield from _catalog_rules(tables, facts)


def _matching(pattern: str, tables: Tables) -> list[str]:
    prefix = pattern.removesuffix("*")
    return sorted(name for name in tables if name == pattern or (prefix != pattern and name.startswith(prefix)))


def _pairs(reference: Reference, tables: Tables, facts: Facts) -> Iterator[tuple[str, str]]:
    for table in _matching(reference.table, tables):
        of = table.removeprefix(reference.table.removesuffix("*"))
        to = reference.to.replace("*", of)
        if to in tables or to.startswith("catalog.") or not facts.at.has(to):
            yield table, to


def _values(tables: Tables, facts: Facts, table: str, column: str) -> pa.Array:
    """Return all values of a column of a table, or of one of the catalog's; none when there is no such table."""
    if table.startswith("catalog."):
        rows = facts.rows[table.removeprefix("catalog.")]
        return pa.array([getattr(row, column) for row in rows], pa.string())
    return _column(tables[table], column) if table in tables else pa.array([], pa.string())


def _column(dataset: lance.LanceDataset, column: str) -> pa.Array:
    return dataset.to_table(columns=[column])[column].combine_chunks()


def _batches(dataset: lance.LanceDataset, columns: list[str]) -> Iterator[pa.Table]:
    """Yield some columns, about a million rows at a time: looking up values costs as much as there are to look in."""
    some: list[pa.RecordBatch] = []
    for batch in dataset.scanner(columns=columns).to_batches():
        some.append(batch)
        if sum(one.num_rows for one in some) >= _AT_ONCE:
            yield pa.Table.from_batches(some)
            some = []
    if some:
        yield pa.Table.from_batches(some)


def _dangling(dataset: lance.LanceDataset, table: str, column: str, *, there: pa.Array, to: str) -> Iterator[Finding]:
    lost, total = list[str](), 0
    for rows in _batches(dataset, [column]):
        values = rows[column]
        missing = values.filter(pc.invert(pc.is_in(values, value_set=there)))
        total += len(missing)
        lost += missing.slice(0, max(0, _KEPT - len(lost))).to_pylist()
    if total:
        ids = list(dict.fromkeys(lost))
        what = f"{total:,} rows of {column} that {to} does not have: {named(ids)}"
        yield Finding("damage", "references", table, what, remedy_of(table), table, (column, *ids))


def _repeated(table: str, dataset: lance.LanceDataset, columns: tuple[str, ...]) -> Iterator[Finding]:
    rows = dataset.to_table(columns=list(columns))
    counted = rows.group_by(list(columns)).aggregate([([], "count_all")])
    if counted.num_rows == rows.num_rows:
        return
    repeated = counted.filter(pc.greater(counted["count_all"], 1)).slice(0, _KEPT)
    ids = repeated[columns[0]].to_pylist()
    what = f"{rows.num_rows - counted.num_rows:,} rows repeat {' and '.join(columns)} of another: {named(ids)}"
    yield Finding("damage", "repeated", table, what, remedy_of(table), table, (columns[0], *ids))


def passages_by_document(passages: lance.LanceDataset, fragments: list[lance.LanceFragment] | None = None) -> pa.Table:
    """Return doc_id and n, how many passages there are of each document, of all fragments or some."""
    counted = pa.table({"doc_id": pa.array([], pa.string()), "n": pa.array([], pa.int64())})
    for batch in passages.scanner(columns=["doc_id"], fragments=fragments).to_batches():
        some = pa.Table.from_batches([batch]).group_by("doc_id").aggregate([([], "count_all")])
        counted = pa.concat_tables([counted, some.rename_columns(counted.column_names)], promote_options="permissive")
        if counted.num_rows >= _AT_ONCE:
            counted = _summed(counted)
    return _summed(counted)


def _summed(counts: pa.Table) -> pa.Table:
    return counts.group_by("doc_id").aggregate([("n", "sum")]).rename_columns(["doc_id", "n"])


def _miscounted(documents: lance.LanceDataset, passages: lance.LanceDataset) -> Iterator[Finding]:
    wrong = miscounted(documents, passages_by_document(passages))
    if wrong.num_rows:
        what = f"{wrong.num_rows:,} documents have another number of passages than n_passages says: "
        keys = wrong["doc_key"].slice(0, _KEPT).to_pylist()
        yield Finding("damage", "counts", "documents", what + named(keys, of=wrong.num_rows), BACKUP, "documents")


def miscounted(documents: lance.LanceDataset, counts: pa.Table) -> pa.Table:
    """Return doc_key of the documents whose n_passages is another number than `passages_by_document` counted."""
    says = documents.to_table(columns=["doc_id", "doc_key", "n_passages"])
    place = pc.index_in(says["doc_id"], value_set=counts["doc_id"].combine_chunks())
    found = pc.fill_null(counts["n"].combine_chunks().take(place.combine_chunks()), 0)
    return says.filter(pc.not_equal(says["n_passages"].cast(pa.int64()).combine_chunks(), found)).select(["doc_key"])


def _hits_of_nothing(
    hits: lance.LanceDataset,
    passages: lance.LanceDataset,
    facts: Facts,
    older: Callable[[int], lance.LanceDataset | None],
) -> Iterator[Finding]:
    """Look for hits whose passage is neither there nor was there when it was found."""
    present, others = _column(passages, "passage_id"), list[pa.Table]()
    for rows in _batches(hits, ["trace_id", "passage_id"]):
        others.append(rows.filter(pc.invert(pc.is_in(rows["passage_id"], value_set=present))))
    gone = pa.concat_tables(others) if others else None
    if gone is None or not gone.num_rows:
        return
    searched = {one.trace_id: one.snapshot for one in facts.rows["traces"]}
    readable = {one.snapshot_id: one for one in facts.snapshots}
    of_version: dict[int, list[str]] = {}
    for trace_id in pc.unique(gone["trace_id"]).to_pylist():
        snapshot = readable.get(searched.get(trace_id, 0))
        if snapshot is not None and snapshot.has("passages"):
            of_version.setdefault(snapshot.versions["passages"], []).append(trace_id)
    lost: list[str] = []
    for version, traces in sorted(of_version.items()):
        then = older(version)
        if then is None:
            continue
        some = gone.filter(pc.is_in(gone["trace_id"], value_set=pa.array(traces, pa.string())))["passage_id"]
        lost += some.filter(pc.invert(pc.is_in(some, value_set=_column(then, "passage_id")))).to_pylist()
    if lost:
        what = f"{len(lost):,} hits of passages that the searched snapshot does not have: {named(lost)}"
        yield Finding("damage", "references", "hits", what, BACKUP, "hits", ("passage_id", *lost[:_KEPT]))


def _catalog_rules(tables: Tables, facts: Facts) -> Iterator[Finding]:
    """Yield what does not hold between the catalog's rows, or between them and the tables."""
    traces, snapshots = facts.rows["traces"], {one.snapshot_id for one in facts.snapshots}
    curvatures = {(one.encoder, one.name) for one in facts.rows["curvatures"]}
    curvatures |= {(one.name, IDENTITY) for one in facts.rows["encoders"]}
    of_gradients = [one for one in traces if one.encoder is not None]
    wrong = [one.trace_id for one in of_gradients if (one.encoder, one.curvature) not in curvatures]
    if wrong:
        what = f"traces under curvatures that are not there: {named(wrong)}"
        yield Finding("damage", "references", "catalog traces", what, BACKUP)
    future = [one.trace_id for one in traces if one.snapshot > facts.at.snapshot_id]
    if future or not snapshots:
        what = f"traces of snapshots that are not there: {named(future)}"
        yield Finding("damage", "references", "catalog traces", what, BACKUP)
    if "queries" in tables:
        yield from _queries_without_vectors(tables["queries"], facts)
    known = {f"norms_{one.curvature_id}" for one in facts.rows["curvatures"]}
    known |= {f"norms_{identity_curvature_id(one.artifact)}" for one in facts.rows["encoders"]}
    for table in _matching("norms_*", tables):
        if table.rpartition("_")[0] not in known:
            yield Finding("damage", "references", table, "norms of a curvature that is not there", BACKUP, table)


def _queries_without_vectors(queries: lance.LanceDataset, facts: Facts) -> Iterator[Finding]:
    """Yield traces whose question has no vector; a mean has those of its members."""
    stored = queries.to_table(columns=["query_id", "encoder"])
    there = set(zip(stored["query_id"].to_pylist(), stored["encoder"].to_pylist(), strict=True))
    asked = {one.query_id: one.parts or [] for one in facts.rows["queries"]}
    lost = []
    for trace in facts.rows["traces"]:
        if trace.encoder is None:  # by words, without a vector
            continue
        members = {part.get("query") for part in asked.get(trace.query_id, [])} - {None}
        lost += [one for one in members or {trace.query_id} if (one, trace.encoder) not in there]
    if lost:
        what = f"{len(lost):,} queries of traces have no vector: {named(sorted(lost))}"
        yield Finding("damage", "references", "catalog traces", what, BACKUP, "queries")
