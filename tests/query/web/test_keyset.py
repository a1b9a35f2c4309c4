"""Pages by the rows that they come after: every row once, whatever is written meanwhile."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import pytest

from proponent.query.web.keyset import Key, Paged, key, read_page
from proponent.query.web.parameters import FieldError

MOST = 4
ORDERS: dict[str, tuple[Key, ...]] = {
    "by number": (key("x", "number", nullable=True), key("id")),
    "by number, falling": (key("x", "number", descending=True, nullable=True), key("id")),
    "by two": (key("x", "number", descending=True, nullable=True), key("day", "date", nullable=True), key("id")),
    "by text": (key("name", nullable=True), key("id")),
    "by time": (key("made", "time", descending=True), key("id")),
}


class Rows:
    """What a page is read from: a table of DuckDB."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("CREATE TABLE t (id TEXT, x DOUBLE, day DATE, name TEXT, made TIMESTAMPTZ)")

    def add(self, ids: range) -> None:
        for n in ids:
            x = None if n % 5 == 0 else float("inf") if n % 7 == 0 else (n % 3) / 3 + 1e-17 * n
            day = None if n % 4 == 0 else f"20{n % 6:02}-01-02"
            name = None if n % 6 == 0 else ["a'b", "", "é", "Z", "a"][n % 5]
            made = f"2020-01-01 00:00:0{n % 4}.{n % 3:06}+00"
            self.connection.execute("INSERT INTO t VALUES (?, ?, ?, ?, ?)", [f"id{n:03}", x, day, name, made])

    def rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.connection.sql(query, params=parameters).to_arrow_table().to_pylist()
        return found

    def page(self, keys: tuple[Key, ...], **place: Any) -> Paged:
        asked = {"after": None, "before": None} | place
        return read_page(self, written, keys, most=MOST, **asked)  # type: ignore[arg-type]  # of which it wants rows

    def pages(self, keys: tuple[Key, ...]) -> Iterator[Paged]:
        page = self.page(keys)
        yield page
        while page.after is not None:
            page = self.page(keys, after=page.after)
            yield page


def written(condition: str, order: str) -> str:
    return f"SELECT * FROM t WHERE {condition} ORDER BY {order}"


def ids(page: Paged) -> list[str]:
    return [row["id"] for row in page.rows]


@pytest.fixture
def table() -> Iterator[Rows]:
    rows = Rows()
    rows.add(range(30))
    yield rows
    rows.connection.close()


@pytest.mark.parametrize("order", ORDERS)
def test_every_row_is_on_one_page_in_either_direction(table: Rows, order: str) -> None:
    keys = ORDERS[order]
    pages = list(table.pages(keys))
    whole = [row["id"] for row in table.rows(written("true", whole_order(keys)))]
    assert [one for page in pages for one in ids(page)] == whole
    assert pages[0].before is None
    page, back = pages[-1], [pages[-1]]
    while page.before is not None:
        page = table.page(keys, before=page.before)
        back.insert(0, page)
    assert ids(back[0]) == whole[:MOST], "the first page is a whole one"
    seen = [one for page in back for one in ids(page)]
    assert sorted(set(seen)) == sorted(whole)
    for page in (*pages, *back):
        assert [row["id"] for row in table.rows(page.shown(written))] == ids(page)


def whole_order(keys: tuple[Key, ...]) -> str:
    return ", ".join(
        f"{one.expression}{' DESC' if one.descending else ''}{' NULLS LAST' if one.nullable else ''}" for one in keys
    )


@pytest.mark.parametrize("order", ORDERS)
def test_rows_that_come_and_go_meanwhile_move_no_other(table: Rows, order: str) -> None:
    keys, seen = ORDERS[order], list[str]()
    page, there = table.page(keys), {row["id"] for row in table.rows("FROM t")}
    added = iter(range(30, 1000, 3))
    while True:
        seen += ids(page)
        if page.after is None:
            break
        last = json.loads(page.after)[-1]
        first = next(added)
        table.add(range(first, first + 3) if len(seen) < 40 else range(0))
        table.connection.execute("DELETE FROM t WHERE id = $id", {"id": last})  # the very row that is gone on from
        page = table.page(keys, after=page.after)
    assert len(seen) == len(set(seen))
    assert there <= set(seen)


@pytest.mark.parametrize(
    "named", ["", "x", "[]", "[1]", "{}", "null", '[true, "id1"]', '["1", "id1"]', "[1, 2]", "[1, null]", "[" * 4000]
)
@pytest.mark.parametrize("field", ["after", "before"])
def test_what_names_no_row_is_refused(table: Rows, field: str, named: str) -> None:
    with pytest.raises(FieldError, match="names no row") as refused:
        table.page(ORDERS["by number"], **{field: named})
    assert refused.value.field == field


def test_a_page_is_not_after_and_before() -> None:
    with pytest.raises(FieldError, match="not both"):
        Rows().page(ORDERS["by text"], after="[]", before="[]")


def test_what_names_a_row_is_only_a_value() -> None:
    rows = Rows()
    rows.add(range(3))
    hostile = json.dumps(["x' OR true --", "'; DROP TABLE t"])
    found = rows.page(ORDERS["by text"], after=hostile)
    assert ids(found) == ["id002", "id000"], "what comes after an x, and what has no name"
