"""Every page as HTML and as JSON, from the same parameters; what is asked, and what is refused."""

import threading
from asyncio import run, sleep
from collections.abc import Callable
from typing import Any

import pytest

from proponent.query.web.app import make_app
from proponent.query.web.explorer import Explorer
from proponent.query.web.pages import ACTIONS, PAGES

from .conftest import client_of, job_of

PLAIN = [page for page in PAGES if "{" not in page.path and page.name != "random_query"]  # which leads elsewhere


@pytest.mark.parametrize("page", PLAIN, ids=lambda page: page.name)
def test_every_page_has_its_twin(ask: Any, page: Any) -> None:
    shown, told = ask.get(page.path), ask.get(f"/api{page.path}")
    assert shown.status_code == told.status_code == 200
    assert shown.headers["content-type"].startswith("text/html")
    assert told.headers["content-type"] == "application/json"
    assert f'href="/api{page.path}"' in shown.text


def test_a_question_becomes_a_result(ask: Any, explorer: Explorer) -> None:
    asked = {"prompt": "Peru. Capital:", "target": " Lima", "k": 3, "encoder": "factbook"}
    job = job_of(explorer, ask.post("/api/traces", json=asked))
    assert (job.state, job.n_done) == ("done", job.n_total)
    told = ask.get(f"/api{job.url}").json()["query"]
    assert (told["prompt"], told["target"], told["k"]) == ("Peru. Capital:", " Lima", 3)
    assert [hit["rank"] for hit in told["proponents"]] == [1, 2, 3]
    assert told["proponents"][0]["text"] == "Peru. Capital: Lima"
    moved = ask.get(f"/jobs/{job.job}")
    assert (moved.status_code, moved.headers["location"]) == (303, job.url)
    page = ask.get(job.url).text
    assert "Proponents" in page
    assert "Opponents" in page
    assert job.url.rpartition("/")[2] in ask.get("/").text


def test_events_tell_of_a_job_until_it_ends(ask: Any, explorer: Explorer) -> None:
    answer = ask.post("/api/traces", json={"prompt": "Kenya. Capital:", "target": " Nairobi", "k": 2})
    events = ask.get(f"/api/jobs/{answer.json()['job']}/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    assert events.text.count("event: job\n") >= 2
    assert '"state":"done"' in events.text.strip().splitlines()[-1]


def test_the_model_completes(ask: Any, explorer: Explorer) -> None:
    job = job_of(explorer, ask.post("/api/completions", json={"prompt": "Peru. Capital:"}))
    assert job.value == " Lima"
    assert ask.get(job.url).text.count("\n Lima</textarea>") == 1


def test_a_cancelled_job_stores_nothing(ask: Any, explorer: Explorer) -> None:
    stored = ask.get("/api/status").json()["traces"]
    answer = ask.post("/api/traces", json={"prompt": "Chad. Capital:", "target": " N'Djamena", "k": 7})
    cancelled = ask.post(f"/jobs/{answer.json()['job']}/cancel", data={"why": ""})
    assert cancelled.status_code == 303
    job = job_of(explorer, answer)
    assert job.state == "cancelled"
    assert "was cancelled" in ask.get(f"/jobs/{job.job}").text
    assert ask.get("/api/status").json()["traces"] == stored


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"prompt": "a", "filter": "source ="}, "filter", "cannot be read"),
        ({"prompt": "a", "k": "many"}, "k", "int"),
        ({"prompt": "a", "k": "0"}, "k", ">= 1"),
        ({"target": ""}, "prompt", "write a prompt"),
        ({"prompt": "a", "method": "magic"}, "method", "must be one of"),
        ({"prompt": "a", "encoder": "other"}, "encoder", "there is no encoder"),
        ({"prompt": "a", "curvature": "other"}, "curvature", "there is no curvature"),
        ({"prompt": "a", "method": "bm25"}, "target", "needs a target"),
        ({"prompt": "a", "target": "b", "instead": "b"}, "instead", "compared with"),
    ],
)
def test_what_is_wrong_stands_beside_its_field(ask: Any, fields: dict[str, str], field: str, told: str) -> None:
    shown = ask.post("/traces", data=fields)
    assert shown.status_code == 422
    place = shown.text.index(f'id="{field}-told"')
    assert told in shown.text[place : shown.text.index("</p>", place)].replace("&gt;", ">")
    for name, value in fields.items():  # what was typed is still there
        assert value in shown.text, name
    sent = {name: int(value) if value.isdecimal() else value for name, value in fields.items()}
    refused = ask.post("/api/traces", json=sent)
    assert 400 <= refused.status_code < 500
    assert refused.json()["field"] == field


def test_an_address_fills_the_form_and_asks_nothing(ask: Any, explorer: Explorer) -> None:
    n_known = len(explorer.jobs._known)
    shown = ask.get("/", params={"prompt": "<b>Peru</b>\n\nCapital:", "target": " Lima", "k": 7, "method": "gradcos"})
    assert "\n&lt;b&gt;Peru&lt;/b&gt;\n\nCapital:</textarea>" in shown.text
    assert '<option value="gradcos" selected>' in shown.text
    assert len(explorer.jobs._known) == n_known


def test_an_unknown_field_is_passed_over_in_a_page_and_refused_by_the_api(ask: Any) -> None:
    assert ask.get("/?utm_source=x").status_code == 200
    refused = ask.get("/api/?utm_source=x")
    assert refused.status_code == 400
    assert "there is no parameter 'utm_source'" in refused.json()["error"]
    assert ask.post("/api/sql", json={"query": "SELECT 1", "limit": 3}).json()["field"] == "limit"


