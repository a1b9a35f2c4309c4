"""The locked-down DuckDB session: the lake's relations, and nothing else of the machine.

Notable: everything is registered first and the connection is locked afterwards; then one SELECT at a time is taken.
Vectors are never registered, so no query can read them by accident.
"""

import copy
import json
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Column, Table, select
from sqlalchemy.types import TypeEngine

from proponent.schema import catalog as models
from proponent.schema.errors import SqlError
from proponent.schema.settings import SqlSettings
from proponent.schema.tables import NEAR_DUPLICATES, encodings_table
from proponent.store.lake import LakeStore
from proponent.store.rows import AT_ONCE, rows_with
from proponent.store.scan import in_list
from proponent.store.snapshots import Snapshot
from proponent.store.withdrawn import hidden_documents

from .comments import catalog_columns, comment
from .functions import Functions
from .memo import Memo
from .results import Result, Stream
from .rows_of_hits import rows_of_hits
from .running import Running, TimeLimit, asked, named_errors, supervised
from .statement import require_select

if TYPE_CHECKING:
    from .live import Load

T = TypeVar("T")

_LOCKS: Final = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET max_temp_directory_size = '0B'",
    "SET enable_external_access = false",
    "SET python_enable_replacements = false",
    "SET lock_configuration = true",
)
_OF_DOCUMENTS: Final = ("documents", "passages", "mentions")
_OF_HITS: Final = ("influence", "compare")
"""Relations and functions that join hits with what they belong to."""
_OF_COMMENTS: Final = ("duckdb_", "information_schema", "pg_", "show", "describe", "comment")
"""What a statement names that may show comments: writing them takes half of the time in which a session opens."""
_OF_ENCODINGS: Final = ["text_hash", "norm", "loss", "n_tokens"]
"""Columns of encodings that people see."""
_TABLES: Final = ("documents", "passages", "mentions", "hits", "rejects")


