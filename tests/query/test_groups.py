"""The influence of groups is what an unlimited trace adds up to, for every method, curvature and kind of question."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import proponent
from proponent.encoders import EncoderCache
from proponent.lake import Lake
from proponent.schema.errors import EncodingError, ModelMismatchError, NotFoundError, SettingsError
from proponent.schema.settings import EncoderSettings
from proponent.store.lake import LakeConfig

SETTINGS: dict[str, Any] = {"side": 8, "blocks": 1, "sample": 40}
QUESTION = ("The capital of", " France")
TASK = [("The capital of", f" {place}") for place in ("France", "Peru", "Kenya")]
SOURCES = ["news", None, "O'Reilly", "日本"]
DATES = ["2001-05-06", "2001-05", "2001", None, "1998-12-31"]
ALL = 100_000
WAYS = [
    {"encoder": "estimated", "method": "trackstar"},
    {"encoder": "estimated", "method": "trackstar", "curvature": "capitals"},
    {"encoder": "estimated", "method": "trackstar", "curvature": "identity"},
    {"encoder": "none", "method": "logra"},
    {"encoder": "none", "method": "trak"},
    {"encoder": "none", "method": "gradcos"},
    {"encoder": "none", "method": "graddot"},
]
BY = {
    "source": "source",
    "corpus": "corpus",
    "month": "CASE published_precision WHEN 'year' THEN strftime(published, '%Y') "
    "ELSE strftime(published, '%Y-%m') END",
    "entity": "unnest(entities)",
}


def write(path: Path, sentences: list[str]) -> Path:
    rows = [
        {
            "id": f"{path.stem}{n}",
            "text": text,
            "source": SOURCES[n % 4],
            "date": DATES[n % 5],
            "entities": [name for name in ("France", "Peru", "日本") if name in text] + ["all"] * (n % 3 == 0),
        }
        for n, text in enumerate(sentences)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, sentences: list[str]) -> Iterator[Lake]:
    """Two corpora that have passages in common, with and without second moments, and a task's curvature."""
    folder = tmp_path_factory.mktemp("groups")
    with proponent.init(folder / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(write(folder / "first.jsonl", sentences[:40]), corpus="first")
        lake.ingest(write(folder / "second.jsonl", sentences[30:]), corpus="second")
        for kind in ("estimated", "none"):
            lake.encode("tiny", encoder=kind, settings=EncoderSettings(moments=kind, **SETTINGS))
        lake.fit_curvature(TASK, name="capitals", encoder="estimated")
        yield lake


def added_up(lake: Lake, trace_ids: list[str], by: str) -> dict[str | None, tuple[int, float]]:
    rows = lake.sql(
        f"SELECT name, count(*) AS n, sum(score) AS score FROM (SELECT {BY[by]} AS name, score FROM influence "
        "WHERE trace_id IN (SELECT unnest($ids))) GROUP BY name",
        {"ids": trace_ids},
    )
    return {row.name: (row.n, row.score) for row in rows}


def told(rows: list[dict[str, Any]]) -> dict[str | None, tuple[int, float]]:
    return {row["name"]: (row["n_passages"], row["influence"]) for row in rows}


def assert_same(found: dict[str | None, Any], expected: dict[str | None, Any]) -> None:
    scale = max(abs(score) for _, score in expected.values())
    assert found.keys() == expected.keys()
    for name, (n, score) in expected.items():
        assert found[name][0] == n, name
        assert found[name][1] == pytest.approx(score, rel=1e-4, abs=1e-5 * scale), name


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way.values()))
def test_influence_is_the_sum_of_all_scores(lake: Lake, way: dict[str, str]) -> None:
    trace_ids = lake.trace_all([QUESTION], k=ALL, **way)
    for by in BY:
        expected = added_up(lake, trace_ids, by)
        assert_same(told(lake.group_influence(*QUESTION, by=by, **way).to_dicts()), expected)
        assert_same(told(lake.group_influence_of(trace_ids[0], by=by).to_dicts()), expected)


