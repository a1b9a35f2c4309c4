"""Corpus and documents: what narrows the list, what hides, and what a corpus cannot do to a page."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from proponent.lake import Lake, init
from proponent.query.web.corpus import FACETS, ORDERS, PER_PAGE
from proponent.query.web.explorer import Explorer
from proponent.schema.settings import ServeSettings

from .conftest import client_of

HOSTILE = "<script>alert(1)</script>\u202e & 'x' \"y\""
N_PLAIN, N_OTHERS = 60, 4


def rows() -> Iterator[dict[str, Any]]:
    for number in range(N_PLAIN):
        yield {
            "id": f"plain/{number:02}",
            "text": f"Town {number} has a market on Mondays.",
            "title": f"Town {number // 2}",  # titles that are equal, so that only ids order them
            "source": ("Almanac", "Gazette", None)[number % 3],
            "date": f"{1990 + number % 5}" if number % 7 else None,
            "language": "en",
        }
    yield {
        "id": "hostile",
        "text": f"{HOSTILE} Lima is the capital of Peru, and Lima again.",
        "title": HOSTILE,
        "source": "O'Hara; DROP",
        "url": "javascript:alert(1)",
        "entities": ["Lima", "Peru"],
        "odd <field>": {"deep": {"er": [1, HOSTILE]}, "empty": {}},
    }
    yield {
        "id": "long",
        "text": "".join(f"Sentence number {number} of a long story. " for number in range(160)),
        "url": "https://example.org/long",
    }
    for twin, end in (("a", "harvest"), ("b", "vintage")):
        text = "The old river that runs behind the mill turns its wheel from the first day of spring to the last of the"
        yield {"id": f"twin/{twin}", "text": f"{text} {end}."}
    yield {"id": "gone", "text": "The secret harbour lies in the north.", "title": "Secret", "entities": ["Harbour"]}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A small lake, with a trace of another tool that lists three of its documents, one of them withdrawn since."""
    folder = tmp_path_factory.mktemp("corpus")
    corpus, listed = folder / "rows.jsonl", folder / "listed.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows()), "utf-8")
    with init(folder / "lake") as lake:
        fields = {"source": "source", "date": "date", "title": "title", "url": "url", "language": "language"}
        lake.ingest(corpus, corpus="towns", id="id", text="text", entities="entities", max_chars=90, **fields)
        lake.mark_near_duplicates(threshold=0.5)
        keys = {row["doc_key"]: row["passage_id"] for row in passages(lake)}
        sides = {"proponent": ["hostile", "gone"], "opponent": ["long"]}
        record: dict[str, Any] = {"inputs_plaintext": "Peru. Capital:", "targets_plaintext": " Lima"}
        for side, named in sides.items():
            record[f"{side}_ids"] = [keys[key] for key in named]
            record[f"{side}_scores"] = [2.0 - place for place in range(len(named))]
        listed.write_text(json.dumps(record) + "\n", "utf-8")
        lake.import_traces(listed, name="other")
        lake.delete("doc_key = 'gone'")
        yield lake


def passages(lake: Lake) -> list[dict[str, Any]]:
    return lake.sql(
        "SELECT doc_key, doc_id, passage_id, ordinal, text FROM passages JOIN documents USING (doc_id) "
        "ORDER BY doc_key, ordinal DESC"
    ).to_dicts()


@pytest.fixture(scope="module")
def small(lake: Lake) -> Iterator[Explorer]:
    made = Explorer(lake=lake.store, settings=ServeSettings(rate=1e4), asker=lake, status=lake.status)
    yield made
    made.close()


@pytest.fixture(scope="module")
def look(small: Explorer) -> Any:
    return client_of(small)


@pytest.fixture(scope="module")
def ids(lake: Lake) -> dict[str, str]:
    return {row["doc_key"]: row["doc_id"] for row in lake.sql("SELECT doc_key, doc_id FROM documents").to_dicts()}


