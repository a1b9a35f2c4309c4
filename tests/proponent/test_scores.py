"""What `trace` prints beside the score: the parts of a hybrid, full gradients, and nothing of influence by words."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import proponent
from proponent.cli import cli
from proponent.cli.scores import told_orders
from proponent.schema.settings import EncoderSettings

ASKED = ["--prompt", "The capital of", "--target", " France lies on a river"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, sentences: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("scores")
    rows = [{"id": f"d{n}", "text": text, "trained_on": n % 7 > 0} for n, text in enumerate(sentences)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with proponent.init(folder / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(folder / "rows.jsonl", corpus="c")
        lake.encode(settings=EncoderSettings(moments="estimated", side=8, blocks=1, sample=40))
        lake.encode(encoder="plain", settings=EncoderSettings(moments="none", side=8, blocks=1, sample=40))
    done = CliRunner().invoke(cli, ["index", str(folder / "lake"), "--format", "json"])
    assert "full-text index: 60 passages, 60 of them new" in done.stderr
    assert {(row["encoder"], row["rows"]) for row in json.loads(done.stdout)} == {("tiny", 60), ("plain", 60)}
    return folder / "lake"


def trace(lake: Path, *options: str) -> Result:
    done = CliRunner().invoke(cli, ["trace", str(lake), *ASKED, *options])
    assert done.exit_code == 0, done.output
    return done


def test_passages_by_words_are_no_proponents(lake: Path) -> None:
    out = trace(lake, "--method", "bm25", "-k", "60").stdout
    assert "no model was asked; 60 passages\n" in out
    assert "PASSAGES that share its words" in out
    for word in ("PROPONENTS", "OPPONENTS", "push", "probability"):
        assert word not in out
    assert "the model was not trained on" in out
    assert "what training on them would do" not in out


def test_a_hybrid_shows_rank_and_score_of_each_part(lake: Path) -> None:
    out = trace(lake, "--method", "hybrid", "-k", "5").stdout
    assert "trackstar" in out
    assert "(rank 1)" in out
    assert "PROPONENTS" not in out
    rows = json.loads(trace(lake, "--method", "hybrid", "-k", "5", "--format", "json").stdout)
    assert len(rows) == 5
    for row in rows:
        ranks = [row[name] for name in ("influence_rank", "bm25_rank") if row[name]]
        assert row["score"] == pytest.approx(sum(1 / (60 + rank) for rank in ranks))


def test_recomputed_scores_stand_beside_the_trace_s(lake: Path) -> None:
    done = trace(lake, "-k", "6", "--recompute", "4")
    assert "in full" in done.stdout
    assert "proponents with full gradients: Kendall tau " in done.stdout
    assert "over 4 texts" in done.stdout
    rows = json.loads(trace(lake, "-k", "6", "--recompute", "4", "--format", "json").stdout)
    assert [row["score_full"] is not None for row in rows] == [row["rank"] <= 4 for row in rows]
    every = json.loads(trace(lake, "-k", "6", "--recompute", "--format", "json").stdout)
    assert all(row["score_full"] is not None for row in every)
    assert [row["passage_id"] for row in every] == [row["passage_id"] for row in rows]


def test_an_order_that_is_none_is_told_as_that() -> None:
    taus = dict.fromkeys(("tau", "tau_codes", "tau_curvature", "tau_projection"))
    [line] = told_orders([{"side": "opponent", "texts": 1, **taus}])
    assert line.startswith("opponents with full gradients: Kendall tau none over 1 text (")