@pytest.mark.parametrize("average", [True, False])
def test_sums_and_means_of_questions_are_answered_too(lake: Lake, average: bool) -> None:
    asked = [{"prompt": "The capital of", "target": " Peru", "instead": " France"}, TASK[0], TASK[0], TASK[2]]
    way: dict[str, Any] = {"encoder": "estimated", "curvature": "capitals", "average": average}
    trace_ids = lake.trace_all(asked, k=ALL, **way)
    rows = lake.group_influence_all(asked, by="source", **way).to_dicts()
    for trace_id in dict.fromkeys(trace_ids):
        (question,) = lake.sql(
            "SELECT prompt, target FROM traces JOIN queries USING (query_id) WHERE trace_id = ?", [trace_id]
        ).to_dicts()
        expected = added_up(lake, [trace_id], "source")
        of_one = [row for row in rows if (row["prompt"], row["target"]) == tuple(question.values())]
        assert_same(told(of_one), expected)
        assert_same(told(lake.group_influence_of(trace_id, by="source").to_dicts()), expected)
    assert len(rows) == 4 * len(trace_ids)


def test_columns_are_what_the_docs_say(lake: Lake) -> None:
    for by in BY:
        rows = lake.group_influence(*QUESTION, encoder="estimated", by=by).to_dicts()
        assert rows == sorted(rows, key=lambda row: -row["influence"])
        assert {row["kind"] for row in rows} == {by}
        assert {row["others"] for row in rows} == {0}
        for row in rows:
            assert row["mean"] == pytest.approx(row["influence"] / row["n_passages"])
            assert row["passage_share"] == pytest.approx(row["n_passages"] / 70)
        if by == "entity":
            assert {row["share"] for row in rows} == {None}
        else:
            assert sum(row["n_passages"] for row in rows) == 70
            assert sum(abs(row["share"]) for row in rows) == pytest.approx(1)
            assert all(row["share"] * row["influence"] >= 0 for row in rows)


def test_the_whole_is_the_same_however_it_is_grouped(lake: Lake) -> None:
    totals = [
        sum(row["influence"] for row in lake.group_influence(*QUESTION, encoder="estimated", by=by).to_dicts())
        for by in ("source", "month", "corpus")
    ]
    assert totals == pytest.approx([totals[0]] * 3, abs=1e-9)


