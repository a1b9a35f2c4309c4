"""Traces in the formats of other tools: what clients that nobody here wrote read of them, and the way back."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import ir_measures
import numpy as np
import pyarrow as pa
import pytest
from ir_measures import RR, P

import proponent
from proponent.lake import Lake
from proponent.query.export.trec import falling
from proponent.schema.errors import InputError, NotFoundError, SettingsError

QUESTIONS = [
    {"prompt": "The capital of", "target": " France", "id": "f1", "relation": "capital", "doc_keys": ["d0"]},
    {"prompt": "A river runs through", "target": " a\nquiet “town”", "id": "f2"},
]
COLUMNS = "side, rank, passage_id, score"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> Iterator[Lake]:
    """Sixty sentences, the first of them twice, and two questions by words."""
    folder = tmp_path_factory.mktemp("exchange")
    rows = [{"id": f"d{n}", "text": text} for n, text in enumerate([*sentences, sentences[0]])]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with proponent.init(folder / "lake") as lake:
        lake.ingest(folder / "rows.jsonl", corpus="c")
        lake.index_text()
        yield lake


@pytest.fixture(scope="module")
def traces(lake: Lake) -> list[str]:
    return lake.trace_all(QUESTIONS, method="bm25", query_set="facts")


@pytest.fixture(scope="module")
def sides(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A trace with hits on both sides, of a tool that knows other ids but the same texts."""
    file = tmp_path_factory.mktemp("sides") / "theirs.jsonl"
    passages = lake.sql("SELECT text FROM passages JOIN documents USING (doc_id) ORDER BY doc_key").to_dicts()
    record = viewer_record(
        proponents=[row["text"] for row in passages[:3]], proponent_ids=["x", "y", "z"],
        proponent_scores=[0.5, 0.1, 0.30000000000000004],
        opponents=[row["text"] for row in passages[3:5]], opponent_ids=["v", "w"], opponent_scores=[-7, -1e-9],
    )  # fmt: skip
    file.write_text(json.dumps(record) + "\n\n", "utf-8")
    [trace] = lake.import_traces(file, name="theirs")["traces"]
    return str(trace)


def viewer_record(**changes: Any) -> dict[str, Any]:
    return {"example_id": 7, "query_set": "trex", "inputs_plaintext": "Lyon is in", "targets_plaintext": " Gaul",
            "fact_id": "Q456"} | changes  # fmt: skip


def hits(lake: Lake, trace: str) -> list[dict[str, Any]]:
    return lake.sql(f"SELECT {COLUMNS} FROM hits WHERE trace_id = ? ORDER BY ALL", [trace]).to_dicts()


def ranked(lake: Lake, trace: str) -> list[tuple[str, int, str]]:
    return [(row["side"], row["rank"], row["passage_id"]) for row in hits(lake, trace)]


def written(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def test_the_viewer_format_has_a_record_for_each_trace(lake: Lake, traces: list[str], tmp_path: Path) -> None:
    counts = lake.export(tmp_path / "results.jsonl", traces=traces, form="viewer")
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text("utf-8").splitlines()]
    rows = [lake.hits([trace]).to_dicts() for trace in traces]
    assert counts == {"traces": 2, "hits": len(rows[0]) + len(rows[1])}
    for record, found, question in zip(records, rows, QUESTIONS, strict=True):
        assert record["example_id"] == found[0]["query_id"]
        assert (record["inputs_plaintext"], record["targets_plaintext"]) == (question["prompt"], question["target"])
        assert (record["query_set"], record["fact_id"]) == ("facts", question["id"])
        assert record["proponents"] == [row["text"] for row in found]
        assert record["proponent_ids"] == [row["passage_id"] for row in found]
        assert record["proponent_scores"] == [row["score"] for row in found]
        assert (record["opponents"], record["opponent_ids"], record["opponent_scores"]) == ([], [], [])
    assert records[0]["relation"] == "capital"
    gold = lake.sql("SELECT text FROM passages JOIN documents USING (doc_id) WHERE doc_key = 'd0'").to_dicts()[0][
        "text"
    ]
    assert records[0]["proponent_correct"] == [text == gold for text in records[0]["proponents"]]
    assert sum(records[0]["proponent_correct"]) == 2, "a repeated text is gold wherever it stands"
    assert "proponent_correct" not in records[1]