def told(look: Any, **asked: Any) -> Any:
    answer = look.get("/api/documents", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def keys_of(told: Any) -> list[str]:
    return [one["doc_key"] for one in told["documents"]]


def test_without_an_index_the_text_is_not_searched(look: Any) -> None:  # before another test builds it
    page = look.get("/documents", params={"text": "market"})
    assert page.status_code == 422
    assert "proponent index" in page.text
    assert "Town 1" in page.text  # the list is there all the same
    answer = look.get("/api/documents", params={"text": "market"})
    assert (answer.status_code, answer.json()["field"]) == (400, "text")


@pytest.mark.parametrize("order", [order for order in ORDERS if order != "best"])
def test_pages_have_every_document_once_in_every_order(look: Any, order: str) -> None:
    first = told(look, sort=order)
    second = told(look, sort=order, after=first["after"])
    assert (len(first["documents"]), first["before"], second["after"]) == (PER_PAGE, None, None)
    assert keys_of(told(look, sort=order, before=second["before"])) == keys_of(first)
    keys = keys_of(first) + keys_of(second)
    assert len(keys) == first["total"] == N_PLAIN + N_OTHERS
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("facet", [*FACETS, "entity"])
def test_every_value_of_a_facet_narrows_to_as_many_as_it_counts(look: Any, facet: str) -> None:
    for one in told(look)["facets"][facet]:
        asked = {facet: one["value"]} if one["value"] is not None else {"without": facet}
        assert told(look, **asked)["total"] == one["n"], one


def test_conditions_are_all_met_together(look: Any, lake: Lake) -> None:
    asked = {"source": "Almanac", "year": "1993", "name": "town", "filter": "contains(text, 'Mondays')"}
    wanted = lake.sql(
        "SELECT doc_key FROM documents WHERE source = 'Almanac' AND year(published) = 1993 ORDER BY title, doc_id"
    ).to_dicts()
    assert keys_of(told(look, **asked)) == [row["doc_key"] for row in wanted] != []


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("source = 'O''Hara; DROP'", ["hostile"]),
        ("entity('Lima')", ["hostile"]),
        ("len(entities) > 1 AND title IS NOT NULL", ["hostile"]),
        ("n_passages > 3", ["long"]),
        ("contains(text, 'number 150 ')", ["long"]),
        ("starts_with(text, 'Town 7 ') AND published IS NULL", ["plain/07"]),
        ("entity('Harbour')", []),
    ],
)
def test_filters_are_those_of_questions(look: Any, where: str, keys: list[str]) -> None:
    found = told(look, filter=where)
    assert (keys_of(found), found["total"]) == (keys, len(keys))


@pytest.mark.parametrize("where", ["sourc = 'x'", "source =", "source::DATE > DATE '2000-01-01'", "1; DROP TABLE x"])
def test_what_is_wrong_with_a_filter_stands_beside_it(look: Any, where: str) -> None:
    page = look.get("/documents", params={"filter": where, "source": "Gazette"})
    assert page.status_code == 422
    assert re.search(r'id="filter"[^>]*aria-invalid="true"', page.text)
    assert re.search(r'id="filter-told"><strong>Error: </strong>.*(filter|column)', page.text)
    assert "20 documents" in page.text  # what else is chosen still holds
    answer = look.get("/api/documents", params={"filter": where})
    assert (answer.status_code, answer.json()["field"]) == (400, "filter")


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"sort": "listed"},
        {"source": "O'Hara; DROP"},
        {"name": "it's %_\\", "filter": "title LIKE '%''%'"},
        {"filter": "len(entities) = 0", "after": "the first page"},
        {"sort": "newest", "after": "the first page"},
        {"without": ["source", "year"], "sort": "key"},
    ],
)
def test_the_sql_that_is_shown_gives_what_is_listed(look: Any, small: Explorer, asked: dict[str, Any]) -> None:
    if "after" in asked:
        asked = asked | {"after": told(look, **{name: one for name, one in asked.items() if name != "after"})["after"]}
    shown = told(look, **asked)
    ran = small.rows(shown["sql"])
    assert [row["doc_key"] for row in ran][:PER_PAGE] == keys_of(shown)