def test_groups_without_a_sum_are_told_and_can_be_asked_for(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {by: lake.group_influence(*QUESTION, encoder="estimated", by=by).to_dicts() for by in BY}
    monkeypatch.setattr(lake.store, "config", LakeConfig(group_bytes=8 * 128 * 2))  # two of a kind
    for by, expected in whole.items():
        if len(expected) <= 2:
            continue
        rows = lake.group_influence(*QUESTION, encoder="estimated", by=by).to_dicts()
        assert [row["others"] for row in rows] == [0, 0, len(expected) - 2]
        if by == "entity":
            assert rows[-1]["influence"] is rows[-1]["n_passages"] is rows[-1]["share"] is None
        else:
            for column in ("n_passages", "influence", "passage_share"):
                total = sum(row[column] for row in expected)
                assert sum(row[column] for row in rows) == pytest.approx(total, abs=1e-9)
            assert sum(abs(row["share"]) for row in rows) == pytest.approx(1)
        names = [row["name"] for row in expected]
        named = lake.group_influence(*QUESTION, encoder="estimated", by=by, names=names).to_dicts()
        for row, one in zip(named, expected, strict=True):
            assert (row["name"], row["n_passages"]) == (one["name"], one["n_passages"])
            assert row["influence"] == pytest.approx(one["influence"], abs=1e-9)
    monkeypatch.undo()
    assert len(lake.group_influence(*QUESTION, encoder="estimated", by="month")) == len(whole["month"])


def test_k_leaves_the_extremes(lake: Lake) -> None:
    rows = lake.group_influence(*QUESTION, encoder="estimated", by="month").to_dicts()
    assert lake.group_influence(*QUESTION, encoder="estimated", by="month", k=1).to_dicts() == [rows[0], rows[-1]]
    assert lake.group_influence(*QUESTION, encoder="estimated", by="month", k=99).to_dicts() == rows


def test_asking_stores_nothing_and_a_stored_query_needs_no_model(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    (trace_id,) = lake.trace_all([("Every language of", " Kenya")], encoder="none", method="gradcos", k=3)
    before = (lake.snapshot, len(lake.sql("FROM queries")), len(lake.sql("FROM runs")))
    lake.group_influence("A currency of", " Peru", encoder="none", method="gradcos")
    monkeypatch.setattr(EncoderCache, "encoder", lambda *_args: pytest.fail("the model is loaded"))
    assert len(lake.group_influence_of(trace_id[:8])) == len(lake.group_influence_of("last")) == 4
    assert (lake.snapshot, len(lake.sql("FROM queries")), len(lake.sql("FROM runs"))) == before


def test_an_older_snapshot_is_counted_as_it_was(lake: Lake) -> None:
    (number,) = lake.sql("SELECT max(snapshot_id) AS n FROM snapshots JOIN runs USING (run_id) WHERE kind = 'encode'")
    assert sum(row.n_passages for row in lake.group_influence(*QUESTION, encoder="estimated", at=number.n)) == 70
    with pytest.raises(NotFoundError, match="has encoded nothing yet"):
        lake.group_influence(*QUESTION, encoder="estimated", at=2)
    with pytest.raises(NotFoundError, match="no snapshot 999"):
        lake.group_influence(*QUESTION, encoder="estimated", at=999)


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"by": "author"}, SettingsError, "groups are by source, entity, month, corpus, not 'author'"),
        ({"k": 0}, SettingsError, "k must be at least 1"),
        ({"by": "entity", "names": ["Atlantis"]}, NotFoundError, "no passage of entity 'Atlantis' is encoded"),
        ({"encoder": "none"}, ModelMismatchError, "takes an encoder with second moments"),
        ({"curvature": "none"}, NotFoundError, "has no curvature 'none'"),
        ({"method": "graddot", "curvature": "capitals"}, SettingsError, "takes no curvature"),
        ({"target": ""}, EncodingError, "target"),
    ],
)
def test_what_cannot_be_asked_is_named(lake: Lake, settings: dict[str, Any], error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        lake.group_influence(**{"prompt": "The capital of", "target": " France", "encoder": "estimated"} | settings)


def test_traces_of_queries_that_are_not_there_are_named(lake: Lake) -> None:
    with pytest.raises(NotFoundError, match="no trace 'nothere'"):
        lake.group_influence_of("nothere")


def test_whatever_happens_between_two_questions_counts(
    tmp_path: Path, checkpoint_dir: Path, sentences: list[str]
) -> None:
    with proponent.init(tmp_path / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(write(tmp_path / "c.jsonl", sentences[:30]), corpus="c")
        settings = EncoderSettings(moments="estimated", **SETTINGS)
        lake.encode(settings=settings)

        def check() -> dict[str | None, tuple[int, float]]:
            found = {by: told(lake.group_influence(*QUESTION, by=by).to_dicts()) for by in BY}
            trace_ids = lake.trace_all([QUESTION], k=ALL)
            for by in BY:
                assert_same(found[by], added_up(lake, trace_ids, by))
            return found["source"]

        first = check()
        lake.ingest(write(tmp_path / "c.jsonl", sentences[10:40]), corpus="c")  # other texts of the same documents
        assert check() != first
        lake.encode(settings=settings)
        lake.delete("source = 'news'")
        assert "news" not in check()
        (tmp_path / "names.jsonl").write_text('{"entity": "river"}\n', "utf-8")
        lake.extract_entities(tmp_path / "names.jsonl")
        lake.mark("source = '日本'", trained_on=True)
        check()
        lake.requantise(codes="int4")
        lake.compact(forget=True)
        check()
