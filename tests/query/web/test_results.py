"""The list of hits: what is chosen of it, its order, and what SQL says; searching again; tokens; whole sources."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from proponent.lake import Lake
from proponent.query.web.explorer import Explorer
from proponent.query.web.histogram import histogram
from proponent.query.web.listing import Chosen, facets, ordered, select
from proponent.query.web.traced import Listed

from .conftest import client_of, job_of

SIDES = ("proponents", "opponents")


@pytest.fixture(scope="module")
def trace(ask: Any, explorer: Explorer) -> str:
    """A trace of some length."""
    asked = {"prompt": "Peru. Currency:", "target": " nuevo soles", "k": 30, "encoder": "factbook"}
    return str(job_of(explorer, ask.post("/api/traces", json=asked)).url)


def shown(told: dict[str, Any]) -> list[tuple[str, int]]:
    return [(side[:-1], hit["rank"]) for side in SIDES for hit in told["query"][side]]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"sort": "newest"},
        {"sort": "oldest", "per": 7, "page": 2},
        {"sort": "source", "per": 100},
        {"source": ["Economy", "O'Hara\n--"], "per": 100},
        {"entity": ["Peru", "Chile"], "per": 100},
        {"since": "2020", "until": "2024-06", "sort": "oldest"},
        {"source": ["Economy", "Government"], "entity": ["Peru"], "since": "1800"},
        {"no_source": "true"},
        {"page": 900},
    ],
)
def test_a_list_is_what_its_sql_says(ask: Any, trace: str, asked: dict[str, Any]) -> None:
    told = ask.get(f"/api{trace}", params=asked).json()
    rows = ask.post("/api/sql", json={"query": told["sql"]}).json()["result"]["rows"]
    assert shown(told) == [(row[0], row[1]) for row in rows]
    page = ask.get(trace, params=asked).text
    assert page.count('<article class="hit"') == len(rows)


def test_facets_count_the_whole_list_whatever_is_chosen(ask: Any, trace: str) -> None:
    whole = ask.get(f"/api{trace}").json()
    some = ask.get(f"/api{trace}?source=Economy").json()
    plain = [{**one, "chosen": False} for one in some["facets"]["sources"]]
    assert plain == whole["facets"]["sources"]
    economy = next(one for one in some["facets"]["sources"] if one["value"] == "Economy")
    assert economy["chosen"]
    assert (some["chosen_proponents"], some["chosen_opponents"]) == (economy["n_proponents"], economy["n_opponents"])
    assert sum(one["n_proponents"] for one in whole["facets"]["sources"]) == whole["n_proponents"] == 30
    dated = sum(one["n_proponents"] + one["n_opponents"] for one in whole["facets"]["times"])
    assert dated + whole["facets"]["n_undated"] == whole["n_proponents"] + whole["n_opponents"]
    page = ask.get(f"{trace}?source=Economy").text
    assert "This list is filtered:" in page
    assert 'value="Economy" checked' in page
    assert "This list is filtered:" not in ask.get(trace).text


def test_searching_again_makes_another_trace_among_those_only(ask: Any, explorer: Explorer, trace: str) -> None:
    chosen = {"source": ["Economy"], "entity": ["Peru", "Chile"], "since": "1900"}
    job = job_of(explorer, ask.post(f"/api{trace}/again", json=chosen))
    assert job.url != trace
    told = ask.get(f"/api{job.url}?per=100").json()
    assert told["query"]["filter"].startswith("source IN ('Economy') AND (entity('Peru') OR entity('Chile')) AND")
    for side in SIDES:
        for hit in told["query"][side]:
            assert hit["source"] == "Economy"
            assert {"Peru", "Chile"} & set(hit["entities"])
    narrowed = job_of(explorer, ask.post(f"/api{job.url}/again", json={"entity": ["Peru"]}))
    again = ask.get(f"/api{narrowed.url}").json()
    assert again["query"]["filter"] == f"({told['query']['filter']})\nAND entity('Peru')"
    assert "only passages that meet" in ask.get(narrowed.url).text
    refused = ask.post(f"{trace}/again", data={"sort": "rank"})
    assert refused.status_code == 422
    assert "choose a source" in refused.text


def test_an_answer_comes_with_where_the_influence_comes_from(ask: Any, trace: str, web_lake: Lake) -> None:
    told = ask.get(f"/api{trace}").json()["sources"]
    sums = {row.name: row.influence for row in web_lake.group_influence_of(trace.rpartition("/")[2], by="source")}
    for group in told["by_source"]:
        assert group["influence"] == pytest.approx(sums[group["label"]], rel=1e-3)
    assert "Where the influence comes from" in ask.get(trace).text


def test_sources_of_an_older_trace_are_weighed_when_somebody_asks(
    ask: Any, trace: str, make_explorer: Callable[..., Explorer]
) -> None:
    other = make_explorer()
    later = client_of(other)
    assert "Weigh whole sources" in later.get(trace).text
    assert later.get(f"/api{trace}").json()["sources"] is None
    job = job_of(other, later.post(f"/api{trace}/shares", json={}))
    assert job.url == f"{trace}#shares"
    assert later.get(f"/api{trace}").json()["sources"] == ask.get(f"/api{trace}").json()["sources"]
    assert "Weigh whole sources" not in later.get(trace).text


def test_tokens_are_shaded_when_somebody_asks(ask: Any, explorer: Explorer, trace: str) -> None:
    hit = ask.get(f"/api{trace}").json()["query"]["proponents"][1]
    assert hit["tokens"] == []
    path = f"{trace}/passages/{hit['passage_id']}"
    job = job_of(explorer, ask.post(f"/api{path}/tokens", json={}))
    assert job.url == path
    told = ask.get(f"/api{path}").json()["hit"]
    assert sum(share for _, _, share in told["tokens"]) == pytest.approx(hit["score"], rel=0.05)  # codes round
    assert 'class="token towards-4"' in ask.get(path).text
    assert 'class="token towards-4"' in ask.get(trace).text


def test_a_passage_is_shown_in_its_document(ask: Any, trace: str) -> None:
    hit = ask.get(f"/api{trace}").json()["query"]["opponents"][0]
    told = ask.get(f"/api{trace}/passages/{hit['passage_id']}").json()
    assert [one["text"] for one in told["passages"] if one["is_this"]] == [hit["text"]]
    assert ask.get(f"{trace}/passages/none").status_code == 404


def test_words_and_both_orders_have_one_list(ask: Any, explorer: Explorer) -> None:
    for method in ("bm25", "hybrid"):
        asked = {"prompt": "Peru. Capital:", "target": " Lima", "k": 4, "method": method}
        job = job_of(explorer, ask.post("/api/traces", json=asked))
        assert job.error is None
        page = ask.get(job.url).text
        assert page.count('<article class="hit"') == 4
        assert "Opponents" not in page


def test_what_only_the_model_finds_out_is_told_by_the_job(ask: Any, explorer: Explorer) -> None:
    job = job_of(explorer, ask.post("/api/traces", json={"prompt": "Peru " * 2000, "target": " Lima"}))
    assert job.state == "failed"
    page = ask.get(f"/jobs/{job.job}").text
    assert "could not be answered" in page
    assert "Change the question" in page


def listed(rank: int, day: date | None, *, precision: Any = "day", side: Any = "proponent") -> Listed:
    return Listed(
        side=side, rank=rank, score=1.0, percentile=None, z_score=None, passage_id=f"p{rank}", doc_id="d",
        source="s", published=day, published_precision=precision if day else None, title=None, entities=("e",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("days", "precision", "span", "first", "n"),
    [
        ([date(2001, 2, 3), date(2001, 5, 1)], "day", "month", "2001-02", 4),
        ([date(2001, 2, 3), date(2001, 5, 1)], "year", "year", "2001", 1),
        ([date(1900, 1, 1), date(2000, 1, 1)], "day", "decade", "1900", 11),
        ([date(1, 1, 1), date(9999, 12, 31)], "day", "century", "0001", 100),
    ],
)
def test_time_is_cut_into_stretches_that_fit(days: list[date], precision: str, span: str, first: str, n: int) -> None:
    hits = [listed(rank, day, precision=precision) for rank, day in enumerate([*days, None], start=1)]
    found = facets(hits, Chosen())
    assert (found.span, found.times[0].since, len(found.times), found.n_undated) == (span, first, n, 1)
    assert sum(one.n_proponents for one in found.times) == len(days)
    for one in found.times:  # a stretch that is brushed holds what its column counts
        assert len(select(hits, Chosen(since=one.since, until=one.until))) == one.n_proponents
    assert histogram(found.times, ident="x", title="t").count("<g ") == n


def test_undated_hits_are_last_in_either_order() -> None:
    hits = [listed(1, None), listed(2, date(2001, 1, 1)), listed(3, date(2002, 1, 1))]
    assert [hit.rank for hit in ordered(hits, "newest")] == [3, 2, 1]
    assert [hit.rank for hit in ordered(hits, "oldest")] == [2, 3, 1]


def test_no_dates_no_picture() -> None:
    assert facets([listed(1, None)], Chosen()).times == []
    assert histogram([], ident="x", title="t") == ""
