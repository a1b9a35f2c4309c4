"""A trace is a pure function of the question and of what is searched, asked through the public API."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import proponent
from proponent.lake import Lake
from proponent.query import encoded as module
from proponent.schema.errors import (
    EncodingError,
    FilterError,
    ModelMismatchError,
    NotFoundError,
    SettingsError,
)
from proponent.schema.settings import EncoderSettings
from proponent.store.codes import dequantise, read_codes
from proponent.store.lake import LakeStore

SETTINGS = {"side": 8, "blocks": 1, "sample": 40}
QUESTION = ("The capital of", " France")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> Path:
    """Sixty sentences, every tenth of them twice, with sources, dates and entities."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    rows = [
        {"id": f"d{n}", "text": text, "source": ["news", "wiki", None][n % 3], "date": f"20{10 + n % 10}-03-01",
         "entities": ["France"] if "France" in text else []}
        for n, text in enumerate([*sentences, *sentences[::10]])
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, corpus: Path) -> Iterator[Lake]:
    with proponent.init(tmp_path_factory.mktemp("traced") / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(corpus, corpus="c")
        lake.encode("tiny", encoder="corrected", settings=EncoderSettings(moments="estimated", **SETTINGS))
        lake.encode("tiny", encoder="plain", settings=EncoderSettings(moments="none", **SETTINGS))
        yield lake


def everything(lake: Lake) -> dict[str, Any]:
    status = lake.status()
    return {key: status[key] for key in ("rows", "traces", "snapshot")}


def direct_scores(lake: Lake, prompt: str, target: str, *, encoder: str, unit_norm: bool) -> dict[str, float]:
    """Score every passage from the lake's tables, without the search."""
    store, at = lake.store, lake.snapshot
    queries = store.table("queries", at=at).to_table(filter=f"encoder = '{encoder}'").to_pylist()
    (asked,) = lake.sql("SELECT query_id FROM queries WHERE prompt = ? AND target = ?", [prompt, target])
    (vector,) = [np.array(row["vector"]) for row in queries if row["query_id"] == asked.query_id]
    rows = store.table(f"encodings_{encoder}", at=at).to_table()
    scores = dequantise(read_codes(rows)) @ vector
    scores = scores / np.linalg.norm(vector) if unit_norm else scores * rows["norm"].to_numpy()
    by_text = dict(zip(rows["text_hash"].to_pylist(), scores.tolist(), strict=True))
    return {row.passage_id: by_text[row.text_hash] for row in lake.sql("SELECT passage_id, text_hash FROM passages")}


@pytest.mark.parametrize(("method", "encoder"), [("trackstar", "corrected"), ("logra", "plain"), ("trak", "plain")])
def test_hits_are_those_of_a_direct_computation_from_the_tables(lake: Lake, method: str, encoder: str) -> None:
    prompt, target = "A currency of", " Peru is the franc"
    rows = lake.trace(prompt, target, method=method, encoder=encoder, k=1000).to_dicts()
    scores = direct_scores(lake, prompt, target, encoder=encoder, unit_norm=method != "trak")
    largest = max(map(abs, scores.values()))
    assert sorted(row["passage_id"] for row in rows) == sorted(scores)
    for row in rows:
        score = scores[row["passage_id"]]
        assert row["score"] == pytest.approx(score, rel=1e-4, abs=1e-5 * largest)
        assert (row["score"] > 0) == (row["side"] == "proponent")
        lower = sum(other < score - 1e-6 * largest for other in scores.values())
        assert row["percentile"] == pytest.approx(100 * lower / len(scores))
    for side, sign in (("proponent", -1), ("opponent", 1)):
        group = [row for row in rows if row["side"] == side]
        assert [row["rank"] for row in group] == list(range(1, len(group) + 1))
        assert [sign * row["score"] for row in group] == sorted(sign * row["score"] for row in group)


def test_the_passage_that_is_the_question_is_its_own_first_proponent(lake: Lake, sentences: list[str]) -> None:
    prompt, target = sentences[7][:1], sentences[7][1:]
    rows = lake.trace(prompt, target, encoder="corrected", k=1).to_dicts()
    assert rows[0]["text"] == sentences[7]
    assert rows[0]["percentile"] > 95


def test_asking_twice_stores_nothing_new(lake: Lake) -> None:
    first = lake.trace(*QUESTION, encoder="corrected").to_dicts()
    before = everything(lake)
    assert lake.trace(*QUESTION, encoder="corrected").to_dicts() == first
    assert lake.trace_all([QUESTION, QUESTION], encoder="corrected") == [first[0]["trace_id"]] * 2
    assert everything(lake) == before


def test_a_trace_keeps_the_format_that_it_searched(tmp_path: Path, checkpoint_dir: Path, corpus: Path) -> None:
    with proponent.init(tmp_path / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(corpus, corpus="c")
        lake.encode(settings=EncoderSettings(moments="none", **SETTINGS))
        ids = []
        for codes in ("int8", "int4"):
            if codes == "int4":
                lake.requantise("tiny", codes=codes)
            ids += lake.trace_all([QUESTION], method="logra")
            report = lake.report(ids[-1], tmp_path / f"{codes}.md").read_text("utf-8")
            assert f"{codes} with block scales; they keep" in report
            assert "none: gradients are not corrected" in report
        assert ids[0] != ids[1]
        assert "int8 with block scales" in lake.report(ids[0], tmp_path / "again.md").read_text("utf-8")
        first, second = ({row.passage_id: row.score for row in lake.hits([trace_id])} for trace_id in ids)
        both = first.keys() & second.keys()
        assert len(both) > 10
        assert [first[key] for key in both] == pytest.approx([second[key] for key in both], abs=0.05)
        assert any(first[key] != second[key] for key in both)


def test_asking_twice_at_once_stores_it_once(lake: Lake) -> None:
    rows, before = lake.status()["rows"], lake.status()["traces"]
    ids = lake.trace_all([("Every language of", " Kenya"), ("Every language of", " Kenya")], encoder="corrected")
    assert ids[0] == ids[1]
    assert lake.status()["traces"] == before + 1
    assert lake.status()["rows"]["queries"] == rows["queries"] + 1


def test_another_process_that_stored_it_first_makes_no_second_copy(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from proponent.query import trace as module

    question, committing, waited = ("A language of", " Peru"), module.committing, []

    def after_another(store: LakeStore) -> Any:
        if not waited:
            waited.append(True)
            with proponent.open(lake.store.root) as other:
                other.trace(*question, encoder="corrected")
        return committing(store)

    monkeypatch.setattr(module, "committing", after_another)
    (trace_id,) = lake.trace_all([question], encoder="corrected")
    hits = lake.sql("SELECT side, rank, count(*) AS n FROM hits WHERE trace_id = ? GROUP BY ALL", [trace_id]).to_dicts()
    assert hits
    assert all(row["n"] == 1 for row in hits)
    stored = (
        lake.store.table("queries", at=lake.snapshot).to_table(filter="encoder = 'corrected'")["query_id"].to_pylist()
    )
    assert len(stored) == len(set(stored))


@pytest.mark.parametrize("change", [{"k": 3}, {"filter": "source = 'news'"}, {"filter": "true"}])
def test_another_question_is_another_trace_of_the_same_query(lake: Lake, change: dict[str, Any]) -> None:
    (first,) = lake.trace_all([QUESTION], encoder="corrected")
    queries = lake.status()["rows"]["queries"]
    (second,) = lake.trace_all([QUESTION], encoder="corrected", **change)
    assert first != second
    assert lake.status()["rows"]["queries"] == queries
    asked = lake.sql("SELECT DISTINCT query_id FROM traces WHERE trace_id IN (?, ?)", [first, second])
    assert len(asked) == 1


def test_a_trace_records_what_decides_it(lake: Lake) -> None:
    (trace_id,) = lake.trace_all([QUESTION], encoder="corrected", k=4, filter="ordinal = 0", query_set="facts")
    (row,) = lake.sql("SELECT * FROM traces WHERE trace_id = ?", [trace_id]).to_dicts()
    assert (row["encoder"], row["method"], row["curvature"], row["k"], row["exact"], row["recall"]) == (
        "corrected", "trackstar", "reference", 4, True, None,
    )  # fmt: skip
    assert (row["filter"], row["completed"]) == ("ordinal = 0", False)
    assert row["target_loss"] > 0
    assert row["target_tokens"] >= 1
    assert row["n_candidates"] == len(lake.sql("FROM passages"))
    run = lake.sql(
        "SELECT status, counts->>'traces' AS n FROM runs WHERE kind = 'trace' AND settings->>'traces' IS NOT NULL "
        "ORDER BY started_at DESC LIMIT 1"
    )
    assert [tuple(row) for row in run] == [("done", "1")]


def test_a_filter_chooses_before_the_search(lake: Lake) -> None:
    for where, count in (("entity('France')", 5), ("source = 'wiki' AND published < DATE '2012-01-01'", 3)):
        allowed = {row.passage_id for row in lake.sql(
            "SELECT p.passage_id FROM passages p JOIN documents d USING (doc_id) WHERE "
            + ("text LIKE '%France%'" if "entity" in where else where)
        )}  # fmt: skip
        assert len(allowed) >= count
        rows = lake.trace(*QUESTION, encoder="corrected", k=1000, filter=where).to_dicts()
        assert {row["passage_id"] for row in rows} == allowed
        everywhere = lake.trace(*QUESTION, encoder="corrected", k=1000).to_dicts()
        expected = [row["passage_id"] for row in everywhere if row["passage_id"] in allowed]
        assert [row["passage_id"] for row in rows] == expected


def test_repeated_passages_are_hits_of_equal_score(lake: Lake, sentences: list[str]) -> None:
    rows = lake.trace(*QUESTION, encoder="corrected", k=1000).to_dicts()
    twice = [row for row in rows if row["text"] == sentences[10]]
    assert len(twice) == 2
    assert twice[0]["score"] == twice[1]["score"]
    assert twice[0]["doc_id"] != twice[1]["doc_id"]


def test_a_query_is_encoded_once_and_scored_ever_after_with_the_same_vector(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, new = {"prompt": "The capital of", "target": " Kenya"}, {"prompt": "The capital of", "target": " Chile"}
    before = lake.trace_all([known], encoder="corrected", k=5)
    encode, encoded = module.encode_queries, list[str]()

    def counted(encoder: Any, queries: Any, *of: Any) -> Any:
        encoded.extend(query.target for query in queries)
        return encode(encoder, queries, *of)

    monkeypatch.setattr(module, "encode_queries", counted)
    told: list[int] = []
    lake.trace_all([new, known, new], encoder="corrected", k=6, progress=told.append)
    assert encoded == [" Chile"]
    assert sum(told) == 2
    again = lake.trace_all([known], encoder="corrected", k=9)
    assert encoded == [" Chile"]
    hits = "SELECT passage_id, score FROM hits WHERE trace_id = ? AND side = 'proponent' AND rank <= 5 ORDER BY rank"
    assert lake.sql(hits, again).to_dicts() == lake.sql(hits, before).to_dicts()
    facts = "SELECT target_loss, target_tokens FROM traces WHERE trace_id = ?"
    assert lake.sql(facts, again).to_dicts() == lake.sql(facts, before).to_dicts()


@pytest.mark.parametrize("method", ["trak", "logra", "graddot"])
def test_a_method_that_does_not_fit_the_encoder_names_the_command(lake: Lake, method: str) -> None:
    with pytest.raises(ModelMismatchError, match=r"make one with `proponent encode LAKE .*--moments none`"):
        lake.trace(*QUESTION, encoder="corrected", method=method)


def test_a_method_without_a_fitting_encoder_is_refused_for_trackstar_too(lake: Lake) -> None:
    with pytest.raises(ModelMismatchError, match=r"with second moments, 'plain' has 'none'.*--moments auto"):
        lake.trace(*QUESTION, encoder="plain")


def test_the_encoder_that_fits_the_method_is_found_without_a_name(lake: Lake) -> None:
    for method, encoder in (("trackstar", "corrected"), ("trak", "plain")):
        assert {row["encoder"] for row in lake.trace(*QUESTION, method=method).to_dicts()} == {encoder}


@pytest.mark.parametrize(
    ("prompt", "target", "error"),
    [("", "", EncodingError), ("The capital", "", EncodingError), ("word " * 200, " x", EncodingError)],
)
def test_a_question_without_an_encoding_stores_nothing(
    lake: Lake, prompt: str, target: str, error: type[Exception]
) -> None:
    before = everything(lake)
    with pytest.raises(error):
        lake.trace(prompt, target, encoder="corrected")
    assert everything(lake) == before


def test_a_bad_filter_or_setting_stores_nothing(lake: Lake) -> None:
    before = everything(lake)
    for settings, error in (
        ({"filter": "nowhere = 1"}, FilterError),
        ({"filter": "length(published) > 1"}, FilterError),
        ({"k": 0}, SettingsError),
        ({"method": "magic"}, SettingsError),
        ({"encoder": "missing"}, NotFoundError),
    ):
        with pytest.raises(error):
            lake.trace(*QUESTION, **{"encoder": "corrected"} | settings)
    assert everything(lake) == before


def test_new_passages_make_the_same_question_a_new_trace(
    tmp_path: Path, checkpoint_dir: Path, corpus: Path, sentences: list[str]
) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"id": "new", "text": "The capital of France and of Peru has many dialects."}) + "\n")
    with proponent.init(tmp_path / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(corpus, corpus="c")
        settings = EncoderSettings(moments="estimated", **SETTINGS)
        lake.encode(settings=settings)
        with pytest.raises(NotFoundError, match="has no index; build one with `proponent index`"):
            lake.trace(*QUESTION, approximate=True)
        old = lake.trace(*QUESTION, k=1000).to_dicts()
        [built, *_] = lake.index()["measured"]
        assert (built["method"], built["curvature"], built["k"]) == ("trackstar", "reference", 10)
        near = lake.trace(*QUESTION, k=5, approximate=True).to_dicts()
        assert [row["passage_id"] for row in near if row["side"] == "proponent"] == [
            row["passage_id"] for row in old if row["side"] == "proponent"
        ][:5]
        (row,) = lake.sql("SELECT exact, recall FROM traces WHERE trace_id = ?", [near[0]["trace_id"]])
        assert tuple(row) == (False, min(built["proponents"], built["opponents"]))
        exact = {row["passage_id"]: row for row in old}
        for row in near:  # the sample of so few candidates is all of them
            assert row["percentile"] == exact[row["passage_id"]]["percentile"]
            assert row["z_score"] == pytest.approx(exact[row["passage_id"]]["z_score"])
        lake.ingest(more, corpus="c2")
        assert lake.encode(settings=settings).encoded == 1
        for approximate in (False, True):
            rows = lake.trace(*QUESTION, k=1000, approximate=approximate).to_dicts()
            assert rows[0]["trace_id"] != old[0]["trace_id"]
            assert "new" in {row["doc_key"] for row in rows}
            assert len(rows) == len(old) + 1
        assert lake.trace(*QUESTION, k=1000).to_dicts() != old