def test_a_document_shows_what_is_known_of_it(look: Any, ids: dict[str, str]) -> None:
    page = look.get(f"/documents/{ids['hostile']}").text
    assert "<script>alert" not in page
    assert "javascript:" in page
    assert 'href="javascript:' not in page
    assert "U+202E" in page
    assert "odd &lt;field&gt;.deep.er" in page
    assert page.count('<a class="mention" href="/documents?entity=Lima">Lima</a>') == 2
    assert 'href="/?filter=doc_id%20%3D%20%27' + ids["hostile"] in page
    assert 'rel="noreferrer noopener nofollow">example.org</a>' in look.get(f"/documents/{ids['long']}").text


def test_a_document_names_the_traces_that_list_it(look: Any, ids: dict[str, str]) -> None:
    found = look.get(f"/api/documents/{ids['hostile']}").json()
    assert found["n_moved"] == {"proponent": 1, "opponent": 0}
    assert (found["moved"]["proponent"][0]["target"], found["moved"]["proponent"][0]["rank"]) == (" Lima", 1)
    assert look.get(f"/api/documents/{ids['long']}").json()["n_moved"] == {"proponent": 0, "opponent": 1}
    assert {one["doc_key"]: one["traces"] for one in told(look, sort="listed")["documents"][:2]} == {
        "hostile": 1,
        "long": 1,
    }


def test_a_passage_has_an_address(look: Any, lake: Lake, ids: dict[str, str]) -> None:
    last = next(row for row in passages(lake) if row["doc_key"] == "long")
    assert last["ordinal"] >= PER_PAGE
    address = f"/documents/{ids['long']}"
    assert last["passage_id"] not in look.get(address).text
    page = look.get(address, params={"passage": last["passage_id"]}).text
    assert f'<li id="{last["passage_id"]}"' in page
    found = look.get(f"/api{address}", params={"page": 2}).json()
    assert [one["ordinal"] for one in found["passages"]] == list(range(PER_PAGE, found["n_passages"]))


def test_near_duplicates_lead_to_each_other(look: Any, lake: Lake) -> None:
    pair = lake.sql("SELECT doc_id, of_doc_id FROM near_duplicates LIMIT 1").to_dicts()[0]
    for one, other in (pair.values(), reversed(pair.values())):
        assert f'href="/documents/{other}"' in look.get(f"/documents/{one}").text


def test_what_is_withdrawn_is_nowhere(look: Any, lake: Lake, ids: dict[str, str]) -> None:
    lake.index_text()
    assert "gone" not in ids
    assert told(look, name="secret")["total"] == told(look, text="secret")["total"] == 0
    assert "Harbour" not in look.get("/documents").text
    gone = next(row for row in withdrawn(lake) if row not in ids.values())
    answer = look.get(f"/documents/{gone}")
    assert answer.status_code == 404
    assert "may have been withdrawn" in answer.text


def withdrawn(lake: Lake) -> list[str]:
    return [row["doc_id"] for row in lake.sql("SELECT doc_id FROM withdrawals").to_dicts()]


@pytest.mark.parametrize("asked", [{"sort": "listed"}, {"text": "Lima Peru"}])
@pytest.mark.parametrize("condition", ["doc_id = '{}'", "doc_id = '{}' AND NOT near_duplicate"])
def test_a_filter_may_name_the_id_in_every_order(
    look: Any, lake: Lake, ids: dict[str, str], asked: dict[str, str], condition: str
) -> None:
    lake.index_text()
    assert keys_of(told(look, filter=condition.format(ids["hostile"]), **asked)) == ["hostile"]


def test_full_text_finds_the_best_first_and_marks_the_words(look: Any, lake: Lake, small: Explorer) -> None:
    lake.index_text()
    # The form says no order by itself, or a search for words would come in that of the list before.
    assert '<option value="" selected>' in look.get("/documents").text
    found = told(look, text="Lima Peru market")
    assert found["order"] == "best"
    assert keys_of(found)[0] == "hostile"
    assert found["total"] == N_PLAIN + 1
    page = look.get("/documents", params={"text": "Lima"}).text
    assert '<mark class="target">Lima</mark>' in page
    assert "<script>alert" not in page
    narrowed = told(look, text="market", source="Gazette")
    assert narrowed["total"] == 20
    assert sorted(row["doc_key"] for row in small.rows(narrowed["sql"])) == sorted(keys_of(narrowed))
    assert told(look, text="xyzzy")["documents"] == []
