"""The SQL console: rows, charts, files, mistakes, and statements that nobody waits for any more."""

import asyncio
import csv
import io
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proponent.query.web.app import make_app
from proponent.query.web.explorer import N_STATEMENTS, Explorer
from proponent.query.web.pages.sql import Column
from proponent.query.web.plots import Chart, chosen, draw

from .conftest import ADDRESS, Served, client_of

ENDLESS = "SELECT count(*) FROM range(10000000000) a, range(100000) b WHERE a.range + b.range = -1"


def run(ask: Any, query: str, **more: Any) -> Any:
    return ask.get("/sql", params={"query": query, "run": "true", **more})


def test_an_address_runs_only_what_says_so_and_not_for_another_site(ask: Any) -> None:
    query = "SELECT 40 + 2 AS answer"
    assert 'id="rows"' not in ask.get("/sql", params={"query": query}).text
    assert 'id="rows"' in run(ask, query).text
    led = ask.get("/sql", params={"query": query, "run": "true"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert led.status_code == 200
    assert 'id="rows"' not in led.text
    assert "SELECT 40 + 2 AS answer</textarea>" in led.text


def test_rows_are_counted_beyond_those_shown(ask: Any) -> None:
    told = ask.get("/api/sql", params={"query": "SELECT range AS n FROM range(5000)", "run": "true"}).json()["result"]
    assert (len(told["rows"]), told["n_rows"], told["counted"], told["more"]) == (1000, 5000, True, True)
    assert "1,000 of 5,000 rows" in run(ask, "SELECT range AS n FROM range(5000)").text
    assert "No rows." in run(ask, "SELECT 1 AS n WHERE false").text
    assert "more than" in run(ask, "SELECT a.range FROM range(100000000) a, range(1000) b").text


def test_sums_of_integers_are_numbers(ask: Any) -> None:
    query = "SELECT sum(range) AS whole, sum(0.5::DECIMAL(4, 1)) AS part FROM range(10)"
    told = ask.get("/api/sql", params={"query": query, "run": "true"}).json()["result"]
    assert told["rows"] == [[45, 5]]


def test_a_mistake_is_marked_where_it_is(ask: Any) -> None:
    shown = run(ask, "SELECT beta\nFROM hits")
    assert shown.status_code == 422
    assert "SELECT <mark>beta</mark>\nFROM hits" in shown.text
    assert 'data-start="7" data-end="11"' in shown.text
    told = ask.get("/api/sql", params={"query": "SELECT beta\nFROM hits", "run": "true"})
    assert (told.status_code, told.json()["field"], told.json()["place"]) == (400, "query", [7, 11])
    hostile = run(ask, 'SELECT "<script>alert(1)</script>" FROM hits')
    assert "<script>alert" not in hostile.text


def test_no_page_asks_a_model_in_sql(ask: Any) -> None:
    refused = run(ask, "SELECT * FROM trace('Peru. Capital:', ' Lima')")
    assert refused.status_code == 422
    assert "trace() asks the model" in refused.text
    told = ask.get("/api/sql/export", params={"query": "SELECT * FROM trace('Peru. Capital:', ' Lima')"})
    assert told.status_code == 400
    stored = run(ask, "SELECT * FROM proponents((SELECT min(trace_id) FROM traces WHERE method = 'trackstar'), k := 3)")
    assert "3 rows" in stored.text


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "md", "parquet", "arrow", "xlsx"])
def test_all_rows_become_a_file(ask: Any, form: str) -> None:
    query = "SELECT range AS n, '=1+1' AS x FROM range(3000)"
    sent = ask.get("/api/sql/export", params={"query": query, "form": form})
    assert sent.headers["content-disposition"] == f'attachment; filename="lake-rows.{form}"'
    assert int(sent.headers["content-length"]) == len(sent.content)
    assert "no-store" in sent.headers["cache-control"]
    content = io.BytesIO(sent.content)
    if form == "csv":
        rows = list(csv.reader(sent.text.splitlines()))
        assert (len(rows), rows[1]) == (3001, ["0", "'=1+1"]), "a spreadsheet must not run it"
    elif form == "xlsx":
        sheet = openpyxl.load_workbook(content, read_only=True).active
        assert [[cell.data_type for cell in row] for row in sheet.iter_rows(max_row=2)][1] == ["n", "s"]
    elif form == "json":
        assert len(sent.json()) == 3000
    elif form == "parquet":
        assert pq.read_table(content).num_rows == 3000
    elif form == "arrow":
        assert pa.ipc.open_file(content).read_all().num_rows == 3000
    else:
        assert sent.text.count("\n") in {3000, 3002}


