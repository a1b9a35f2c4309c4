"""Two traces side by side, and the way to the second one."""

from collections.abc import Callable
from typing import Any

import pytest

from proponent.lake import Lake
from proponent.query.web.explorer import Explorer
from proponent.query.web.traced import weigh, weighed

from .conftest import job_of


@pytest.fixture(scope="module")
def pair(web_lake: Lake) -> tuple[str, str]:
    """Traces of one question with and without a curvature."""
    asked = [{"prompt": "Aruba. Capital:", "target": " Oranjestad"}]
    [a] = web_lake.trace_all(asked, k=12, encoder="factbook")
    [b] = web_lake.trace_all(asked, k=12, encoder="factbook", curvature="identity")
    return a, b


def test_rows_are_joined_by_passage_as_sql_joins_them(ask: Any, web_lake: Lake, pair: tuple[str, str]) -> None:
    a, b = pair
    told = ask.get("/api/compare", params={"a": a, "b": b}).json()
    joined = web_lake.sql(f"SELECT * FROM compare('{a}', '{b}')").to_dicts()
    rows = {row["passage_id"]: row for row in told["rows"]}
    assert len(rows) == min(25, told["n_rows"])
    checked = 0
    for row in joined:
        shown = rows.get(row["passage_id"])
        if shown is None:
            continue
        for side, rank, score, z_score in (
            ("a", row["rank_a"], row["score_a"], row["z_score_a"]),
            ("b", row["rank_b"], row["score_b"], row["z_score_b"]),
        ):
            place = shown[side]
            if rank is not None:
                assert (place["side"], place["rank"]) == (row["side"], rank)
                assert place["score"] == pytest.approx(score)
                assert place["z_score"] == pytest.approx(z_score)
        if row["rank_change"] is not None:
            assert shown["moved"] == -row["rank_change"]
        assert shown["text"] == row["text"]
        checked += 1
    assert checked >= len(rows)
    [ten] = [one for one in told["agreement"]["overlaps"] if (one["side"], one["n"]) == ("proponent", 10)]
    listed = [row for row in joined if row["side"] == "proponent" and row["rank_a"] and row["rank_b"]]
    assert ten["shared"] == sum(row["rank_a"] <= 10 and row["rank_b"] <= 10 for row in listed)


@pytest.mark.parametrize("sort", ["a", "b", "change"])
@pytest.mark.parametrize("only", [None, "both", "a", "b"])
@pytest.mark.parametrize("side", [None, "opponent"])
def test_the_statement_gives_the_rows(
    ask: Any, pair: tuple[str, str], sort: str, only: str | None, side: str | None
) -> None:
    params = {"a": pair[0], "b": pair[1], "sort": sort, "only": only or "", "side": side or ""}
    told = ask.get("/api/compare", params=params).json()
    rows = ask.get("/api/sql", params={"query": told["statement"], "run": "true"}).json()["result"]["rows"]
    crossed = sum(bool(row["a"] and row["b"]) and row["a"]["side"] != row["b"]["side"] for row in told["rows"])
    if not crossed and side is None:
        assert len(rows) == told["n_rows"]
        ranks = [[row[one] and row[one]["rank"] for one in ("a", "b")] for row in told["rows"]]
        if sort == "change":
            moves = [abs(row["moved"]) for row in told["rows"] if row["moved"] is not None]
            assert moves == sorted(moves, reverse=True)
        else:
            assert ranks[:8] == [row[1:3] for row in rows[:8]]
    shown = ask.get("/compare", params=params)
    assert shown.status_code == 200
    assert f"{told['n_rows']} passage" in shown.text