@pytest.mark.parametrize("n", [1, 2])
def test_the_viewer_format_comes_back_as_it_was(
    lake: Lake, traces: list[str], sides: str, tmp_path: Path, n: int
) -> None:
    file = tmp_path / "results.jsonl"
    lake.export(file, traces=[*traces, sides], form="viewer")
    before = lake.sql("SELECT query_id, prompt, target, query_set, metadata FROM queries ORDER BY ALL").to_dicts()
    done = lake.import_traces(file, name="again")
    assert len(set(done["traces"])) == 3
    for old, new in zip([*traces, sides], done["traces"], strict=True):
        assert hits(lake, new) == hits(lake, old) != []
        [facts] = lake.sql(
            "SELECT a.query_id = b.query_id AS same, b.method, b.encoder, b.snapshot > 0 AS stored "
            "FROM traces AS a, traces AS b WHERE a.trace_id = ? AND b.trace_id = ?",
            [old, new],
        ).to_dicts()
        assert facts == {"same": True, "method": "imported:again", "encoder": None, "stored": True}
    now = lake.sql("SELECT query_id, prompt, target, query_set, metadata FROM queries ORDER BY ALL").to_dicts()
    assert now == before
    snapshot = lake.snapshot
    assert lake.import_traces(file, name="again") == done
    assert lake.snapshot == snapshot, "the same again changes nothing"
    assert lake.check() == []


def test_what_another_tool_lists_is_matched_by_text_and_keeps_its_order(lake: Lake, sides: str) -> None:
    rows = lake.hits([sides]).to_dicts()
    assert [(row["side"], row["rank"], row["score"]) for row in rows] == [
        ("proponent", 1, 0.5), ("proponent", 2, 0.1), ("proponent", 3, 0.30000000000000004),
        ("opponent", 1, -7.0), ("opponent", 2, -1e-9),
    ]  # fmt: skip
    assert {row["method"] for row in rows} == {"imported:theirs"}
    assert (rows[0]["query_set"], rows[0]["prompt"], rows[0]["target"]) == ("trex", "Lyon is in", " Gaul")
    assert json.loads(rows[0]["query_metadata"]) == {"example_id": 7, "fact_id": "Q456"}
    assert all(row["percentile"] is None and not row["exact"] for row in rows)


def test_a_text_listed_twice_is_two_passages_and_no_third(lake: Lake, tmp_path: Path, sentences: list[str]) -> None:
    twice = viewer_record(proponents=[sentences[0]] * 2, proponent_scores=[2, 1])
    [trace] = lake.import_traces(written(tmp_path / "a.jsonl", twice), name="twice")["traces"]
    assert len({row["passage_id"] for row in hits(lake, trace)}) == 2
    thrice = viewer_record(proponents=[sentences[0]] * 3, proponent_scores=[3, 2, 1])
    with pytest.raises(InputError, match="1 of 3 hits"):
        lake.import_traces(written(tmp_path / "b.jsonl", thrice), name="thrice")


def test_hits_of_unknown_passages_are_refused_or_left_out(lake: Lake, tmp_path: Path, sentences: list[str]) -> None:
    record = viewer_record(
        proponents=["Nobody said this.", sentences[1], "Nor that's “this”."], proponent_ids=["o'x", "b", None],
        proponent_scores=[3, 2, 1],
    )  # fmt: skip
    file = written(tmp_path / "some.jsonl", record)
    n_traces = len(lake.sql("FROM traces"))
    with pytest.raises(InputError, match=r"2 of 3 hits .*\(o'x, a text without an id\); --skip-unknown"):
        lake.import_traces(file, name="some")
    assert len(lake.sql("FROM traces")) == n_traces
    done = lake.import_traces(file, name="some", skip_unknown=True)
    assert (done["hits"], done["unknown"]) == (1, 2)
    assert [row["rank"] for row in hits(lake, done["traces"][0])] == [2]
    nothing = viewer_record(proponents=["Nobody."], proponent_scores=[1])
    with pytest.raises(InputError, match="1 of 1 hits"):
        lake.import_traces(written(tmp_path / "none.jsonl", nothing), name="none", skip_unknown=True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "a.jsonl:2: is no JSON"),
        ("[1]", "a.jsonl:2: a record is a JSON object"),
        ('{"inputs_plaintext": "a"}', "needs a text `targets_plaintext`"),
        (json.dumps(viewer_record(proponents=["a"], proponent_scores=[1, 2])), "must be lists of one length"),
        (json.dumps(viewer_record(proponents=["a"], proponent_scores=[math.nan])), "no finite number"),
        (json.dumps(viewer_record(proponents=["a"], proponent_scores=["1"])), "no finite number"),
        (json.dumps(viewer_record(opponents="a", opponent_scores=[True])), "must be lists"),
    ],
)
def test_a_broken_viewer_file_names_the_line(lake: Lake, tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f"{json.dumps(viewer_record())}\n{line}\n", "utf-8")
    with pytest.raises(InputError, match=said):
        lake.import_traces(file, name="broken")


