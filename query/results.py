"""What a SQL query returns: all its rows, or a stream of them."""

import weakref
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from html import escape
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from proponent.schema.errors import SqlError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl


class Result:
    """Rows in Arrow memory, in whatever form a caller wants them."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.rename_columns(_distinct(table.column_names))

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._table.column_names)

    def to_arrow(self) -> pa.Table:
        """Return the rows as a pyarrow Table."""
        return self._table

    def to_pandas(self) -> "pd.DataFrame":
        """Return the rows as a pandas DataFrame (pandas must be installed)."""
        return self._table.to_pandas()

    def to_polars(self) -> "pl.DataFrame":
        """Return the rows as a polars DataFrame (polars must be installed)."""
        import polars as pl

        frame = pl.from_arrow(self._table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries."""
        return list(self._table.to_pylist())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Hand the rows to any library that reads Arrow streams."""
        return self._table.__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows as named tuples; a column whose name is no identifier is called by its place, `_0`."""
        return _tuples(self.columns, [self._table])

    def __repr__(self) -> str:
        return f"<Result: {len(self)} rows of {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        """Return an HTML table of the first rows, for notebooks."""
        shown = 100
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in row.values()) + "</tr>"
            for row in self._table.slice(0, shown).to_pylist()
        )
        more = f"<p>{len(self) - shown} more rows</p>" if len(self) > shown else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


class Stream:
    """Rows of a query while it runs: read once, in order, in the memory of a few batches. Use it in a with block.

    It has a connection of its own, so other queries may run meanwhile, and it stays readable when its session or lake
    is closed. It closes itself after the last row and after an error, which SqlError names.
    """

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], *, close: Callable[[], object]) -> None:
        self.schema = pa.schema(
            [field.with_name(name) for field, name in zip(schema, _distinct(schema.names), strict=True)]
        )
        self._unread: Iterator[pa.RecordBatch] | None = batches
        # A forgotten stream closes itself: DuckDB prints a leak for what is open when Python ends.
        self._close = weakref.finalize(self, close)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows as record batches. Raises SqlError where a row fails, and when they were read before."""
        batches, self._unread = self._unread, None
        if batches is None:
            raise SqlError("a stream is read once, and not after it is closed; ask again")
        return self._read(batches)

    def _read(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                yield batch.rename_columns(self.columns)
        finally:
            self.close()

    def close(self) -> None:
        """End the query, whatever of it was read."""
        self._unread = None
        self._close()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows as named tuples, as those of a Result."""
        return _tuples(self.columns, self.batches())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Hand the rows to any library that reads Arrow streams, as they come."""
        reader = pa.RecordBatchReader.from_batches(self.schema, self.batches())
        return reader.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"<Stream of {', '.join(self.columns)}>"


def _tuples(names: list[str], pieces: Iterable[pa.Table | pa.RecordBatch]) -> Iterator[Any]:
    row = namedtuple("Row", names, rename=True)  # type: ignore[misc]
    for piece in pieces:
        columns = [column.to_pylist() for column in piece.columns]
        for values in zip(*columns, strict=True):
            yield row(*values)


def _distinct(names: list[str]) -> list[str]:
    """Return the names, repeated ones numbered as in a subquery (`a`, `a_1`): a dictionary keeps one of each name."""
    taken: set[str] = set()
    distinct = []
    for name in names:
        candidates = chain([name], (f"{name}_{number}" for number in count(1)))
        distinct.append(next(candidate for candidate in candidates if candidate not in taken))
        taken.add(distinct[-1])
    return distinct
