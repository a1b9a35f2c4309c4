"""Queries: means, orders and marks against what the files of results say, and evaluations beside them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proponent.lake import Lake, init
from proponent.query.web.asked import ORDERS
from proponent.query.web.evaluated import read_evaluations
from proponent.query.web.explorer import Explorer
from proponent.schema.errors import InputError
from proponent.schema.settings import ServeSettings

from .conftest import client_of

CAPITALS = {"Peru": "Lima", "Kenya": "Nairobi", "Norway": "Oslo", "Chad": "N'Djamena"}
LISTED = {
    "one": {"Peru": ["Peru", "Kenya"], "Kenya": ["Peru", "Kenya"], "Norway": ["Chad"], "Chad": ["Chad", "Peru"]},
    "two": {"Peru": ["Chad", "Norway", "Peru"]},
}
"""Which countries' documents each tool lists for the question about a country, best first."""
RECIPROCAL = {"Peru": 1 / 3, "Kenya": 1 / 2, "Norway": 0.0, "Chad": 1.0}
"""Of the latest trace of each."""


def question(country: str) -> dict[str, str]:
    return {"prompt": f"{country}. Capital:", "target": f" {CAPITALS[country]}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("queries")


@pytest.fixture(scope="module")
def lake(folder: Path) -> Iterator[Lake]:
    """Four documents, four queries that say which of them is right, and what two tools list for them."""
    corpus = folder / "corpus.jsonl"
    texts = [{"id": name, "title": name, "text": f"{name}. Capital: {CAPITALS[name]}"} for name in CAPITALS]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in texts), "utf-8")
    with init(folder / "lake") as lake:
        lake.ingest(corpus, corpus="facts", id="id", title="title", text="text")
        lake.index_text()
        keys = {
            row["doc_key"]: row["passage_id"]
            for row in lake.sql("SELECT doc_key, passage_id FROM passages JOIN documents USING (doc_id)").to_dicts()
        }
        for tool, listed in LISTED.items():
            file = folder / f"{tool}.jsonl"
            records = [
                {
                    "inputs_plaintext": f"{name}. Capital:",
                    "targets_plaintext": f" {CAPITALS[name]}",
                    "proponent_ids": [keys[one] for one in found],
                    "proponent_scores": [10.0 - place for place in range(len(found))],
                    "relation": "capital <b>",
                    "number": len(name),
                    "doc_keys": [name],
                }
                for name, found in listed.items()
            ]
            file.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
            lake.import_traces(file, name=tool, query_set=f"set {tool}")
        yield lake


@pytest.fixture(scope="module")
def results(lake: Lake, folder: Path) -> Path:
    """The folder of an evaluation of them."""
    facts = [question(name) | {"doc_keys": [name], "subject": name} for name in CAPITALS]
    lake.evaluate(facts, methods=["bm25", "random"], output=folder / "words", resamples=100)
    return folder / "words"


@pytest.fixture(scope="module")
def look(lake: Lake, results: Path) -> Iterator[Any]:
    made = Explorer(
        lake=lake.store,
        settings=ServeSettings(rate=1e4),
        asker=lake,
        status=lake.status,
        evaluations=read_evaluations([results]),
    )
    yield client_of(made)
    made.close()


def told(look: Any, **asked: Any) -> Any:
    answer = look.get("/api/queries", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def countries(told: Any) -> list[str]:
    return [one["prompt"].partition(".")[0] for one in told["queries"]]


def test_means_are_those_of_the_ranks(look: Any) -> None:
    found = {one["method"]: one for one in told(look)["means"]}
    assert found["imported:one"]["mrr"] == pytest.approx((1 + 1 / 2 + 0 + 1) / 4)
    assert found["imported:one"]["first"] == pytest.approx(2 / 4)
    assert found["imported:two"]["mrr"] == pytest.approx(1 / 3)
    assert [found[f"imported:{tool}"]["judged"] for tool in LISTED] == [4, 1]


def test_the_latest_trace_of_each_query_is_listed(look: Any) -> None:
    found = told(look)
    ranks = dict(zip(countries(found), [one["reciprocal_rank"] for one in found["queries"]], strict=True))
    assert ranks == pytest.approx(RECIPROCAL)
    assert {one["n_traces"] for one in found["queries"]} == {1, 2}
    assert found["total"] == len(CAPITALS)


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("asked", [{}, {"method": "imported:one"}, {"find": "a"}])
def test_the_sql_that_is_shown_gives_what_the_page_shows(look: Any, order: str, asked: dict[str, str]) -> None:
    page = told(look, sort=order, **asked)
    for statement, shown, beside in (
        (page["sql"], [without(one, "measured") for one in page["queries"]], ("created_at",)),
        (page["means_sql"], page["means"], ()),
    ):
        found = look.post("/api/sql", json={"query": statement}).json()["result"]
        names = [column["name"] for column in found["columns"]]
        rows = [dict(zip(names, row, strict=True)) for row in found["rows"]]
        wanted = [without(one, *beside) for one in shown]
        assert rows
        assert [{name: row[name] for name in one} for row, one in zip(rows, wanted, strict=True)] == [
            pytest.approx(one) if all(isinstance(value, float) for value in one.values()) else one for one in wanted
        ]


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_lists_all(look: Any, order: str) -> None:
    found = countries(told(look, sort=order))
    assert sorted(found) == sorted(CAPITALS)
    if order in {"answered", "missed"}:
        assert found == sorted(CAPITALS, key=RECIPROCAL.__getitem__, reverse=order == "answered")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"find": "LIMA"}, ["Peru"]),
        ({"find": "n'dj"}, ["Chad"]),
        ({"query_set": "set two"}, []),  # a query stays in the set that it was first asked in
        ({"query_set": "set one"}, list(CAPITALS)),
        ({"method": "imported:two"}, ["Peru"]),
        ({"field": "number", "value": "4"}, ["Peru", "Chad"]),
        ({"field": "relation", "value": "capital <b>", "find": "Oslo"}, ["Norway"]),
        ({"field": "no/such~one", "value": "x"}, []),
    ],
)
def test_conditions_narrow(look: Any, asked: dict[str, str], found: list[str]) -> None:
    shown = told(look, **asked)
    assert sorted(countries(shown)) == sorted(found)
    assert shown["total"] == len(found)
    drawn = look.get("/queries/random", params=asked)
    if found:
        assert drawn.status_code == 303
        assert drawn.headers["location"] in {f"/traces/{one['trace_id']}" for one in shown["queries"]}
    else:
        assert drawn.status_code == 404