def test_trec_eval_scores_a_run_as_its_ranks_say(lake: Lake, traces: list[str], tmp_path: Path) -> None:
    run, qrels = tmp_path / "run.trec", tmp_path / "gold.qrels"
    assert lake.export(run, traces=traces)["traces"] == 2
    assert lake.export(qrels) == {"queries": 1, "rows": 2}
    judged = list(ir_measures.read_trec_qrels(str(qrels)))
    listed = list(ir_measures.read_trec_run(str(run)))
    assert [(one.query_id, one.doc_id) for one in listed] == [
        (row["query_id"], row["passage_id"]) for trace in traces for row in lake.hits([trace]).to_dicts()
    ]
    found = [row for row in lake.hits(traces[:1]).to_dicts() if row["passage_id"] in {one.doc_id for one in judged}]
    scores = ir_measures.pytrec_eval.calc_aggregate([RR, P @ 1], judged, listed)
    assert scores[RR] == pytest.approx(1 / found[0]["rank"])
    assert scores[P @ 1] == float(found[0]["rank"] == 1)


def test_trec_eval_orders_ties_as_the_trace_does(lake: Lake, tmp_path: Path, sentences: list[str]) -> None:
    near = [1.0, 1.0, 1.0, 1.0 - 1e-12, 0.5, 0.5, 0.0, 0.0, -1.0, -1.0]
    record = viewer_record(proponents=sentences[1:11], proponent_scores=near)
    [trace] = lake.import_traces(written(tmp_path / "ties.jsonl", record), name="ties")["traces"]
    lake.export(tmp_path / "ties.run", traces=trace)
    order = [row["passage_id"] for row in lake.hits([trace]).to_dicts()]
    listed = list(ir_measures.read_trec_run(str(tmp_path / "ties.run")))
    for rank, passage in enumerate(order, start=1):
        judged = [ir_measures.Qrel(listed[0].query_id, passage, 1)]
        scores = ir_measures.pytrec_eval.calc_aggregate([RR], judged, listed)
        assert scores[RR] == pytest.approx(1 / rank), f"trec_eval has passage {rank} at another rank"


def test_falling_scores_stay_as_they_are_and_others_go_down_by_as_little_as_floats_allow() -> None:
    assert list(falling([3.1, 2.0000000001, -1e300])) == [3.1, 2.0000000001, -1e300]
    scores = list(falling([1.0] * 1000))
    assert np.all(np.diff(np.float32(scores)) < 0)
    assert scores[0] == 1.0
    assert scores[-1] > 0.9999


@pytest.mark.parametrize("side", ["proponent", "opponent"])
def test_a_run_comes_back_as_it_was(lake: Lake, traces: list[str], sides: str, tmp_path: Path, side: str) -> None:
    old = sides if side == "opponent" else traces[0]
    file = tmp_path / f"{side}.trec"
    lake.export(file, traces=old, side=side, tag="mine")
    lines = file.read_text("utf-8").splitlines()
    assert {line.split()[5] for line in lines} == {"mine"}
    [new] = lake.import_traces(file, name="run", side=side)["traces"]
    expected = [row for row in hits(lake, old) if row["side"] == side]
    assert ranked(lake, new) == [(side, row["rank"], row["passage_id"]) for row in expected]
    scores = [row["score"] for row in hits(lake, new)]
    assert scores == pytest.approx([row["score"] for row in expected], rel=1e-6), "equal ones are a float apart"


