"""Recall is what the exact scan says, for every method and curvature, and an index is used only where it is known."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import proponent
from proponent.encode.methods import METHODS, query_vectors
from proponent.encoders import encoder_row
from proponent.lake import Lake
from proponent.query import recall as module
from proponent.query.curvatures import find_curvature
from proponent.query.recall import find_index, measure_index
from proponent.schema.errors import NotFoundError, SettingsError
from proponent.schema.settings import EncoderSettings, TraceSettings
from proponent.schema.tables import encodings_table
from proponent.store.indexes import Proposer, build_index
from proponent.store.matching import rows_of
from proponent.store.scan import exact_scan

SETTINGS = EncoderSettings(moments="none", blocks=1, side=8, sample=8)
QUESTION = ("The capital of", " France")
TASK = [("The capital of", " France"), ("The currency of", " Peru"), ("The capital of", " Peru")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, sentences: list[str]) -> Iterator[Lake]:
    """A lake whose index was measured under two curvatures, for four methods."""
    folder = tmp_path_factory.mktemp("recall")
    texts = [f"{one} {other}" for place, one in enumerate(sentences) for other in sentences[place + 1 : place + 12]]
    rows = [{"id": f"d{place}", "text": text, "source": f"s{place % 3}"} for place, text in enumerate(texts[:600])]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with proponent.init(folder / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(folder / "corpus.jsonl", corpus="c")
        lake.encode(settings=SETTINGS)
        lake.fit_curvature(TASK, name="task")
        lake.index()
        yield lake


def row_of(lake: Lake, name: str = "tiny") -> Any:
    return encoder_row(lake.store, name)


def test_every_method_is_measured_under_every_curvature_that_it_takes(made: Lake) -> None:
    [encoder] = made.status()["encoders"]
    measured = {(one["method"], one["curvature"], one["k"]) for one in encoder["index"]["measured"]}
    fitted = {(method, curvature) for method in ("logra", "trak") for curvature in ("reference", "task")}
    pairs = {*fitted, ("gradcos", "identity"), ("graddot", "identity")}
    assert measured == {(*pair, k) for pair in pairs for k in (10, 100)}
    assert encoder["index"]["measured_with"] == "stored encodings"
    assert encoder["index"]["queries"] == 32
    assert all(0 <= one[side] <= 1 for one in encoder["index"]["measured"] for side in ("proponents", "opponents"))


@pytest.mark.parametrize(
    ("method", "curvature"),
    [("logra", "task"), ("trak", "reference"), ("gradcos", "identity"), ("graddot", "identity")],
)
def test_the_recall_is_the_share_of_the_exact_scans_best_that_is_proposed(
    made: Lake, method: str, curvature: str
) -> None:
    lake, row, at = made.store, row_of(made), made.snapshot
    table = lake.table(encodings_table("tiny"), at=at)
    texts = table.to_table(columns=["text_hash"])["text_hash"].combine_chunks()
    sample = module._sample(lake, at, "tiny", texts, 32)
    named = find_curvature(lake, row, None, curvature)
    queries = query_vectors(METHODS[method], named.curvature, sample.psi).numpy()
    unit_norm = METHODS[method].unit_norm
    norms = named.norms(lake, at) if unit_norm else None
    truths = exact_scan(table, queries, k=10, unit_norm=unit_norm, norms=norms)
    [told] = [
        one
        for one in made.status()["encoders"][0]["index"]["measured"]
        if (one["method"], one["curvature"], one["k"]) == (method, curvature, 10)
    ]
    proposer = Proposer(lake, at, "tiny", rows_of(table, texts))
    shares: dict[str, list[float]] = {"proponents": [], "opponents": []}
    for query, truth in zip(queries, truths, strict=True):
        near = proposer.propose(query, 10 * told["proposed"])
        within = set((texts if near is None else near).to_pylist())
        for side, ranked in zip(shares, truth, strict=True):
            shares[side].append(sum(key in within for key in ranked.keys) / 10)
    for side, found in shares.items():
        assert told[side] == pytest.approx(np.mean(found))
    assert min(told["proponents"], told["opponents"]) >= 0.95


@pytest.mark.parametrize(
    "where", [None, "source = 's1'", "source <> 's0'", "doc_key < 'd2'", "doc_key = 'd7'", "false"]
)
@pytest.mark.parametrize("settings", [{}, {"curvature": "task"}, {"method": "trak"}, {"method": "gradcos"}])
def test_what_an_index_finds_has_its_exact_score_and_passes_the_filter(
    made: Lake, where: str | None, settings: dict[str, Any]
) -> None:
    asked = {"method": "logra", "filter": where, "k": 10} | settings
    exact = made.trace(*QUESTION, **asked | {"k": 1000}).to_dicts()
    near = made.trace(*QUESTION, **asked, approximate=True).to_dicts()
    scores = {hit["passage_id"]: hit["score"] for hit in exact}
    for hit in near:
        assert hit["score"] == pytest.approx(scores[hit["passage_id"]], rel=1e-5)
    best = {(hit["side"], hit["passage_id"]) for hit in exact if hit["rank"] <= 10}
    found = {(hit["side"], hit["passage_id"]) for hit in near}
    assert len(found) == len(best)
    assert len(found & best) >= 0.85 * len(best)
    facts = made.sql("SELECT exact, recall FROM traces WHERE trace_id = ?", [near[0]["trace_id"]]) if near else []
    assert all(fact.exact is False and fact.recall >= 0.95 for fact in facts)


def test_what_was_not_measured_is_refused(made: Lake) -> None:
    with pytest.raises(NotFoundError, match="under curvature 'identity'; run `proponent index`"):
        made.trace(*QUESTION, method="logra", curvature="identity", approximate=True)


def test_too_low_a_recall_is_refused_with_its_figure_unless_it_is_asked_for(
    made: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = module.recorded_index(made.store, module.built_index(made.store, made.snapshot, "tiny"))  # type: ignore[arg-type]
    assert found is not None
    figures = {10: {"proponents": 0.91, "opponents": 0.97}, 100: {"proponents": 0.99, "opponents": 0.8125}}
    measured = [
        {"method": "logra", "curvature": "reference", "k": k, "proposed": 10 + k} | figures[k] for k in (10, 100)
    ]
    found.recall = {"queries": 8, "measured_with": "stored queries", "measured": measured}
    monkeypatch.setattr(module, "recorded_index", lambda _lake, _built: found)

    def find(k: int, min_recall: float = 0.95) -> Any:
        settings = TraceSettings(method="logra", k=k, min_recall=min_recall, approximate=True)
        return find_index(made.store, made.snapshot, "tiny", settings, curvature="reference")

    for k in (1, 10):
        with pytest.raises(SettingsError, match=r"found 0\.910 of the 10 best proponents .* --min-recall 0\.91"):
            find(k)
        assert (find(k, 0.9).recall, find(k, 0.9).proposed) == (0.91, 20)
    for k in (11, 100, 5000):
        with pytest.raises(SettingsError, match=r"found 0\.812 of the 100 best opponents .* --min-recall 0\.812"):
            find(k, 0.9)
        assert (find(k, 0.8).recall, find(k, 0.8).proposed) == (0.8125, 110)


def test_an_index_that_has_grown_is_unmeasured_until_that_is_done(
    made: Lake, tmp_path: Path, sentences: list[str]
) -> None:
    shutil.copytree(made.store.root, tmp_path / "lake")
    rows = [{"id": f"n{place}", "text": f"{sentences[place]} {sentences[0]}"} for place in range(30, 40)]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with proponent.open(tmp_path / "lake") as lake:
        asked: dict[str, Any] = {"method": "logra", "k": 500, "approximate": True}
        lake.ingest(tmp_path / "more.jsonl", corpus="new")
        lake.encode(settings=SETTINGS)
        hits = lake.trace(*QUESTION, **asked).to_dicts()  # by the old index, and the new rows beside it
        assert {f"n{place}" for place in range(30, 40)} <= {hit["doc_key"] for hit in hits}
        build_index(lake.store, row_of(lake))
        with pytest.raises(NotFoundError, match="was not measured for method 'logra'"):
            lake.trace(*QUESTION, **asked)
        measure_index(lake.store, lake.snapshot, row_of(lake))
        again = lake.trace(*QUESTION, **asked).to_dicts()
        assert [hit["passage_id"] for hit in again] == [hit["passage_id"] for hit in hits]


def test_stored_queries_are_what_recall_is_measured_with_once_there_are_some(made: Lake, tmp_path: Path) -> None:
    shutil.copytree(made.store.root, tmp_path / "lake")
    with proponent.open(tmp_path / "lake") as lake:
        lake.trace_all([("The capital of", f" {name}") for name in ("Peru", "Kenya", "Chile", "Cuba")], method="logra")
        assert lake.index()["measured_with"] == "stored encodings"
        lake.trace_all([("The currency of", f" {name}") for name in ("Peru", "Kenya", "Chile", "Cuba")], method="logra")
        told = lake.index()
        stored = lake.store.table("queries", at=lake.snapshot).to_table(columns=["query_id"])
        assert (told["measured_with"], told["queries"]) == ("stored queries", min(32, len(stored)))