def test_the_second_is_asked_for_and_found_again(ask: Any, explorer: Explorer, pair: tuple[str, str]) -> None:
    a = pair[0]
    missing = ask.get("/compare", params={"a": a, "beside": "bm25"})
    assert "was not asked by bm25 yet" in missing.text
    job = job_of(explorer, ask.post("/api/compare", json={"a": a, "method": "bm25"}))
    assert job.state == "done", job.error
    assert job.url is not None
    assert job.url.startswith(f"/compare?a={a}&b=")
    told = ask.get(f"/api{job.url}").json()
    assert told["agreement"]["same_question"]
    assert (told["a"]["method"], told["b"]["method"], told["b"]["k"]) == ("trackstar", "bm25", 12)
    assert "different scales" in told["agreement"]["told"]
    found = ask.get("/compare", params={"a": a, "beside": "bm25"})
    assert (found.status_code, found.headers["location"]) == (303, job.url)
    assert "Score in B" in ask.get(job.url).text


def test_the_picker_lists_the_same_question_first(ask: Any, pair: tuple[str, str]) -> None:
    told = ask.get("/api/compare", params={"a": pair[0]}).json()
    assert told["traces"][0]["query_id"] == told["a"]["query_id"]
    assert pair[0] not in {one["trace_id"] for one in told["traces"]}
    second = ask.get("/api/compare", params={"a": pair[0], "after": told["after"]}).json()
    assert second["traces"]
    back = ask.get("/api/compare", params={"a": pair[0], "before": second["before"]}).json()
    assert back["traces"] == told["traces"]
    assert not {one["trace_id"] for one in told["traces"]} & {one["trace_id"] for one in second["traces"]}
    shown = ask.get("/compare", params={"b": pair[1]}).text
    assert "Choose A" in shown
    assert "same question" in shown
    assert "No question has this" in ask.get("/compare", params={"find": "no such question"}).text


def test_what_cannot_be_compared_is_told(ask: Any, pair: tuple[str, str]) -> None:
    assert "the same trace" in ask.get("/api/compare", params={"a": pair[0], "b": pair[0]}).json()["error"]
    assert ask.get("/compare", params={"a": "zzzz"}).status_code == 404
    refused = ask.post("/compare", data={"a": pair[0], "method": "magic"})
    assert refused.status_code == 422
    assert "must be one of" in refused.text
    assert ask.get("/compare", params={"a": pair[0], "b": pair[1], "page": 99}).status_code == 200


def test_a_kept_page_is_made_anew_when_documents_are_withdrawn(
    ask: Any, explorer: Explorer, web_lake: Lake, pair: tuple[str, str]
) -> None:
    address = {"a": pair[0], "b": pair[1]}
    before = ask.get("/api/compare", params=address)
    web_lake.trace("Peru. Capital:", " Lima", k=2, encoder="factbook")
    assert ask.get("/api/compare", params=address).headers["etag"] == before.headers["etag"], "kept"
    row = before.json()["rows"][-1]
    weigh(explorer, pair[0])
    assert weighed(explorer, pair[0]) is not None
    web_lake.delete(f"doc_id = '{row['doc_id']}'", reason="test")
    after = ask.get("/api/compare", params=address).json()
    assert row["passage_id"] not in {one["passage_id"] for one in after["rows"]}
    assert weighed(explorer, pair[0]) is None, "they counted what is withdrawn"


def test_somebody_puts_words_beside_influence(browse: Callable[..., Any], pair: tuple[str, str]) -> None:
    page = browse(f"/compare?a={pair[1]}")
    page.locator("select[name=method]").select_option("bm25")
    page.get_by_role("button", name="Ask and compare").click()
    page.wait_for_url("**/compare?a=*&b=*")
    assert page.get_by_role("heading", name="How far they agree").is_visible()
    page.locator("select[name=only]").select_option("both")
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_url("**only=both*")
    assert all(rank.isdecimal() for rank in page.locator(".rank-cell").all_inner_texts())
    page.get_by_role("link", name="Swap A and B").click()
    assert page.locator("#trace-b").inner_text().startswith("B")
    page.get_by_text("Show SQL").click()
    page.get_by_role("link", name="Open it in the SQL page").click()
    page.wait_for_url("**/sql?query=*")