def test_queries_go_by_a_field_of_their_metadata(lake: Lake, traces: list[str], tmp_path: Path) -> None:
    run, qrels = tmp_path / "run.trec", tmp_path / "gold.qrels"
    lake.export(run, traces=traces, query_id="id")
    lake.export(qrels, query_id="id", traces=traces)
    assert [line.split()[0] for line in qrels.read_text("utf-8").splitlines()] == ["f1", "f1"]
    assert {line.split()[0] for line in run.read_text("utf-8").splitlines()} == {"f1", "f2"}
    done = lake.import_traces(run, name="by_field", query_id="id")
    assert [ranked(lake, one) for one in done["traces"]] == [ranked(lake, one) for one in traces]
    with pytest.raises(NotFoundError, match=r"names 2 ids that no query of the lake has \(f1, f2\).*--queries FILE"):
        lake.import_traces(run, name="by_field")
    others = [{"id": "f1", "prompt": "New", "target": " one"}, {"id": "f2", "prompt": "Another", "target": " one"}]
    ids = lake.import_traces(run, name="given", queries=others, query_set="new")["traces"]
    asked = lake.sql("SELECT DISTINCT prompt, query_set FROM influence WHERE method = 'imported:given' ORDER BY ALL")
    assert [tuple(row) for row in asked] == [("Another", "new"), ("New", "new")]
    assert [ranked(lake, one) for one in ids] == [ranked(lake, one) for one in traces]
    with pytest.raises(InputError, match="has no 'relation'"):
        lake.export(run, traces=traces[1], query_id="relation")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("q Q0 p 1 0.5", "a.trec:1: needs 6 fields"),
        ("q Q0 p 1 0.5 tag more", "a.trec:1: needs 6 fields"),
        ("q Q0 p one 0.5 tag", "a.trec:1: needs 6 fields"),
        ("q Q0 p 1 nan tag", "a.trec:1: the score is no finite number"),
        ("\n\n", "has no lines"),
    ],
)
def test_a_broken_run_names_the_line(lake: Lake, tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "a.trec").write_text(lines, "utf-8")
    with pytest.raises(InputError, match=said):
        lake.import_traces(tmp_path / "a.trec", name="broken")


def test_a_run_that_lists_a_passage_twice_is_refused(lake: Lake, traces: list[str], tmp_path: Path) -> None:
    lake.export(tmp_path / "a.trec", traces=traces[0])
    text = (tmp_path / "a.trec").read_text("utf-8")
    (tmp_path / "a.trec").write_text(text + text.splitlines()[0], "utf-8")
    with pytest.raises(InputError, match="twice on one side"):
        lake.import_traces(tmp_path / "a.trec", name="twice")


def test_what_does_not_fit_a_form_is_refused(lake: Lake, traces: list[str], tmp_path: Path) -> None:
    for said, how in {
        "is of traces; name them": {"form": "trec"},
        "with a column trace_id": {"form": "viewer", "sql": "SELECT 1 AS n"},
        "the query names none": {"form": "trec", "sql": "SELECT trace_id FROM traces WHERE false"},
        "two traces": {"form": "trec", "traces": [traces[0], traces[0]]},
        "has no passage_id, relevance": {"form": "qrels", "sql": "SELECT query_id FROM queries"},
        "integer or a boolean": {"form": "qrels", "sql": "SELECT 'q' query_id, 'p' passage_id, 0.5 relevance"},
        "single words": {"form": "qrels", "sql": "SELECT 'q r' query_id, 'p' passage_id, 1 relevance"},
        "judge it once": {"form": "qrels", "sql": "SELECT 'q' query_id, 'p' passage_id, 1 relevance FROM range(2)"},
        "say which rows": {"form": "datasets"},
    }.items():
        with pytest.raises(InputError, match=said):
            lake.export(tmp_path / "out", **how)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingsError, match="one word"):
        lake.export(tmp_path / "out", form="trec", traces=traces, tag="a b")
    for name in ("", "a b", "x" * 24, "a:b"):
        with pytest.raises(SettingsError, match="cannot be the name"):
            lake.import_traces(tmp_path / "a.trec", name=name)


def test_a_run_of_traces_that_a_query_names_and_qrels_of_rows(lake: Lake, traces: list[str], tmp_path: Path) -> None:
    chosen = "SELECT trace_id FROM influence WHERE method = 'bm25' AND list_contains($ids, trace_id)"
    lake.export(tmp_path / "a.run", sql=chosen, parameters={"ids": traces[:1]})
    lake.export(tmp_path / "b.run", traces=traces[:1])
    assert (tmp_path / "a.run").read_text("utf-8") == (tmp_path / "b.run").read_text("utf-8") != ""
    rows = "SELECT passage_id, 'q' AS query_id, ordinal = 0 AS relevance FROM passages LIMIT 2"
    assert lake.export(tmp_path / "a.qrels", sql=rows) == {"rows": 2}
    assert [one.relevance for one in ir_measures.read_trec_qrels(str(tmp_path / "a.qrels"))] == [1, 1]


def test_imported_traces_have_no_gradients(lake: Lake, sides: str) -> None:
    for ask in (
        lambda: lake.explain(sides, "1"),
        lambda: lake.recompute(sides),
        lambda: lake.group_influence_of(sides),
    ):
        with pytest.raises(SettingsError, match=r"'imported:theirs', whose scores are not of gradients"):
            ask()


