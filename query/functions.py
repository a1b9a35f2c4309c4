"""The functions of a SQL session: questions that a statement asks while it runs.

Notable: DuckDB has no table functions of Python's, so each is a scalar function that returns a list of rows, under a
table macro of `sql/functions.sql`. It is declared to have side effects, which keeps EXPLAIN and PREPARE from running
it. An exception reaches DuckDB as text; the first one is kept here and raised again outside. A function may run on any
thread, and must not use the connection that waits for it. torch and the model load in the first call that needs them.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import duckdb
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType

from proponent.schema.errors import InputError, SettingsError, SqlError
from proponent.schema.settings import METHODS, GroupSettings, TraceSettings
from proponent.store.lake import LakeStore

from .hit_columns import COMPARED, GROUPS, LIVE_HITS, struct_list
from .memory import unbounded

if TYPE_CHECKING:
    from .live import Load
    from .scored import Scored
    from .session import Session

_VARCHAR: Final = "VARCHAR"


_CALL: Final = re.compile(
    r"""\b_?(trace|proponents|opponents|group_influence|compare)\b | \b_?influence"?\s*(\(|--|/\*)""",
    re.IGNORECASE | re.VERBOSE,
)


def may_call(query: str) -> bool:
    """Whether a statement may call one of the functions, as far as its words tell."""
    return _CALL.search(query) is not None


class StoppedError(Exception):
    """The statement that a function works for was stopped."""


class _Asked(NamedTuple):
    """A row of arguments of `trace`."""

    prompt: str | None
    target: str | None
    k: int | None
    filter: str | None
    instead: str | None
    method: str | None
    curvature: str | None
    encoder: str | None
    chat: bool | None
    approximate: bool | None

    @property
    def settings(self) -> TraceSettings:
        if self.method not in METHODS:
            raise SettingsError(f"trace() is by one of {', '.join(METHODS)}, not by {self.method!r}")
        return TraceSettings(
            k=_number(self.k),
            method=self.method,
            encoder=self.encoder,
            filter=self.filter,
            approximate=bool(self.approximate),
            curvature=self.curvature,
        )