def test_a_file_that_fails_is_an_error_and_no_half_file(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = "SELECT CASE WHEN range > 200000 THEN error('too far') ELSE range END AS n FROM range(300000)"
    sent = ask.get("/api/sql/export", params={"query": failing})
    assert (sent.status_code, sent.json()["field"]) == (400, "query")
    assert "too far" in sent.json()["error"]
    assert ask.get("/api/sql/export", params={"query": "SELECT 1", "form": "exe"}).status_code == 400
    from proponent.query.web.pages import sql

    monkeypatch.setattr(sql, "MOST_BYTES", 1000)
    sent = ask.get("/api/sql/export", params={"query": "SELECT range FROM range(5000)"})
    assert "more than 1,000 bytes" in sent.json()["error"]


@pytest.mark.parametrize(
    ("columns", "given", "drawn"),
    [
        ([("source", "string"), ("n", "int64")], {}, ("bar", "source", "n")),
        ([("day", "date32[day]"), ("n", "int64")], {"x": "day"}, ("line", "day", "n")),
        ([("rank", "int32"), ("score", "double")], {}, ("scatter", "rank", "score")),
        ([("rank", "int32"), ("score", "double")], {"kind": "line"}, ("line", "rank", "score")),
        ([("a", "double"), ("b", "double")], {"x": "b", "y": "a"}, ("scatter", "b", "a")),
        ([("n", "decimal128(38, 0)")], {}, ("bar", "n", "n")),
        ([("source", "string"), ("n", "int64")], {"x": "nothing", "y": "source"}, ("bar", "source", "n")),
        ([("source", "string")], {}, None),
        ([("source", "string"), ("n", "int64")], {"kind": "none"}, None),
    ],
)
def test_a_chart_has_sensible_axes(columns: Any, given: dict[str, str], drawn: tuple[str, str, str] | None) -> None:
    found = chosen(columns, given.get("kind"), given.get("x"), given.get("y"))
    assert (found and (found.kind, found.x, found.y)) == drawn


@pytest.mark.parametrize("kind", ["bar", "line", "scatter"])
@pytest.mark.parametrize(
    "rows",
    [
        [[1, 2.0], [3, 4.0]],
        [[1, 5.0]],
        [["a<b", -1.0], ["c", None], [None, 1e300]],
        [["2020-01-31", 1], ["2021-12-01 10:00:00+00:00", 2], ["no day", 3]],
        [[1, "nan"], [2, "inf"]],
        [],
    ],
)
def test_any_rows_can_be_drawn(kind: Any, rows: list[list[Any]]) -> None:
    for of_x in ("int64", "string", "date32[day]"):
        columns = [Column(name="x", type=of_x), Column(name="y", type="double")]
        svg = str(draw(Chart(kind=kind, x="x", y="y"), columns, rows))
        assert not re.search(r'="[^"]*(nan|inf)', svg)
        assert "style=" not in svg
        assert "a<b" not in svg


def test_axes_are_chosen_by_the_address(ask: Any) -> None:
    query = "SELECT range AS n, range * range AS squared FROM range(20)"
    assert "<polyline" in run(ask, query, chart="line", x="n", y="squared").text
    assert "<polyline" not in run(ask, query, chart="scatter").text
    assert 'class="chart"' not in run(ask, query, chart="none").text


def test_words_complete_a_statement(ask: Any) -> None:
    told = ask.get("/api/sql/words", params={"before": "SELECT h.ra", "after": " FROM hits h"}).json()
    assert told["word"] == "h.ra"
    assert {"text": "h.rank", "what": "column"} in told["completions"]
    shown = ask.get("/sql/words", params={"find": "list_cont"}).text
    assert "<code>list_contains</code>" in shown
    assert "No function has this" in ask.get("/sql/words", params={"find": "no such"}).text


def test_a_statement_that_nobody_waits_for_is_stopped(explorer: Explorer) -> None:
    """The reader goes away, as a browser does whose tab is closed; the statement would go on for 20 s."""

    async def leave() -> float:
        left = asyncio.Event()
        asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Any:
            for message in asked:
                return message
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(_message: Any) -> None:
            return

        scope = {
            **{"type": "http", "method": "GET", "path": "/api/sql", "raw_path": b"/api/sql", "http_version": "1.1"},
            **{"query_string": f"query={ENDLESS}&run=true".replace(" ", "%20").replace("+", "%2B").encode()},
            **{"headers": [(b"host", ADDRESS.removeprefix("http://").encode())], "client": ("127.0.0.1", 1)},
            **{"scheme": "http", "server": ("127.0.0.1", 8321)},
        }
        answering = asyncio.create_task(make_app(explorer)(scope, receive, send))
        while not any(thread.name == "statement" for thread in threading.enumerate()):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert not answering.done()
        left.set()
        began = time.monotonic()
        await asyncio.wait_for(answering, 15)
        return time.monotonic() - began

    asyncio.run(leave())
    assert not any(thread.name == "statement" for thread in threading.enumerate())


def test_slow_statements_keep_no_page_waiting_and_end_with_the_server(make_explorer: Callable[..., Explorer]) -> None:
    explorer = make_explorer()
    slow = [threading.Thread(target=run, args=(client_of(explorer), ENDLESS)) for _ in range(4)]
    for thread in slow:
        thread.start()
    while explorer.statements._n_out < N_STATEMENTS:
        time.sleep(0.02)
    client = client_of(explorer)
    for path in ("/", "/status", "/sql", "/compare"):
        assert client.get(path).status_code == 200
    assert any(thread.is_alive() for thread in slow), "the pages came first"
    explorer.close()
    for thread in slow:
        thread.join(15)
    assert not any(thread.is_alive() for thread in slow)


def test_somebody_writes_runs_and_mends_a_statement(browse: Callable[..., Any]) -> None:
    page = browse("/sql")
    editor = page.get_by_label("One SELECT of DuckDB over the lake")
    editor.press_sequentially("SELECT side, count(*) AS n FROM hi")
    page.get_by_role("option", name="hits relation").wait_for()
    page.keyboard.press("Tab")
    assert editor.input_value().endswith("FROM hits")
    editor.press_sequentially(" GROUP BY sid_")
    page.keyboard.press("Control+Enter")
    page.get_by_text("It has a mistake.").wait_for()
    assert page.evaluate("document.getSelection().toString()") in {"sid_", ""}
    start, end = page.evaluate("[document.activeElement.selectionStart, document.activeElement.selectionEnd]")
    assert editor.input_value()[start:end] == "sid_"
    page.keyboard.insert_text("side")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Enter")
    page.get_by_role("heading", name="2 rows").wait_for()
    assert "run=true" in page.url
    assert page.locator("#result svg.chart").count() == 1
    assert page.get_by_role("button", name="GROUP BY side").count() == 1, "it is remembered in this tab"
    page.reload()
    assert page.get_by_role("heading", name="2 rows").is_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "lake-rows.csv"


def test_somebody_cancels_a_statement(browse: Callable[..., Any], served: Served) -> None:
    page = browse("/sql")
    page.get_by_label("One SELECT of DuckDB over the lake").fill(ENDLESS)
    page.keyboard.press("Control+Enter")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled.").wait_for()
    for _ in range(600):
        if not served.explorer.statements._n_out:
            break
        time.sleep(0.02)
    assert served.explorer.statements._n_out == 0


def test_a_cell_is_copied_whole(browse: Callable[..., Any], served: Served) -> None:
    long = "repeat('ab ', 300) || chr(8238) || '\"<i>' AS long"
    query = f"SELECT {long}, 7 AS n, repeat('x', 30000) AS longer, ['\"'] AS l"
    page = browse("/sql", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_label("One SELECT of DuckDB over the lake").fill(query)
    page.keyboard.press("Control+Enter")
    page.get_by_role("heading", name="1 row").wait_for()
    copied = "navigator.clipboard.readText()"
    cells = page.locator("#result tbody td")
    cells.nth(0).hover()
    page.get_by_role("button", name="Copy the cell of long", exact=True).click()
    page.get_by_text("The cell is copied.").wait_for()
    assert page.evaluate(copied) == "ab " * 300 + '\u202e"<i>'
    cells.nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Copy the cell of n"
    page.keyboard.press("Enter")
    page.wait_for_function("navigator.clipboard.readText().then((text) => text === '7')")
    cells.nth(3).hover()
    page.get_by_role("button", name="Copy the cell of l", exact=True).click()
    page.wait_for_function("""navigator.clipboard.readText().then((text) => text === '["\\\\""]')""")
    cells.nth(2).hover()
    page.get_by_role("button", name="Copy the cell of longer").click()
    page.get_by_text("too long").wait_for()


def test_the_console_works_without_scripts(browse: Callable[..., Any]) -> None:
    page = browse("/sql", java_script_enabled=False)
    page.get_by_role("link", name="The corpus by source and year.").click()
    page.get_by_role("button", name="Run").click()
    assert page.locator("#result table.rows tbody tr").count() > 1
    page.locator("select[name=chart]").select_option("scatter")
    page.get_by_role("button", name="Draw").click()
    assert page.locator("#result svg circle").count() > 1