@pytest.mark.parametrize("suffix", [".md", ".html"])
def test_a_report_says_whose_results_they_are(
    lake: Lake, traces: list[str], sides: str, tmp_path: Path, suffix: str
) -> None:
    lake.report(sides, tmp_path / f"alone{suffix}")
    alone = (tmp_path / f"alone{suffix}").read_text("utf-8")
    assert "These are results of another tool." in alone
    assert "Passages that theirs lists for ‘Gaul’" in alone
    for word in ("gradient", "pushed", "learning from", "cosine", "No filter", "Asked again by", "Candidates"):
        assert word not in alone, word
    lake.report([traces[0], sides], tmp_path / f"both{suffix}")
    both = (tmp_path / f"both{suffix}").read_text("utf-8")
    assert "These are results of another tool." in both
    assert "Shared words are not influence." in both


def test_rows_are_a_dataset_that_its_library_loads(lake: Lake, tmp_path: Path) -> None:
    query = (
        "SELECT passage_id, text, ordinal, DATE '2020-02-29' AS day, [text, NULL] AS texts, {'n': 1} AS struct, "
        "NULL::DOUBLE AS none, now() AS at FROM passages ORDER BY passage_id"
    )
    assert lake.export(tmp_path / "rows", sql=query, form="datasets") == {"rows": 61}
    loaded = datasets.load_from_disk(str(tmp_path / "rows"))
    expected = lake.sql(query).to_dicts()
    assert [row | {"at": 0} for row in loaded] == [row | {"at": 0} for row in expected]
    assert loaded.features["texts"] == datasets.List(datasets.Value("string"))
    assert [path.name for path in tmp_path.iterdir()] == ["rows"], "nothing else is left"
    assert datasets.is_progress_bar_enabled()


def test_hits_are_a_dataset_and_no_rows_are_none(lake: Lake, traces: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no rows"):
        lake.export(tmp_path / "none", sql="SELECT text FROM passages WHERE false", form="datasets")
    assert list(tmp_path.iterdir()) == []
    lake.export(tmp_path / "hits", traces=traces[0], form="datasets")
    assert datasets.load_from_disk(str(tmp_path / "hits"))["score"][:] == [
        hit["score"] for hit in hits(lake, traces[0])
    ]


def test_a_dataset_is_written_whole_or_not_at_all(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").write_text("x", "utf-8")
    with pytest.raises(InputError, match="is there already"):
        lake.export(tmp_path / "mine", sql="SELECT 1 AS n", form="datasets")
    with pytest.raises(InputError, match="no type for column 'how_long'"):
        lake.export(tmp_path / "new", sql="SELECT INTERVAL 1 DAY AS how_long", form="datasets")
    with pytest.raises(InputError, match="late"):  # after a hundred thousand rows
        lake.export(
            tmp_path / "new",
            sql="SELECT if(range < 100000, 1, error('late')) AS n FROM range(100001)",
            form="datasets",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    lake.export(tmp_path / "empty", sql="SELECT 1 AS n", form="datasets")
    assert datasets.load_from_disk(str(tmp_path / "empty"))[0] == {"n": 1}


def test_a_dataset_reads_the_type_of_every_column_there_is(lake: Lake, tmp_path: Path) -> None:
    relations = ["documents", "passages", "queries", "traces", "influence", "runs"]
    for relation in relations:
        lake.export(tmp_path / relation, sql=f"FROM {relation} LIMIT 3", form="datasets")
        loaded = datasets.load_from_disk(str(tmp_path / relation))
        assert loaded.column_names == lake.sql(f"FROM {relation} LIMIT 0").columns
        assert isinstance(loaded.data.table, pa.Table)


def test_passages_that_were_withdrawn_are_unknown(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "Kept."}, {"id": "b", "text": "Gone."}]
    record = viewer_record(proponents=["Gone.", "Kept."], proponent_scores=[2, 1])
    with proponent.init(tmp_path / "lake") as lake:
        lake.ingest(written(tmp_path / "rows.jsonl", *rows), corpus="c")
        lake.import_traces(written(tmp_path / "a.jsonl", record), name="before")
        lake.export(tmp_path / "before.run", sql="SELECT trace_id FROM traces")
        lake.delete("doc_key = 'b'")
        for file in ("a.jsonl", "before.run"):
            with pytest.raises(InputError, match="1 of 2 hits"):
                lake.import_traces(tmp_path / file, name="after")
        done = lake.import_traces(tmp_path / "a.jsonl", name="after", skip_unknown=True)
        assert ranked(lake, done["traces"][0]) == [
            ("proponent", 2, lake.sql("FROM passages").to_dicts()[0]["passage_id"])
        ]
        assert lake.check() == []