def test_sql_runs_one_select_and_names_what_is_wrong(ask: Any) -> None:
    query = "SELECT source, count(*) AS n FROM documents GROUP BY source ORDER BY n DESC"
    shown = ask.post("/sql", data={"query": query})
    told = ask.post("/api/sql", json={"query": query}).json()["result"]
    assert [column["name"] for column in told["columns"]] == ["source", "n"]
    assert f'<td class="n">{told["rows"][0][1]}</td>' in shown.text
    assert not ask.post("/api/sql", json={"query": query}).json()["result"]["more"]
    many = ask.post("/api/sql", json={"query": "SELECT * FROM range(3000)"}).json()["result"]
    assert (len(many["rows"]), many["more"]) == (1000, True)
    for wrong in (
        "DROP VIEW documents",
        "SELECT nope FROM documents",
        "SELECT * FROM read_text('/etc/passwd')",
        " ",
    ):
        assert ask.post("/api/sql", json={"query": wrong}).status_code == 400, wrong
        assert ask.post("/sql", data={"query": wrong}).status_code == 422, wrong
    assert "count(*) AS n" in ask.get("/sql", params={"query": query}).text
    assert "<tbody>\n    <tr><td" not in ask.get("/sql", params={"query": query}).text, "an address runs nothing"


def test_values_that_json_does_not_have(ask: Any) -> None:
    query = "SELECT 'NaN'::DOUBLE, 'x'::BLOB, DATE '2001-02-03', 1.5::DECIMAL(4, 2), INTERVAL 1 DAY, {'a': [NULL]}"
    rows = ask.post("/api/sql", json={"query": query}).json()["result"]["rows"]
    assert rows[0][0] == "nan"
    assert rows[0][2] == "2001-02-03"
    assert rows[0][5] == {"a": [None]}
    assert ask.post("/sql", data={"query": query}).status_code == 200


def test_a_page_that_is_known_is_not_sent_again(ask: Any) -> None:
    first = ask.get("/api/status")
    again = ask.get("/api/status", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_what_one_reader_asks_for_is_kept_for_nobody_else(explorer: Explorer) -> None:
    def page(query: bytes) -> bytes:
        """Ask as the server does; clients do not send a # that is no part of a value."""
        sent: list[Any] = []
        asked: list[Any] = [{"type": "http.request", "body": b""}]

        async def receive() -> Any:
            return asked.pop() if asked else await sleep(60)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": query}
        scope |= {"scheme": "http", "root_path": "", "headers": [(b"host", b"127.0.0.1")], "client": None}
        run(make_app(explorer)(scope, receive, send))
        return b"".join(message.get("body", b"") for message in sent)

    assert b"Of somebody else" in page(b"#&prompt=Of+somebody+else")
    assert b"Of somebody else" not in page(b"")


def test_files_are_cached_for_ever_under_names_of_their_content(ask: Any) -> None:
    page = ask.get("/").text
    names = {part.split('"')[0] for part in page.split('="/static/')[1:]}
    assert len(names) >= 4
    for name in names:
        sent = ask.get(f"/static/{name}")
        assert sent.status_code == 200
        assert "immutable" in sent.headers["cache-control"]
    assert ask.get("/static/explorer.css").status_code == 404
    assert ask.get("/static/..%2fapp.py").status_code == 404


def test_what_is_not_there_is_told_with_the_remedy(ask: Any) -> None:
    for path, told in (("/nothing", "no such page"), ("/traces/zzzz", "no trace"), ("/jobs/none", "no such job")):
        page, twin = ask.get(path), ask.get(f"/api{path}")
        assert page.status_code == twin.status_code == 404
        assert told in page.text
        assert told in twin.json()["error"]
        assert twin.json()["status"] == 404
    assert ask.delete("/api/status").status_code == 405
    assert ask.put("/traces/last", data={}).status_code == 405


def test_a_new_snapshot_is_seen_by_the_next_page(ask: Any, explorer: Explorer) -> None:
    before = ask.get("/api/status").json()
    job = job_of(explorer, ask.post("/api/traces", json={"prompt": "Cuba. Capital:", "target": " Havana", "k": 2}))
    after = ask.get("/api/status").json()
    assert after["snapshot"] > before["snapshot"]
    assert after["traces"] == before["traces"] + 1
    assert ask.get("/api/").json()["traces"][0]["trace_id"] == job.url.rpartition("/")[2]


def test_read_only_takes_no_questions(make_explorer: Callable[..., Explorer]) -> None:
    ask = client_of(make_explorer(read_only=True))
    refused = ask.post("/api/traces", json={"prompt": "a", "target": "b"})
    assert refused.status_code == 403
    assert "--read-only" in refused.json()["error"]
    assert 'id="ask"' not in ask.get("/").text
    assert ask.post("/api/sql", json={"query": "SELECT 1"}).status_code == 200


def test_a_full_queue_says_so(make_explorer: Callable[..., Explorer]) -> None:
    explorer = make_explorer(waiting=1)
    ask = client_of(explorer)
    begun, over = threading.Event(), threading.Event()

    def held(_job: Any) -> tuple[None, None]:
        begun.set()
        assert over.wait(60)
        return None, None

    explorer.jobs.add("test", "a long one", held)
    assert begun.wait(60)
    try:
        waiting, full = (ask.post("/api/completions", json={"prompt": f"Peru {n}"}) for n in range(2))
        assert waiting.status_code == 202
        assert full.status_code == 503
        assert "waiting already" in full.json()["error"]
        assert full.headers["retry-after"]
        explorer.jobs.cancel(waiting.json()["job"])
    finally:
        over.set()


def test_names_of_pages_and_actions_are_their_own() -> None:
    names = [one.name for one in (*PAGES, *ACTIONS)]
    assert len(set(names)) == len(names)
    assert len({page.path for page in PAGES}) == len(PAGES)
    assert len({action.path for action in ACTIONS}) == len(ACTIONS)
