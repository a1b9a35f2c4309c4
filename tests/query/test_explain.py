"""A passage's score splits into shares of its tokens, whatever was asked and however it was scored."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import proponent
from proponent.cli import cli
from proponent.lake import Lake
from proponent.schema.errors import NotFoundError
from proponent.schema.settings import EncoderSettings

PROMPT, FRANCE, PERU = "The capital of", " France", " Peru"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explained")


@pytest.fixture(scope="module")
def lake(folder: Path, make_checkpoint: Callable[..., Path], sentences: list[str]) -> Iterator[Lake]:
    corpus, queries = folder / "corpus.jsonl", folder / "queries.jsonl"
    texts = [*sentences, "The capital of \x1b[31mFrance\u202e is <b>Paris</b>."]
    corpus.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)), "utf-8")
    asked = [{"prompt": "A currency of", "target": place} for place in (FRANCE, PERU, " Kenya")]
    queries.write_text("".join(json.dumps(row) + "\n" for row in asked), "utf-8")
    settings: dict[str, Any] = {"side": 8, "blocks": 1, "sample": 40}
    with proponent.init(folder / "lake") as lake:
        lake.add_model(make_checkpoint(folder / "model"), name="tiny")
        lake.ingest(corpus, corpus="c")
        lake.encode("tiny", encoder="corrected", settings=EncoderSettings(moments="estimated", **settings))
        lake.encode("tiny", encoder="plain", settings=EncoderSettings(moments="none", **settings))
        lake.fit_curvature(asked, name="currencies", encoder="corrected")
        yield lake


SCORED: dict[str, dict[str, Any]] = {
    "trackstar": {"encoder": "corrected"},
    "trackstar under a task's curvature": {"encoder": "corrected", "curvature": "currencies"},
    "logra": {"encoder": "plain", "method": "logra"},
    "trak": {"encoder": "plain", "method": "trak"},
    "gradcos": {"encoder": "plain", "method": "gradcos"},
    "graddot": {"encoder": "plain", "method": "graddot"},
}


@pytest.mark.parametrize("options", SCORED.values(), ids=SCORED)
def test_shares_add_up_to_the_score_and_the_gap_is_that_of_the_codes(lake: Lake, options: dict[str, Any]) -> None:
    hit = lake.trace(PROMPT, FRANCE, k=5, **options).to_dicts()[2]
    found = lake.explain(hit["trace_id"], hit["passage_id"])
    scale = max(1.0, abs(found.score))
    assert sum(token.share for token in found.tokens) == pytest.approx(found.score, abs=1e-5 * scale)
    assert found.stored_score == pytest.approx(hit["score"], abs=1e-6 * scale)
    assert found.gap == found.stored_score - found.score
    assert found.score == pytest.approx(hit["score"], rel=0.02, abs=0.005 * scale)


@pytest.mark.parametrize("options", [{"instead": PERU}, {"average": True}], ids=["a contrast", "a mean"])
def test_sums_and_means_of_queries_are_explained_too(lake: Lake, options: dict[str, Any]) -> None:
    if "average" in options:
        [trace] = lake.trace_all([(PROMPT, FRANCE), (PROMPT, PERU)], encoder="corrected", **options)
        hit = lake.hits([trace]).to_dicts()[0]
    else:
        hit = lake.trace(PROMPT, FRANCE, encoder="corrected", **options).to_dicts()[0]
    found = lake.explain(hit["trace_id"], hit["passage_id"])
    assert sum(token.share for token in found.tokens) == pytest.approx(found.score, abs=1e-5)
    assert found.score == pytest.approx(hit["score"], abs=0.005)


def test_a_query_that_a_mean_has_twice_counts_twice(lake: Lake) -> None:
    [traced] = lake.trace_all([(PROMPT, FRANCE), (PROMPT, FRANCE), (PROMPT, PERU)], average=True, encoder="corrected")
    best = lake.hits([traced]).to_dicts()[0]
    found = lake.explain(traced, best["passage_id"])
    assert found.stored_score == pytest.approx(best["score"], rel=1e-5)
    assert sum(token.share for token in found.tokens) == pytest.approx(best["score"], rel=0.05)


def test_tokens_cover_the_passage_in_order(lake: Lake) -> None:
    hit = lake.trace(PROMPT, FRANCE, encoder="corrected").to_dicts()[0]
    found = lake.explain("last", "1")
    assert (found.passage_id, found.text) == (hit["passage_id"], hit["text"])
    assert "".join(found.text[token.char_start : token.char_end] for token in found.tokens) == found.text
    assert found.tokens[0].token == "<s>"
    assert found.tokens[-1].share == 0  # nothing is predicted from it


def test_a_passage_that_the_trace_did_not_find_has_a_score_too(lake: Lake) -> None:
    traced = lake.trace(PROMPT, FRANCE, encoder="corrected", k=1).to_dicts()[0]
    [other] = lake.sql(
        "SELECT passage_id FROM passages ANTI JOIN (FROM hits WHERE trace_id = ?) USING (passage_id) LIMIT 1",
        [traced["trace_id"]],
    ).to_dicts()
    found = lake.explain(traced["trace_id"], other["passage_id"])
    assert sum(token.share for token in found.tokens) == pytest.approx(found.score, abs=1e-5)


@pytest.mark.parametrize(
    ("passage", "named"), [("99", "no proponent of rank 99"), ("0", "no proponent"), ("x' OR '1'='1", "no passage")]
)
def test_what_is_not_there_is_named(lake: Lake, passage: str, named: str) -> None:
    lake.trace(PROMPT, FRANCE, encoder="corrected")
    with pytest.raises(NotFoundError, match=named):
        lake.explain("last", passage)


def test_a_passage_without_an_encoding_is_named(
    tmp_path: Path, make_checkpoint: Callable[..., Path], sentences: list[str]
) -> None:
    with proponent.init(tmp_path / "lake") as lake:
        lake.add_model(make_checkpoint(tmp_path / "model"), name="tiny")
        for n, some in enumerate((sentences[:30], sentences[30:])):
            file = tmp_path / f"{n}.jsonl"
            file.write_text("".join(json.dumps({"id": text, "text": text}) + "\n" for text in some), "utf-8")
            lake.ingest(file, corpus="c")
            if n == 0:
                lake.encode(settings=EncoderSettings(side=8, blocks=1, sample=20))
        lake.trace(PROMPT, FRANCE)
        [late] = lake.sql("SELECT passage_id FROM passages WHERE text = ?", [sentences[-1]]).to_dicts()
        with pytest.raises(NotFoundError, match="has no encoding by 'tiny' in the trace's snapshot"):
            lake.explain("last", late["passage_id"])


def test_the_command_prints_the_passage_and_its_strongest_tokens(lake: Lake, folder: Path) -> None:
    lake.trace(PROMPT, FRANCE, encoder="corrected", k=100)
    [hostile] = lake.sql("SELECT passage_id FROM passages WHERE text LIKE '%<b>%'").to_dicts()
    done = CliRunner().invoke(cli, ["explain", str(folder / "lake"), "last", hostile["passage_id"]])
    assert done.exit_code == 0, done.output
    assert "France" in done.stdout
    assert "<b>Paris</b>" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "which the shares add up to" in done.stderr


def test_the_command_gives_tokens_as_data(lake: Lake, folder: Path) -> None:
    lake.trace(PROMPT, FRANCE, encoder="corrected")
    done = CliRunner().invoke(cli, ["explain", str(folder / "lake"), "last", "1", "--format", "json", "-q"])
    rows = json.loads(done.stdout)
    assert set(rows[0]) == {"token", "char_start", "char_end", "share"}
    assert done.stderr == ""
