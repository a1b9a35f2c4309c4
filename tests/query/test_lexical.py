"""A trace by words is a search under any filter at any snapshot, stored like all others, and needs no model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import proponent
from proponent.lake import Lake
from proponent.query.lexical import search_text
from proponent.query.questions import Part, Question, mean
from proponent.schema.errors import FilterError, InputError, NotFoundError, SettingsError

QUESTION = ("The capital of", " France lies on a river")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> Iterator[Lake]:
    """Sixty sentences, every tenth of them twice, half of them indexed, without a model."""
    folder = tmp_path_factory.mktemp("words")
    texts = [*sentences, *sentences[::10]]
    rows = [
        {"id": f"d{n}", "text": text, "source": ["news", "wiki"][n % 2], "entities": ["Peru"] if "Peru" in text else []}
        for n, text in enumerate(texts)
    ]
    with proponent.init(folder / "lake") as lake:
        lake.ingest(write(folder / "first.jsonl", rows[:50]), corpus="first")
        lake.index_text()
        lake.ingest(write(folder / "second.jsonl", rows[50:]), corpus="second")
        yield lake


def ask(lake: Lake, **settings: Any) -> list[dict[str, Any]]:
    return lake.trace(*QUESTION, method="bm25", **{"k": 1000} | settings).to_dicts()


def test_every_passage_that_shares_a_word_is_found_indexed_or_not(lake: Lake) -> None:
    rows = ask(lake)
    words = {"the", "capital", "of", "france", "lies", "on", "a", "river"}
    sharing = [row.passage_id for row in lake.sql("SELECT passage_id, text FROM passages")
               if words & set(row.text.lower().rstrip(".").replace("'", " ").split())]  # fmt: skip
    assert sorted(row["passage_id"] for row in rows) == sorted(sharing)
    assert {row["corpus"] for row in rows} == {"first", "second"}
    assert rows[0]["text"] == "The capital of France lies on a river."
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert {row["side"] for row in rows} == {"proponent"}


def test_it_is_a_trace_like_all_others_without_an_encoder(lake: Lake) -> None:
    rows = ask(lake, k=3)
    [trace] = lake.sql("SELECT * FROM traces WHERE trace_id = ?", [rows[0]["trace_id"]]).to_dicts()
    assert (trace["method"], trace["k"], trace["exact"], trace["n_candidates"]) == ("bm25", 3, True, 66)
    assert (trace["encoder"], trace["curvature"], trace["target_loss"], trace["target_tokens"]) == (None,) * 4
    assert json.loads(trace["settings"])["text"] == "The capital of France lies on a river"
    assert [row["rank"] for row in rows] == [1, 2, 3]
    before = lake.snapshot
    assert ask(lake, k=3) == rows
    assert lake.snapshot == before


@pytest.mark.parametrize(
    "where", ["source = 'wiki'", "entity('Peru')", "corpus = 'second'", "ordinal = 7", "doc_key IN ('d3', 'd17')"]
)
def test_a_filter_is_applied_before_the_search(lake: Lake, where: str) -> None:
    everything = ask(lake)
    allowed = {row["passage_id"] for row in ask(lake, filter=where)}
    expected = [row["passage_id"] for row in everything if row["passage_id"] in allowed]
    for k in (1, 2, 7, 1000):
        rows = ask(lake, filter=where, k=k)
        assert [row["passage_id"] for row in rows] == expected[:k]
        scores = {row["passage_id"]: row["score"] for row in everything}
        assert [row["score"] for row in rows] == [scores[row["passage_id"]] for row in rows]
    if "entity" in where:
        assert len(allowed) == sum("Peru" in row["text"] for row in everything)


def test_a_percentile_is_the_share_of_candidates_that_score_lower(lake: Lake) -> None:
    everything = {row["passage_id"]: row["score"] for row in ask(lake)}
    passages = [row.passage_id for row in lake.sql("SELECT passage_id FROM passages")]
    for row in ask(lake, k=5):
        lower = sum(everything.get(passage, 0.0) < row["score"] for passage in passages)
        assert row["percentile"] == pytest.approx(100 * lower / len(passages))


def test_all_passages_of_one_text_are_hits_of_one_score(lake: Lake, sentences: list[str]) -> None:
    rows = [row for row in ask(lake) if row["text"] == sentences[10]]
    assert len(rows) == 2
    assert rows[0]["score"] == rows[1]["score"]
    assert rows[0]["rank"] + 1 == rows[1]["rank"]
    assert {row["corpus"] for row in rows} == {"first", "second"}


def test_it_can_be_reported_and_joined(lake: Lake, tmp_path: Path) -> None:
    rows = ask(lake, k=4)
    text = lake.report(rows[0]["trace_id"], tmp_path / "words.md").read_text("utf-8")
    assert "Which passages share words with" in text
    assert "No model was asked." in text
    for influence in ("pushed", "gradient", "Opponents", "Encoder settings"):
        assert influence not in text
    assert lake.report(rows[0]["trace_id"], tmp_path / "words.html").read_text("utf-8").count("<article") == 4


def test_many_questions_are_traces_of_their_own(lake: Lake) -> None:
    asked = [("The capital of", " Peru"), ("The currency of", " Kenya"), ("The capital of", " Peru")]
    ids = lake.trace_all(asked, method="bm25", k=2)
    assert ids[0] == ids[2] != ids[1]
    assert ids[1:2] == lake.trace_all(asked[1:2], method="bm25", k=2)
    tops = {row["trace_id"]: row["text"] for row in lake.hits(ids).to_dicts() if row["rank"] == 1}
    assert "Peru" in tops[ids[0]]
    assert "Kenya" in tops[ids[1]]


def test_what_needs_a_model_or_more_than_one_text_is_refused_and_stores_nothing(lake: Lake) -> None:
    before = lake.status()["traces"], lake.snapshot
    for question, settings, error, says in (
        (("One", None), {}, InputError, "give the target"),
        (("One", " two"), {"instead": " three"}, InputError, "takes no `instead`"),
        (("One", " two"), {"chat": True}, InputError, "without chat"),
        (("One", " two"), {"encoder": "e"}, SettingsError, "leave out --encoder"),
        (("One", " two"), {"filter": "nowhere = 1"}, FilterError, "no column"),
    ):
        with pytest.raises(error, match=says):
            lake.trace(*question, method="bm25", **settings)
    with pytest.raises(SettingsError, match="one by one"):
        lake.trace_all([("One", " two"), ("Three", " four")], method="bm25", average=True)
    assert (lake.status()["traces"], lake.snapshot) == before


def test_explaining_and_recomputing_are_for_gradients(lake: Lake) -> None:
    ask(lake, k=1)
    with pytest.raises(SettingsError, match="by method 'bm25', whose scores are not of gradients"):
        lake.explain("last", "1")
    with pytest.raises(SettingsError, match="by method 'bm25', whose scores are not of gradients"):
        lake.recompute("last")


def test_the_text_is_prompt_and_targets_as_people_read_them() -> None:
    assert search_text(Question("The capital of", " France")) == "The capital of France"
    parts = tuple(Part("In", target, 0.5) for target in (" France", " Peru"))
    assert search_text(Question("In", "2 targets", parts=parts)) == "In France\n Peru"
    chat = Question("What?", "That.", parts=(Part("What?", "That.", 1.0, "<|user|>What?<|assistant|>"),))
    assert search_text(chat) == "What?\nThat."
    for refused in (mean([Question("a", "b"), Question("c", "d")]), Question("a", "b", parts=(Part("a", "b", -1.0),))):
        with pytest.raises(SettingsError):
            search_text(refused)


def test_withdrawn_documents_are_not_found_and_new_passages_make_a_new_trace(tmp_path: Path) -> None:
    rows = [
        {"id": f"d{n}", "text": text} for n, text in enumerate(["The river Rhine.", "The river Rhine runs.", "No."])
    ]
    with proponent.init(tmp_path / "lake") as lake:
        lake.ingest(write(tmp_path / "first.jsonl", rows), corpus="c")
        with pytest.raises(NotFoundError, match="proponent index"):
            lake.trace("The", " Rhine", method="bm25")
        assert lake.index_text() == {"rows": 3, "added": 3}
        old = lake.trace("The", " Rhine", method="bm25").to_dicts()
        assert [row["doc_key"] for row in old] == ["d0", "d1"]
        lake.delete("doc_key = 'd0'")
        new = lake.trace("The", " Rhine", method="bm25").to_dicts()
        assert [row["doc_key"] for row in new] == ["d1"]
        assert new[0]["trace_id"] != old[0]["trace_id"]
        lake.ingest(write(tmp_path / "more.jsonl", [{"id": "d9", "text": "Rhine, Rhine, the Rhine"}]), corpus="c")
        assert [row["doc_key"] for row in lake.trace("The", " Rhine", method="bm25").to_dicts()] == ["d9", "d1"]
        assert lake.index_text() == {"rows": 3, "added": 3}