class Session:
    """One connection to one snapshot of a lake; not for several threads at once.

    With `passages`, ids, it sees of documents, passages and mentions only those of these passages' documents: a join of
    some hits with all passages would read every text. `documents` is the snapshot of documents, passages and mentions,
    when those of an earlier one are to be joined with what is known at present. `memo` is what an earlier session of
    the same lake has kept. `load` loads encoders for the functions that ask a model. `settings` bound its queries.
    """

    def __init__(
        self,
        lake: LakeStore,
        at: Snapshot,
        *,
        threads: int | None = None,
        documents: Snapshot | None = None,
        passages: pa.Array | None = None,
        memo: Memo | None = None,
        load: "Load | None" = None,
        settings: SqlSettings | None = None,
    ) -> None:
        self.at = at
        self.settings = settings or SqlSettings()
        self.memo = memo or Memo()
        self._streams = _Streams()
        self._running: set[Running] = set()
        self._connection = duckdb.connect(config={"threads": threads} if threads else {})
        # A connection that is open when Python ends prints pages of leaks, so a forgotten session closes itself.
        self._close = weakref.finalize(self, self._connection.close)
        self._connection.execute("SET temp_directory = ''")
        self._connection.execute("SET GLOBAL TimeZone = 'UTC'")  # global, so that it is so for streams, too
        self._register_tables(lake, at, documents or at, passages)
        self._register_near_duplicates(lake, at)
        self._register_catalog(lake)
        self._connection.execute(_statements("views.sql"))
        this = weakref.ref(self)  # which the connection would keep alive for ever, through its functions
        self._functions = Functions(lake, lambda: cast("Session", this())._beside(), load)
        self._functions.register(self._connection)
        self._connection.execute(_statements("functions.sql"))
        # What a join with all of them would read is found when somebody asks; with `passages` they are few already.
        found = partial(rows_of_hits, lake, at, documents or at, memo=self.memo)
        alone = threading.Lock()  # both use this connection, which threads may share
        narrow = partial(_narrow, self._connection, found) if passages is None else _nothing
        self._rows_of_hits = _Once(narrow, alone)
        self._comments = _Once(partial(comment, self._connection), alone)
        self._connection.execute(f"SET memory_limit = '{self.settings.memory_limit}B'")
        for setting in _LOCKS:
            self._connection.execute(setting)

    def close(self) -> None:
        """Close the connection, after the last stream of it: DuckDB calls its functions, which are gone then."""
        self._streams.when_none_is_open(self._close)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def sql(
        self,
        query: str,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        settings: SqlSettings | None = None,
    ) -> Result:
        """Run one SELECT; parameters are bound to `?` or `$name`, never pasted.

        `settings` are those of this query, but for `memory_limit`, which is the session's. Raises SqlError for anything
        but one SELECT, for a statement that fails, and for one that takes too much time or memory or has too large a
        result.
        """
        chosen = settings or self.settings
        with self.stream(query, parameters, settings=chosen) as stream:
            return Result(_whole(stream, chosen.max_bytes))

    def stream(
        self,
        query: str,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        settings: SqlSettings | None = None,
    ) -> Stream:
        """Run one SELECT whose rows are read as they come; the time that their reader takes does not count.

        The stream outlives the session, and `max_bytes` does not bound it. Raises SqlError as `sql` does, here or when
        a later row fails.
        """
        self._streams.begin()
        with ExitStack() as opened:
            # This session lives as long as the stream: what is forgotten closes its connection, functions and all.
            opened.callback(self._end_stream)
            require_select(self._connection, query)
            named = query.lower()
            if any(name in named for name in _OF_HITS):
                self._rows_of_hits()
            if any(name in named for name in _OF_COMMENTS):
                self._comments()
            # DuckDB has one open result for each connection; a cursor is another one to the same relations.
            cursor = self._connection.cursor()
            opened.callback(cursor.close)
            chosen = replace(settings or self.settings, memory_limit=self.settings.memory_limit)
            running = Running(cursor, self._functions, chosen)
            self._running.add(running)
            opened.callback(self._running.discard, running)
            begun = running.begin(query, parameters)
            opened.callback(begun.reader.close)
            return Stream(begun.reader.schema, running.batches(begun), close=opened.pop_all().close)

    def stop(self) -> None:
        """Stop the statements that run now, which then raise SqlError; another thread may.

        DuckDB forgets what it is told while it plans a statement, so say it again until the statement has ended.
        """
        for running in tuple(self._running):
            running.stop()
        self._connection.interrupt()

    def beside(self) -> "Session":
        """Return this session for another thread, on a connection of its own; it is closed before this one.

        What runs on several of them at a time must not call functions, which work for one statement.
        """
        beside = self._beside()
        beside._streams, beside._running = _Streams(), set()
        beside._close = weakref.finalize(beside, beside._connection.close)
        return beside

    def _end_stream(self) -> None:
        self._streams.end()

    def trusted(self, name: str, parameters: Mapping[str, Any] | None = None, *, predicate: str = "true") -> pa.Table:
        """Run a query of `query/sql/`; a predicate that the gate has checked takes the place of a last `true`."""
        return self.trusted_read(name, lambda rows, _stopped: rows.to_arrow_table(), parameters, predicate=predicate)

    def trusted_read(
        self,
        name: str,
        read: Callable[[duckdb.DuckDBPyRelation, threading.Event], T],
        parameters: Mapping[str, Any] | None = None,
        *,
        predicate: str = "true",
    ) -> T:
        """Return what `read` makes of the rows of the same, which need not be in memory all at once.

        It is given what is set when it has to end.
        """
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            self._connection.interrupt()

        statement = _statements(f"{name}.sql")
        if statement.endswith("WHERE true"):
            statement = statement.removesuffix("true") + predicate
        with named_errors(self.settings.memory_limit):
            return supervised(
                stop,
                lambda: read(asked(self._connection, statement, parameters), stopped),
                TimeLimit(self.settings.time_limit_s),
            )

    def _beside(self) -> Self:
        """Return this session on another connection to the same relations, for a function that it waits for."""
        beside = copy.copy(self)
        beside._connection = self._connection.cursor()
        return beside

    def _register_tables(self, lake: LakeStore, at: Snapshot, documents: Snapshot, passages: pa.Array | None) -> None:
        hidden, meant = hidden_documents(lake.catalog, documents), _documents_of(lake, documents, passages)
        for name in _TABLES:
            seen = lake.table(name, at=documents if name in _OF_DOCUMENTS else at)
            visible = self._visible(lake, documents, name, hidden) if len(hidden) else None
            if meant is not None and name in _OF_DOCUMENTS:
                wanted = in_list("doc_id", meant) if len(meant) else "false"
                seen = seen.to_table(filter=f"{wanted} AND {visible}" if visible else wanted)
            elif visible:
                seen = seen.scanner(filter=visible)
            self._connection.from_arrow(seen).create_view(name)
        with lake.catalog.read() as session:
            encoders = list(session.scalars(select(models.Encoder.name).order_by(models.Encoder.name)))
        parts = ["SELECT ''::VARCHAR AS encoder, ''::VARCHAR AS text_hash, 0::FLOAT AS norm, 0::FLOAT AS loss, "
                 "0::INTEGER AS n_tokens WHERE false"]  # fmt: skip
        for name in encoders:
            table = encodings_table(name)
            if at.has(table):
                self._connection.from_arrow(lake.table(table, at=at).scanner(columns=_OF_ENCODINGS)).create_view(table)
                parts.append(f"SELECT '{name}' AS encoder, text_hash, norm, loss, n_tokens FROM {table}")  # noqa: S608
        # No table of an encoder can have this name, since theirs begin with `encodings_`.
        self._connection.execute(f"CREATE VIEW stored_encodings AS {' UNION ALL '.join(parts)}")

    def _register_near_duplicates(self, lake: LakeStore, at: Snapshot) -> None:
        known = at.has("near_duplicates")  # lakes that were made before there was this table have none
        stored = lake.table("near_duplicates", at=at) if known else NEAR_DUPLICATES.empty_table()
        self._connection.from_arrow(stored).create_view("stored_near_duplicates")

    @staticmethod
    def _visible(lake: LakeStore, at: Snapshot, table: str, hidden: pa.Array) -> str | None:
        """Return a Lance predicate for the rows of a table that are not those of withdrawn documents."""
        if table in _OF_DOCUMENTS:
            return f"NOT ({in_list('doc_id', hidden)})"
        if table != "hits":
            return None
        passages = lake.table("passages", at=at).to_table(columns=["passage_id"], filter=in_list("doc_id", hidden))
        ids = passages["passage_id"].combine_chunks()
        return f"NOT ({in_list('passage_id', ids)})" if len(ids) else None

    def _register_catalog(self, lake: LakeStore) -> None:
        with lake.catalog.read() as session:
            for mapper in models.Base.registry.mappers:
                table = cast("Table", mapper.local_table)
                columns = catalog_columns(table)
                rows = session.execute(select(*columns)).all()
                self._connection.from_arrow(_catalog_arrow(columns, rows)).create_view(table.name)


