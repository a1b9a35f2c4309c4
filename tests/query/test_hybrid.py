"""A hybrid is the reciprocal-rank fusion of two stored traces, whose ranks and scores stay apart."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import proponent
from proponent.lake import Lake
from proponent.query.hybrid import fuse
from proponent.schema.errors import InputError, NotFoundError
from proponent.schema.settings import EncoderSettings

QUESTION = ("The capital of", " France lies on a river")
SMALL = EncoderSettings(moments="none", side=8, blocks=1, sample=40)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, sentences: list[str]) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("joined")
    rows = [{"id": f"d{n}", "text": text, "source": ["news", "wiki"][n % 2]} for n, text in enumerate(sentences)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with proponent.init(folder / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(folder / "rows.jsonl", corpus="c")
        lake.encode(settings=SMALL)
        with pytest.raises(NotFoundError, match="proponent index"):
            lake.trace(*QUESTION, method="hybrid", fuse="logra")
        assert lake.status()["traces"] == 0
        lake.index_text()
        yield lake


def ask(lake: Lake, **settings: Any) -> list[dict[str, Any]]:
    return lake.trace(*QUESTION, **{"method": "hybrid", "fuse": "logra"} | settings).to_dicts()


RANKS = st.lists(st.sampled_from("abcdefghij"), unique=True).map(
    lambda order: {name: rank for rank, name in enumerate(order, start=1)}
)


@given(RANKS, RANKS, st.integers(1, 12), st.integers(1, 100))
def test_fusion_is_the_sum_of_reciprocal_ranks(
    influence: dict[str, int], words: dict[str, int], k: int, constant: int
) -> None:
    found = fuse(influence, words, constant=constant, k=k, n=20)
    expected = {
        name: sum(1 / (constant + ranks[name]) for ranks in (influence, words) if name in ranks)
        for name in {*influence, *words}
    }
    assert len(found) == min(k, len(expected))
    assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
    assert [hit.score for hit in found] == sorted(expected.values(), reverse=True)[:k]
    for hit in found:
        assert hit.score == expected[hit.passage_id]
        assert hit.percentile == pytest.approx(100 * (20 - sum(v >= hit.score for v in expected.values())) / 20)
    assert found == fuse(influence, words, constant=constant, k=50, n=20)[:k]


def test_equal_sums_are_in_the_order_of_their_influence() -> None:
    found = fuse({"a": 2, "b": 1}, {"a": 1, "b": 2, "c": 3, "d": 4}, constant=60, k=9, n=9)
    assert [hit.passage_id for hit in found] == ["b", "a", "c", "d"]
    assert [hit.passage_id for hit in fuse({"a": 1}, {"b": 1}, constant=60, k=9, n=9)] == ["a", "b"]


def test_the_parts_are_traces_of_their_own_and_give_the_sum(lake: Lake) -> None:
    rows = ask(lake, k=5)
    [trace] = lake.sql("SELECT * FROM traces WHERE trace_id = ?", [rows[0]["trace_id"]]).to_dicts()
    settings = json.loads(trace["settings"])
    assert (trace["method"], trace["encoder"], trace["k"], settings["depth"]) == ("hybrid", "tiny", 5, 100)
    parts = [lake.trace(*QUESTION, method=method, k=100).to_dicts() for method in ("logra", "bm25")]
    assert [some[0]["trace_id"] for some in parts] == [settings["fused"]["influence"], settings["fused"]["bm25"]]
    ranks = [{row["passage_id"]: row["rank"] for row in some if row["side"] == "proponent"} for some in parts]
    expected = fuse(*ranks, constant=60, k=5, n=60)
    assert [(row["passage_id"], row["score"], row["percentile"]) for row in rows] == [
        (hit.passage_id, hit.score, hit.percentile) for hit in expected
    ]
    assert {row["side"] for row in rows} == {"proponent"}


def test_every_score_is_kept_apart(lake: Lake) -> None:
    rows = ask(lake, k=40)
    fused = lake.sql("SELECT * FROM fused WHERE trace_id = ? ORDER BY rank", [rows[0]["trace_id"]]).to_dicts()
    assert [row["passage_id"] for row in fused] == [row["passage_id"] for row in rows]
    parts = {
        name: {row["passage_id"]: row for row in lake.trace(*QUESTION, method=method, k=400).to_dicts()
               if row["side"] == "proponent"}
        for name, method in (("influence", "logra"), ("bm25", "bm25"))
    }  # fmt: skip
    for row in fused:
        assert row["influence_method"] == "logra"
        for name, hits in parts.items():
            hit = hits.get(row["passage_id"], {"rank": None, "score": None})
            assert (row[f"{name}_rank"], row[f"{name}_score"]) == (hit["rank"], hit["score"])
        summands = [1 / (60 + row[f"{name}_rank"]) for name in parts if row[f"{name}_rank"]]
        assert row["score"] == pytest.approx(sum(summands))
    assert any(row["influence_rank"] is None for row in fused)
    assert all(row["influence_trace"] or row["bm25_trace"] for row in fused)


def test_asking_again_stores_nothing_and_another_constant_is_another_trace(lake: Lake) -> None:
    rows = ask(lake)
    before = lake.snapshot
    assert ask(lake) == rows
    assert lake.snapshot == before
    other = ask(lake, rank_constant=1)
    assert other[0]["trace_id"] != rows[0]["trace_id"]
    assert other[0]["score"] <= 1


def test_a_filter_holds_for_both_parts(lake: Lake) -> None:
    rows = ask(lake, filter="source = 'wiki'", k=100)
    assert {row["source"] for row in rows} == {"wiki"}
    filters = lake.sql(
        "SELECT DISTINCT filter FROM traces JOIN fused ON traces.trace_id IN (influence_trace, bm25_trace) "
        "WHERE fused.trace_id = ?",
        [rows[0]["trace_id"]],
    )
    assert filters.to_dicts() == [{"filter": "source = 'wiki'"}]


def test_a_report_tells_both_scores(lake: Lake, tmp_path: Path) -> None:
    rows = ask(lake, k=3)
    for name in ("r.md", "r.html"):
        text = lake.report(rows[0]["trace_id"], tmp_path / name).read_text("utf-8")
        assert "the sum of 1 / (60 + rank) over two orders" in text
        assert "Passages high in both orders" in text
        assert "pushed towards the target" not in text
    row = lake.sql("SELECT * FROM fused WHERE trace_id = ? ORDER BY rank", [rows[0]["trace_id"]]).to_dicts()[0]
    markdown = (tmp_path / "r.md").read_text("utf-8")
    assert f"bm25 rank {row['bm25_rank']}, score +{row['bm25_score']:.4f}" in markdown


def test_a_comparison_is_refused_before_anything_is_stored(lake: Lake) -> None:
    before = lake.snapshot
    with pytest.raises(InputError, match="takes no --instead"):
        lake.trace("The capital of", " France", instead=" Peru", method="hybrid", fuse="logra")
    with pytest.raises(InputError, match="one by one"):
        lake.trace_all([QUESTION, ("One", " two")], average=True, method="hybrid", fuse="logra")
    assert lake.snapshot == before


def test_the_model_may_complete_the_prompt(lake: Lake) -> None:
    rows = lake.trace("The capital of", method="hybrid", fuse="logra", k=2).to_dicts()
    [trace] = lake.sql("SELECT completed, target_loss FROM traces WHERE trace_id = ?", [rows[0]["trace_id"]])
    assert trace.completed
    assert trace.target_loss > 0
