"""What a SQL query returns."""

from collections import namedtuple
from collections.abc import Iterator
from html import escape
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import pyarrow as pa

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
        row = namedtuple("Row", self.columns, rename=True)  # type: ignore[misc]
        columns = [column.to_pylist() for column in self._table.columns]
        for values in zip(*columns, strict=True):
            yield row(*values)

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


def _distinct(names: list[str]) -> list[str]:
    """Return the names, repeated ones numbered as in a subquery (`a`, `a_1`): a dictionary keeps one of each name."""
    taken: set[str] = set()
    distinct = []
    for name in names:
        candidates = chain([name], (f"{name}_{number}" for number in count(1)))
        distinct.append(next(candidate for candidate in candidates if candidate not in taken))
        taken.add(distinct[-1])
    return distinct