class Functions:
    """The functions of one session.

    `beside` gives a session of the same snapshot on another connection, and `load` an encoder with its model; without
    it `trace` is refused.
    """

    def __init__(self, lake: LakeStore, beside: "Callable[[], Session]", load: "Load | None") -> None:
        self._lake = lake
        self._beside = beside
        self._load = load
        self._stopped = threading.Event()
        self._failure: BaseException | None = None
        self._one_at_a_time = threading.RLock()
        self._found: dict[str, Scored] = {}

    def register(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Register all functions that the macros call."""
        hits = struct_list(LIVE_HITS)
        two: list[Any] = [_VARCHAR] * 2
        of_side: list[Any] = [_VARCHAR, "BIGINT", _VARCHAR]
        asked: list[Any] = [_VARCHAR, _VARCHAR, "BIGINT", *[_VARCHAR] * 5, "BOOLEAN", "BOOLEAN"]
        for name, function, parameters, returned in (
            ("_trace", self._trace, asked, hits),
            ("_proponents", self._proponents, of_side, hits),
            ("_opponents", self._opponents, of_side, hits),
            ("_influence", self._influence, two, "DOUBLE"),
            ("_group_influence", self._group_influence, two, struct_list(GROUPS)),
            ("_compare", self._compare, two, struct_list(COMPARED)),
        ):
            connection.create_function(
                name,
                self._guarded(function, len(parameters)),
                parameters,
                returned,
                type=PythonUDFType.ARROW,
                null_handling=FunctionNullHandling.SPECIAL,
                side_effects=True,
            )

    @contextmanager
    def running(self, *, stopped: str) -> Iterator[None]:
        """Let one statement call functions, and raise what one of them raised in the place of DuckDB's text.

        `stopped` is what SqlError says when one of them was stopped.
        """
        self._stopped.clear()
        self._failure = None
        try:
            yield
        except SqlError as error:
            if isinstance(self._failure, StoppedError):
                raise SqlError(stopped) from error
            if self._failure is not None:
                raise self._failure from None
            raise

    def stop(self) -> None:
        """Stop the functions that work for the statement."""
        self._stopped.set()

    def _guarded(self, function: Callable[..., pa.Array], n: int) -> Callable[..., pa.Array]:
        """Return a function of n arguments that keeps what it raises, and runs on one thread at a time."""

        def call(*arguments: pa.ChunkedArray | pa.Array) -> pa.Array:
            try:
                with self._one_at_a_time:
                    self._advance(0)
                    return function(*(_whole(one) for one in arguments))
            except BaseException as error:
                self._failure = self._failure or error
                raise

        # DuckDB counts the parameters.
        call.__signature__ = Signature([Parameter(f"_{i}", Parameter.POSITIONAL_ONLY) for i in range(n)])  # type: ignore[attr-defined]
        return call

    def _advance(self, _n: int) -> None:
        if self._stopped.is_set():
            raise StoppedError

    def _trace(self, *arguments: pa.Array) -> pa.Array:
        from .live import trace_live
        from .questions import read_ask

        if self._load is None:
            raise SettingsError("this session cannot load a model; ask through Lake.sql")
        rows = [_Asked(*row) for row in _rows(arguments)]
        told: list[pa.Table | None] = [None] * len(rows)
        session = self._beside()
        for settings, places in _alike([row.settings for row in rows]):
            asks = [
                read_ask(
                    {"prompt": _prompt(row.prompt), "target": row.target, "instead": row.instead, "chat": row.chat},
                    origin=f"row {place + 1} of trace()" if len(rows) > 1 else "trace()",
                )
                for place, row in ((place, rows[place]) for place in places)
            ]
            with unbounded():  # a model may be larger than what a query is allowed
                found = trace_live(self._lake, session, asks, settings, load=self._load, progress=self._advance)
            for place, one in zip(places, found, strict=True):
                told[place] = one
        return _lists(told, LIVE_HITS)

    def _proponents(self, *arguments: pa.Array) -> pa.Array:
        return self._side("proponent", arguments)

    def _opponents(self, *arguments: pa.Array) -> pa.Array:
        return self._side("opponent", arguments)

    def _side(self, side: str, arguments: Sequence[pa.Array]) -> pa.Array:
        from dataclasses import replace

        from .live import side_live

        session, told = self._beside(), []
        for name, k, where in _rows(arguments):
            asked = self._scored(name, f"{side}s()")
            settings = replace(asked.settings, k=_number(k), filter=where)
            told.append(side_live(self._lake, session, asked, settings, side=side, progress=self._advance))
        return _lists(told, LIVE_HITS)

    def _influence(self, queries: pa.Array, passages: pa.Array) -> pa.Array:
        import numpy as np
        import pyarrow.compute as pc

        from .influences import scores_of

        session = self._beside()
        scores = np.full(len(queries), np.nan)
        for name in pc.unique(queries).to_pylist():
            if name is None:
                continue
            asked = self._scored(name, "influence()")
            here = pc.and_(pc.fill_null(pc.equal(queries, name), fill_value=False), pc.is_valid(passages))
            scores[here.to_numpy(zero_copy_only=False)] = scores_of(
                self._lake, session.at, asked, passages.filter(here), memo=session.memo, progress=self._advance
            )
        return pa.array(scores, mask=np.isnan(scores))

    def _group_influence(self, *arguments: pa.Array) -> pa.Array:
        from .groups import groups_for_stored

        at, told = self._beside().at, []
        for name, kind in _rows(arguments):
            wanted = GroupSettings(by=kind)
            asked = self._scored(name, "group_influence()")
            found = groups_for_stored(
                self._lake, at, asked.query_id, wanted, asked.settings, encoder_row=asked.encoder_row
            )
            told.append(found.select(GROUPS.names))
            self._advance(0)
        return _lists(told, GROUPS)

    def _compare(self, *arguments: pa.Array) -> pa.Array:
        from .stored import resolve_trace

        session, told = self._beside(), []
        for names in _rows(arguments):
            a, b = (resolve_trace(self._lake, _given(name, "compare()")) for name in names)
            told.append(session.trusted("compare", {"a": a, "b": b}).cast(COMPARED))
        return _lists(told, COMPARED)

    def _scored(self, name: str | None, function: str) -> "Scored":
        from .scored import find_scored

        name = _given(name, function)
        if name not in self._found:
            self._found[name] = find_scored(self._lake, name)
        return self._found[name]


def _given(name: str | None, function: str) -> str:
    if name is None:
        raise InputError(f"{function} got NULL in the place of a trace's or query's id")
    return name


def _prompt(prompt: str | None) -> str:
    if prompt is None:
        raise InputError("trace() got NULL in the place of a prompt")
    return prompt


def _number(k: int | None) -> int:
    if k is None:
        raise SettingsError("k must be a number, not NULL")
    return k


def _whole(argument: pa.ChunkedArray | pa.Array) -> pa.Array:
    return argument.combine_chunks() if isinstance(argument, pa.ChunkedArray) else argument


def _rows(arguments: Sequence[pa.Array]) -> list[tuple[Any, ...]]:
    return list(zip(*(one.to_pylist() for one in arguments), strict=True))


def _alike(settings: Sequence[TraceSettings]) -> Iterator[tuple[TraceSettings, list[int]]]:
    """Yield settings with the places of the rows that have them."""
    places: dict[TraceSettings, list[int]] = {}
    for place, one in enumerate(settings):
        places.setdefault(one, []).append(place)
    yield from places.items()


def _lists(told: Sequence[pa.Table | None], schema: pa.Schema) -> pa.Array:
    """Return tables of one schema as an array with a list of rows for each."""
    tables = [one for one in told if one is not None]
    whole = pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()
    columns = [_whole(column) for column in whole.columns]
    rows = pa.StructArray.from_arrays(columns, fields=list(pa.schema(zip(schema.names, schema.types, strict=True))))
    offsets = [0]
    for one in tables:
        offsets.append(offsets[-1] + one.num_rows)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), rows)