class _Once:
    """Something that is done when a statement first needs it, for all who share a session's relations."""

    def __init__(self, do: Callable[[], object], lock: threading.Lock) -> None:
        """Take what is to be done under a lock."""
        self._lock = lock
        self._do: Callable[[], object] | None = do

    def __call__(self) -> None:
        """Do it, unless it was done; what failed, being stopped, say, is done by who needs it next."""
        with self._lock:
            if self._do is not None:
                self._do()
                self._do = None


class _Streams:
    """The streams of a session that are open, and what is to be done when none is any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_open = 0
        self._afterwards: Callable[[], object] | None = None

    def begin(self) -> None:
        """Count a stream. Raises SqlError when the session is closed."""
        with self._lock:
            if self._afterwards is not None:
                raise SqlError("the session is closed; ask again")
            self._n_open += 1

    def end(self) -> None:
        """Count a stream no more."""
        with self._lock:
            self._n_open -= 1
            do = self._afterwards if not self._n_open else None
        if do is not None:
            do()

    def when_none_is_open(self, do: Callable[[], object]) -> None:
        """Do something now or after the last stream; no other one begins."""
        with self._lock:
            self._afterwards = do
            if self._n_open:
                return
        do()


def _nothing() -> None:
    """Do nothing."""


def _narrow(connection: duckdb.DuckDBPyConnection, found: Callable[[], dict[str, pa.Table]]) -> None:
    """Let relation `influence` read the rows of hits alone: a join with all passages reads every text.

    All of it or nothing: others on this session may read, and what is stopped half-way is done once more.
    """
    tables = found()
    connection.begin()
    try:
        for name, rows in tables.items():
            connection.register("rows_of_hits", rows)
            connection.execute(f"DROP VIEW of_hits.{name}; CREATE TABLE of_hits.{name} AS FROM rows_of_hits")
            connection.unregister("rows_of_hits")
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def _documents_of(lake: LakeStore, at: Snapshot, passages: pa.Array | None) -> pa.Array | None:
    """Return the ids of some passages' documents, or None where all of them are read in less time."""
    if passages is None or len(passages) > AT_ONCE:
        return None
    return pc.unique(rows_with(lake.table("passages", at=at), "passage_id", passages, columns=["doc_id"])["doc_id"])


def _whole(stream: Stream, max_bytes: int | None) -> pa.Table:
    """Return all rows. Raises SqlError as soon as they are too many, and reads no more of them."""
    batches, size = list[pa.RecordBatch](), 0
    for batch in stream.batches():
        batches.append(batch)
        size += batch.nbytes
        if max_bytes is not None and size > max_bytes:
            raise SqlError(
                f"the result has more than {max_bytes:,} bytes (max_bytes); ask for less, write it to a file with "
                "`proponent sql -o FILE`, or raise the limit"
            )
    return pa.Table.from_batches(batches, stream.schema)


def _statements(name: str) -> str:
    return files(__package__).joinpath("sql", name).read_text(encoding="utf-8").strip()


def _catalog_arrow(columns: Sequence[Column[Any]], rows: Sequence[Any]) -> pa.Table:
    values = zip(*rows, strict=True) if rows else [()] * len(columns)
    arrays = [
        pa.array([_plain(value) for value in of_one], _arrow_type(column.type))
        for column, of_one in zip(columns, values, strict=True)
    ]
    return pa.table(arrays, names=[column.name for column in columns])


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if isinstance(value, dict | list) else value


def _arrow_type(kind: TypeEngine[Any]) -> pa.DataType:
    if isinstance(kind, models.UtcDateTime):
        return pa.timestamp("us", tz="UTC")
    return {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}.get(kind.python_type, pa.string())
