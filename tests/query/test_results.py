"""A result is the same rows in every form."""

from datetime import date

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from proponent.query.results import Result

ROWS = [
    {"name": "a", "day": date(2020, 1, 1), "score": 0.5, "entities": ["x", "y"]},
    {"name": None, "day": None, "score": None, "entities": []},
]


@pytest.fixture
def result() -> Result:
    return Result(pa.Table.from_pylist(ROWS))


def test_every_form_has_the_same_rows(result: Result) -> None:
    assert result.columns == list(ROWS[0])
    assert len(result) == 2
    assert result.to_dicts() == result.to_arrow().to_pylist() == result.to_polars().to_dicts() == ROWS
    assert result.to_pandas()["day"].tolist()[0] == date(2020, 1, 1)
    assert [row._asdict() for row in result] == ROWS
    assert isinstance(result.to_pandas(), pd.DataFrame)


def test_arrow_readers_take_it_as_it_is(result: Result) -> None:
    assert pa.table(result).to_pylist() == ROWS
    assert pa.RecordBatchReader.from_stream(result).read_all().to_pylist() == ROWS
    assert pl.DataFrame(result).to_dicts() == ROWS


def test_rows_are_named_tuples_that_can_be_iterated_again(result: Result) -> None:
    assert [row.name for row in result] == [row[0] for row in result] == ["a", None]


def test_columns_that_are_no_identifiers_are_called_by_their_place() -> None:
    result = Result(pa.table({"count(*)": [1], "class": [2], "fine": [3]}))
    (row,) = result
    assert (row._0, row._1, row.fine) == (1, 2, 3)


def test_repeated_names_are_told_apart_in_every_form() -> None:
    result = Result(pa.Table.from_arrays([pa.array([n]) for n in range(4)], names=["a", "a", "a_1", "a"]))
    assert result.columns == ["a", "a_1", "a_1_1", "a_2"]
    assert result.to_dicts() == result.to_polars().to_dicts() == [{"a": 0, "a_1": 1, "a_1_1": 2, "a_2": 3}]
    assert result._repr_html_().count("<td>") == 4
    assert next(iter(result)) == (0, 1, 2, 3)


def test_html_escapes_names_and_values() -> None:
    html = Result(pa.table({"<b>&": ['<script>alert("1")</script>', None]}))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(&quot;1&quot;)" in html
    assert "<th>&lt;b&gt;&amp;</th>" in html


def test_html_shows_the_first_rows_and_counts_the_rest() -> None:
    html = Result(pa.table({"n": list(range(250))}))._repr_html_()
    assert html.count("<td>") == 100
    assert "150 more rows" in html
    assert "more rows" not in Result(pa.table({"n": [1]}))._repr_html_()


def test_an_empty_result_is_a_result_in_every_form() -> None:
    empty = Result(pa.table({"n": pa.array([], pa.int64())}))
    assert (len(empty), list(empty), empty.to_dicts(), empty.to_polars().height, len(empty.to_pandas())) == (
        0,
        [],
        [],
        0,
        0,
    )
    assert "<th>n</th>" in empty._repr_html_()
    assert repr(empty) == "<Result: 0 rows of n>"