def test_a_field_without_its_value_is_told_beside_it(look: Any) -> None:
    page = look.get("/queries", params={"field": "number"})
    assert page.status_code == 422
    assert 'id="field-told"><strong>Error: </strong>a field needs its value' in page.text
    answer = look.get("/api/queries", params={"value": "4"})
    assert (answer.status_code, answer.json()["field"]) == (400, "value")


def test_methods_stand_side_by_side_with_what_is_right(look: Any) -> None:
    [peru] = told(look, find="Peru")["queries"]
    found = look.get(f"/api/queries/{peru['query_id']}").json()
    right = {
        trace["method"]: [(hit["rank"], hit["doc_key"]) for hit in trace["proponents"] if hit["right"]]
        for trace in found["traces"]
    }
    assert right == {"imported:one": [(1, "Peru")], "imported:two": [(3, "Peru")]}
    page = look.get(f"/queries/{peru['query_id']}").text
    assert page.count("✓ right") == 2
    assert page.count('class="trace-column"') == 2
    assert look.get("/queries/nobody").status_code == 404


def test_metadata_is_escaped(look: Any) -> None:
    page = look.get("/queries").text
    assert "capital &lt;b&gt;" in page
    assert "capital <b>" not in page


def test_an_evaluation_stands_beside_the_queries(look: Any, results: Path) -> None:
    measured = {one["prompt"]: one["measured"] for one in told(look)["queries"]}
    kept = json.loads((results / "results.json").read_text("utf-8"))
    bm25 = next(method for method in kept["methods"] if method["name"] == "bm25")
    for place, prompt in enumerate(kept["facts"]["prompts"]):
        [of_bm25] = [one for one in measured[prompt] if one["method"] == "bm25"]
        assert of_bm25["reciprocal_rank"] == 1 / bm25["ranks"]["strict"][place][0]
        assert of_bm25["evaluation"] == "words"
    page = look.get("/evaluations").text
    assert "Attribution: passages that are said to state the fact" in page
    assert page.count("<svg") >= 2
    assert look.get("/evaluations?of=other").status_code == 404


def test_what_is_no_evaluation_is_refused_in_one_line(results: Path, tmp_path: Path) -> None:
    kept = json.loads((results / "results.json").read_text("utf-8"))
    broken: list[tuple[str, str | None]] = [
        ("has no results.json", None),
        ("is no evaluation", "{"),
        ("is no evaluation", "[]"),
        ("is of another version", json.dumps(kept | {"format": "x"})),
        ("has not ended", json.dumps({name: kept[name] for name in ("format", "methods", "set_aside", "steps")})),
        ("is no evaluation", json.dumps(kept | {"methods": [{}]})),
    ]
    for number, (message, text) in enumerate(broken):
        folder = tmp_path / str(number)
        folder.mkdir()
        if text is not None:
            (folder / "results.json").write_text(text, "utf-8")
        with pytest.raises(InputError, match=message) as caught:
            read_evaluations([folder])
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="two evaluations are called words"):
        read_evaluations([results, results])


def test_an_evaluation_of_an_older_version_has_its_tables(results: Path, tmp_path: Path) -> None:
    kept = json.loads((results / "results.json").read_text("utf-8"))
    del kept["facts"]["prompts"], kept["facts"]["targets"]
    (tmp_path / "results.json").write_text(json.dumps(kept), "utf-8")
    [old] = read_evaluations([tmp_path]).values()
    assert old.sections
    assert old.by_question == {}
