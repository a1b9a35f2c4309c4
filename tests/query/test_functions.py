"""Functions in SQL give what traces and groups give, store nothing, and load a model only when they ask one."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import proponent
from proponent.encoders import EncoderCache
from proponent.lake import Lake
from proponent.query import influences
from proponent.query.functions import may_call
from proponent.query.hit_columns import LIVE_HITS
from proponent.query.session import Session
from proponent.schema.errors import (
    FilterError,
    InputError,
    ModelMismatchError,
    NotFoundError,
    SettingsError,
    SqlError,
)
from proponent.schema.settings import EncoderSettings, SqlSettings

SETTINGS: dict[str, Any] = {"side": 8, "blocks": 1, "sample": 40}
TASK = [("The capital of", f" {place}") for place in ("France", "Peru", "Kenya")]
QUESTION = ("The capital of", " France")
ALL = 100_000
WAYS = [
    {"encoder": "estimated", "method": "trackstar"},
    {"encoder": "estimated", "method": "trackstar", "curvature": "capitals"},
    {"encoder": "none", "method": "trak"},
    {"encoder": "none", "method": "gradcos"},
]
LONG = "SELECT count(*) FROM (SELECT 'a' || i AS p FROM range(3000) r(i)) q, trace(q.p, ' b', encoder := 'estimated')"


def write(path: Path, sentences: list[str]) -> Path:
    rows = [
        {
            "id": f"{path.stem}{n}",
            "text": text,
            "source": ["news", None, "O'Reilly", "日本"][n % 4],
            "date": ["2001-05-06", "2001-05", "2001", None, "1998-12-31"][n % 5],
            "entities": [name for name in ("France", "Peru", "日本") if name in text],
        }
        for n, text in enumerate(sentences)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, sentences: list[str]) -> Iterator[Lake]:
    """Two corpora that have passages in common, with and without second moments, and a task's curvature."""
    folder = tmp_path_factory.mktemp("functions")
    with proponent.init(folder / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(write(folder / "first.jsonl", sentences[:40]), corpus="first")
        lake.ingest(write(folder / "second.jsonl", sentences[30:]), corpus="second")
        for kind in ("estimated", "none"):
            lake.encode("tiny", encoder=kind, settings=EncoderSettings(moments=kind, **SETTINGS))
        lake.fit_curvature(TASK, name="capitals", encoder="estimated")
        yield lake


def state(lake: Lake) -> tuple[Any, ...]:
    """What changes with everything that is stored: traces, snapshots and runs."""
    return tuple(lake.sql("SELECT (SELECT count(*) FROM traces), (SELECT max(snapshot_id) FROM snapshots), "
                          "(SELECT count(*) FROM runs)").to_dicts()[0].values())  # fmt: skip


def named(way: dict[str, str]) -> str:
    return "".join(f", {name} := '{value}'" for name, value in way.items())


def scores(rows: Any) -> dict[str, float]:
    return {row.passage_id: row.score for row in rows}


def test_a_statement_that_asks_no_model_does_not_import_torch(lake: Lake) -> None:
    script = (
        "import sys, proponent\n"
        "with proponent.open(sys.argv[1]) as lake:\n"
        "    lake.sql('SELECT * FROM influence JOIN queries USING (query_id)')\n"
        "    lake.sql('SELECT * FROM duckdb_functions()')\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(lake.store.root)], check=True)


def test_what_is_stored_is_answered_without_a_model(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = lake.trace_all([QUESTION, ("A language of", " Peru")], encoder="estimated")
    monkeypatch.setattr(EncoderCache, "encoder", None)
    for query in (
        "FROM proponents(?)",
        "FROM opponents(?)",
        "FROM group_influence(?)",
        "SELECT influence(?, passage_id) FROM passages",
    ):
        assert len(lake.sql(query, [a])) > 3
    assert len(lake.sql("FROM compare(?, ?)", [a, b])) > 10
    with pytest.raises(TypeError, match="not callable"):
        lake.sql("FROM trace('a', encoder := 'estimated')")


@pytest.mark.parametrize("where", [None, "source = 'news'"])
def test_a_live_trace_is_the_stored_one(lake: Lake, where: str | None) -> None:
    before = state(lake)
    live = lake.sql(
        "FROM trace('A language of', ' Peru', k := 7, filter := ?, encoder := 'estimated', instead := ' Kenya')",
        [where],
    )
    assert state(lake) == before
    assert live.columns == LIVE_HITS.names
    ids = lake.trace_all(
        [{"prompt": "A language of", "target": " Peru", "instead": " Kenya"}], encoder="estimated", k=7, filter=where
    )
    columns = ", ".join(name for name in LIVE_HITS.names if name != "snapshot")
    stored = lake.sql(f"SELECT {columns} FROM influence WHERE trace_id = ? ORDER BY side DESC, rank", ids).to_dicts()
    told = [{name: value for name, value in row.items() if name != "snapshot"} for row in live.to_dicts()]
    assert len(stored) == 14
    for row in (*stored, *told):
        row["entities"] = sorted(row["entities"])
    for one, other in zip(told, stored, strict=True):
        assert one == other | {"z_score": pytest.approx(other["z_score"])}


def test_without_a_target_the_model_completes(lake: Lake) -> None:
    rows = lake.sql("SELECT DISTINCT target FROM trace('The capital of', encoder := 'estimated')")
    assert [row.target for row in rows] == [lake.complete("The capital of", encoder="estimated")]


def test_a_row_of_a_table_is_a_question(lake: Lake) -> None:
    rows = lake.sql(
        "SELECT q.n, q.t, hit.target, hit.passage_id, hit.score "
        "FROM (VALUES (1, ' Peru'), (2, ' Kenya'), (3, ' Peru')) q(n, t), "
        "trace('The capital of', q.t, k := q.n, encoder := 'estimated') AS hit ORDER BY q.n"
    ).to_dicts()
    assert [row["n"] for row in rows] == [1] * 2 + [2] * 4 + [3] * 6
    assert all(row["t"] == row["target"] for row in rows)
    assert {row["passage_id"] for row in rows if row["n"] == 1} <= {row["passage_id"] for row in rows if row["n"] == 3}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way.values()))
@pytest.mark.parametrize("some_at_a_time", [True, False])
def test_influence_is_the_score_of_an_exact_trace(
    lake: Lake, way: dict[str, str], some_at_a_time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if some_at_a_time:
        monkeypatch.setattr(influences, "_CALL", 0)
        monkeypatch.setattr(influences, "_ROW", 0)
    (trace_id,) = lake.trace_all([QUESTION], k=ALL, **way)
    stored = scores(lake.sql("SELECT passage_id, score FROM hits WHERE trace_id = ?", [trace_id]))
    with Session(lake.store, lake.snapshot) as session:
        for limit in (1, 5, 1000):
            rows = session.sql(
                "SELECT passage_id, influence($id, passage_id) AS score "
                "FROM (SELECT passage_id FROM passages LIMIT $n) ORDER BY score DESC, passage_id",
                {"id": trace_id, "n": limit},
            )
            assert scores(rows) == {row.passage_id: stored[row.passage_id] for row in rows}
    assert len(rows) == len(stored) == 70
    order = lake.sql(
        "SELECT rank FROM influence WHERE trace_id = ? AND side = 'proponent' "
        "ORDER BY influence(trace_id, passage_id) DESC, rank",
        [trace_id],
    )
    assert [row.rank for row in order] == list(range(1, len(order) + 1))


def test_many_batches_on_many_threads_are_scored_alike(lake: Lake) -> None:
    (trace_id,) = lake.trace_all([QUESTION], k=ALL, encoder="estimated")
    with Session(lake.store, lake.snapshot, threads=4) as session:
        (row,) = session.sql(
            "SELECT count(*) AS n, count(DISTINCT score) AS scores FROM (SELECT passage_id, "
            "influence(?, passage_id) AS score FROM passages, range(500)) WHERE score IS NOT NULL",
            [trace_id],
        )
        expected = session.sql("SELECT count(DISTINCT score) AS n FROM hits WHERE trace_id = ?", [trace_id])
    assert row.n == 70 * 500
    assert [row.scores] == [one.n for one in expected]


def test_influence_of_nothing_and_of_what_is_not_encoded_is_null(lake: Lake, tmp_path: Path) -> None:
    (trace_id,) = lake.trace_all([QUESTION], encoder="estimated")
    (row,) = lake.sql("SELECT influence(NULL, 'x') AS a, influence(?, NULL) AS b", [trace_id])
    assert (row.a, row.b) == (None, None)
    shutil.copytree(lake.store.root, tmp_path / "lake")
    with proponent.open(tmp_path / "lake") as other:
        other.ingest(write(tmp_path / "third.jsonl", ["Nobody has encoded this."]), corpus="third")
        query = "SELECT corpus, influence(?, passage_id) AS score FROM passages JOIN documents USING (doc_id)"
        rows = other.sql(query, [trace_id])
        assert {row.corpus for row in rows if row.score is None} == {"third"}
        (task,) = other.trace_all([QUESTION], k=ALL, encoder="estimated", curvature="capitals")
        other.encode("tiny", encoder="estimated", settings=EncoderSettings(moments="estimated", **SETTINGS))
        # Norms of the new text under the task's curvature are missing; a SELECT computes and does not keep them.
        before = state(other)
        live = scores(other.sql("SELECT passage_id, influence(?, passage_id) AS score FROM passages", [task]))
        found = other.sql("FROM proponents(?, k := 1000) UNION ALL FROM opponents(?, k := 1000)", [task, task])
        assert state(other) == before
        other.sql("FROM trace('The capital of', ' France', encoder := 'estimated', curvature := 'capitals')")
        assert state(other) == before
        (again,) = other.trace_all([QUESTION], k=ALL, encoder="estimated", curvature="capitals")
        assert state(other) != before
        stored = scores(other.sql("SELECT passage_id, score FROM hits WHERE trace_id = ?", [again]))
        assert len(stored) == 71
        assert live == stored == scores(found)


@pytest.mark.parametrize("way", WAYS[1:3], ids=lambda way: "-".join(way.values()))
def test_both_sides_of_a_stored_query_are_those_of_its_trace(lake: Lake, way: dict[str, str]) -> None:
    average = [QUESTION, ("A language of", " Kenya")]
    for trace_id in (*lake.trace_all([QUESTION], k=4, **way), *lake.trace_all(average, k=4, average=True, **way)):
        stored = lake.hits([trace_id]).to_dicts()
        for name in (trace_id, trace_id[:10]):
            live = both_sides(lake, name)
            assert [row[:3] for row in live] == [(row["side"], row["rank"], row["passage_id"]) for row in stored]
            assert [row[3] for row in live] == pytest.approx([row["score"] for row in stored], rel=1e-5)


def both_sides(lake: Lake, name: str) -> list[tuple[Any, ...]]:
    sides = "FROM proponents($1, k := 4) UNION ALL FROM opponents($1, k := 4)"
    return [tuple(row) for row in lake.sql(f"SELECT side, rank, passage_id, score FROM ({sides})", [name])]


def test_a_query_goes_by_its_newest_trace(lake: Lake) -> None:
    question = [("Every highest mountain of", " France")]
    (first,) = lake.trace_all(question, k=4, encoder="none", method="trak")
    (newest,) = lake.trace_all(question, k=4, encoder="none", method="gradcos")
    (row,) = lake.sql("SELECT query_id FROM traces WHERE trace_id = ?", [newest])
    assert both_sides(lake, row.query_id) == both_sides(lake, "last") == both_sides(lake, newest)
    assert both_sides(lake, newest) != both_sides(lake, first)
    sources = lake.sql("SELECT source FROM proponents(?, k := 3, filter := ?)", [newest, "source = 'news'"])
    assert {row.source for row in sources} == {"news"}


def test_a_query_that_only_a_mean_asked_is_scored_by_its_encoders_first_method(lake: Lake) -> None:
    asked = [("Every currency of", " Peru"), ("Every currency of", " Kenya")]
    lake.trace_all(asked, average=True, encoder="none", method="trak")
    (query_id,) = (row.query_id for row in lake.sql("SELECT query_id FROM queries WHERE target = ' Kenya' "
                                                    "AND prompt = 'Every currency of'"))  # fmt: skip
    assert {row.method for row in lake.sql("SELECT method FROM proponents(?)", [query_id])} == {"logra"}


@pytest.mark.parametrize("kind", ["source", "entity", "month", "corpus"])
def test_groups_are_those_of_the_trace(lake: Lake, kind: str) -> None:
    (trace_id,) = lake.trace_all([QUESTION], encoder="estimated", curvature="capitals")
    expected = [
        {name: value for name, value in row.items() if name not in ("prompt", "target")}
        for row in lake.group_influence_of(trace_id, by=kind).to_dicts()
    ]
    assert lake.sql("FROM group_influence(?, ?)", [trace_id, kind]).to_dicts() == expected
    (row,) = lake.sql("SELECT query_id FROM traces WHERE trace_id = ?", [trace_id])
    assert lake.sql("FROM group_influence(?, kind := ?)", [row.query_id, kind]).to_dicts() == expected


def test_compare_joins_two_traces_by_side_and_passage(lake: Lake) -> None:
    a, b = (*lake.trace_all([QUESTION], k=5, **WAYS[0]), *lake.trace_all([QUESTION], k=5, **WAYS[1]))
    rows = lake.sql("FROM compare(?, ?)", [a, b]).to_dicts()
    both = {trace_id: {(hit["side"], hit["passage_id"]): hit for hit in lake.hits([trace_id]).to_dicts()}
            for trace_id in (a, b)}  # fmt: skip
    assert {(row["side"], row["passage_id"]) for row in rows} == {*both[a], *both[b]}
    for row in rows:
        for trace_id, side in ((a, "a"), (b, "b")):
            hit = both[trace_id].get((row["side"], row["passage_id"]), {})
            assert (row[f"rank_{side}"], row[f"score_{side}"]) == (hit.get("rank"), hit.get("score"))
            assert row["text"] == hit.get("text", row["text"])
            if hit:
                assert row[f"z_score_{side}"] == pytest.approx(hit["z_score"])
        if row["rank_a"] and row["rank_b"]:
            assert row["rank_change"] == row["rank_b"] - row["rank_a"]
    assert any(row["rank_a"] is None for row in rows)
    assert lake.sql("FROM compare(?, ?) WHERE rank_change <> 0", [a, a]).to_dicts() == []


@pytest.mark.parametrize(
    ("query", "error", "says"),
    [
        ("FROM proponents('nothing')", NotFoundError, "no trace or query 'nothing'; list them with"),
        ("FROM opponents(NULL)", InputError, r"opponents\(\) got NULL in the place of a trace's or query's id"),
        ("FROM group_influence('last', 'sauce')", SettingsError, "groups are by source, entity, month, corpus"),
        ("FROM compare('last', 'nothing')", NotFoundError, "no trace 'nothing'"),
        ("SELECT influence('last', 'nothing')", NotFoundError, "no passage 'nothing' at snapshot"),
        ("SELECT influence('last', 'a' || repeat('b', 25))", NotFoundError, "no passage 'abbbbbbbbbbbbbbbbbbbbbbbbb'"),
        ("FROM trace('a', ' b', filter := 'nothing = 1')", FilterError, "no column 'nothing' to filter by"),
        ("FROM trace('a', ' b', method := 'bm25')", SettingsError, r"trace\(\) is by one of trackstar"),
        ("FROM trace('a', ' b', method := 'trak', encoder := 'estimated')", ModelMismatchError, "'trak' takes"),
        ("FROM trace('a', ' b', encoder := 'nobody')", NotFoundError, "no encoder 'nobody'"),
        ("FROM trace('a', ' b', encoder := 'estimated', curvature := 'x')", NotFoundError, "no curvature 'x'"),
        ("FROM trace('a', ' b', k := 0)", SettingsError, "k must be between 1 and"),
        ("FROM trace(NULL)", InputError, r"trace\(\) got NULL in the place of a prompt"),
        ("FROM trace('a', goal := 'b')", SqlError, r"It is trace\(prompt, target := NULL, k := 10"),
        ("FROM (VALUES ('a', ' b'), ('a', '')) q(p, t), trace(q.p, q.t, encoder := 'estimated')", ValueError, "empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_named_in_one_line(lake: Lake, query: str, error: type[Exception], says: str) -> None:
    lake.trace_all([QUESTION], encoder="estimated", k=2)
    with pytest.raises(error, match=says) as caught:
        lake.sql(query)
    assert "\n" not in str(caught.value)
    assert lake.sql("SELECT 1 AS x").to_dicts() == [{"x": 1}]


def test_a_trace_by_words_has_no_influence(lake: Lake) -> None:
    lake.index_text()
    (trace_id,) = lake.trace_all([QUESTION], method="bm25")
    for query in ("FROM proponents(?)", "FROM group_influence(?)", "SELECT influence(?, passage_id) FROM passages"):
        with pytest.raises(SettingsError, match="whose scores are not of gradients"):
            lake.sql(query, [trace_id])


def test_plans_are_made_without_a_model(lake: Lake) -> None:
    def refuse(_name: str | None, *, with_moments: bool) -> Any:
        raise AssertionError("the model was asked for")

    with Session(lake.store, lake.snapshot, load=refuse) as session:
        for statement in ("EXPLAIN FROM trace('a')", "PREPARE asked AS FROM trace($1, k := 3)"):
            session._connection.execute(statement)
        with pytest.raises(AssertionError, match="was asked for"):
            session.sql("FROM trace('a')")
    with Session(lake.store, lake.snapshot) as session, pytest.raises(SettingsError, match="cannot load a model"):
        session.sql("FROM trace('a')")


def test_an_earlier_snapshot_is_searched_as_it_was(lake: Lake) -> None:
    (row,) = lake.sql("SELECT max(snapshot_id) AS n FROM snapshots")
    (trace_id,) = lake.trace_all([QUESTION], encoder="estimated")
    count = "SELECT count(*) AS n FROM trace('The capital of', ' France', k := 100, encoder := 'estimated')"
    assert lake.sql(count, at=row.n).to_dicts() == lake.sql(count).to_dicts() == [{"n": 70}]
    for query in (count, "SELECT influence('last', passage_id) FROM passages"):
        with pytest.raises(NotFoundError, match="has encoded nothing yet"):
            lake.sql(query, at=3)
    assert lake.sql("SELECT influence(?, passage_id) FROM passages LIMIT 3", [trace_id], at=row.n).to_dicts()


def test_a_question_that_takes_too_long_is_stopped(lake: Lake) -> None:
    with Session(lake.store, lake.snapshot, load=lake._encoders.find) as session:
        with pytest.raises(SqlError, match=r"^the query took longer than 0\.2 s and was stopped$"):
            session.sql(LONG, settings=SqlSettings(time_limit_s=0.2))
        assert session.sql("SELECT count(*) AS n FROM trace('a', ' b', k := 1, encoder := 'none', method := 'trak')")


def test_ctrl_c_stops_a_question(lake: Lake) -> None:
    def load(name: str | None, *, with_moments: bool) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return lake._encoders.find(name, with_moments=with_moments)

    with Session(lake.store, lake.snapshot, load=load) as session:
        with pytest.raises(KeyboardInterrupt):
            session.sql(LONG)
        assert session.sql("SELECT 1 AS x").to_dicts() == [{"x": 1}]


@pytest.mark.full
def test_several_threads_load_a_model_each(lake: Lake) -> None:
    def ask(_n: int) -> int:
        with proponent.open(lake.store.root) as other:
            return len(other.sql("FROM trace('a', ' b', k := 1, encoder := 'estimated')"))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ask, range(3))) == [2, 2, 2]


def test_functions_of_a_stream_outlive_its_session(lake: Lake) -> None:
    (trace_id,) = lake.trace_all([QUESTION], encoder="estimated")
    long = f"SELECT influence('{trace_id}', passage_id) AS score FROM passages, range(4000)"
    whole = sum(batch.num_rows for batch in lake.stream(long).batches())
    closed, forgotten = (Session(lake.store, lake.snapshot) for _ in range(2))
    streams = [closed.stream(long), forgotten.stream(long), lake.stream(long, at=lake.snapshot.snapshot_id)]
    closed.close()
    del forgotten
    gc.collect()
    with pytest.raises(SqlError, match="closed"):
        closed.sql("SELECT 1")
    for stream in streams:
        assert sum(batch.num_rows for batch in stream.batches()) == whole > 100_000


@pytest.mark.parametrize(
    ("query", "calls"),
    [
        ("SELECT * FROM influence WHERE source = 'trace_id'", False),
        ("SELECT sum(score) AS influence FROM influence, traces", False),
        ("SELECT influence('x', passage_id) FROM passages", True),
        ("SELECT INFLUENCE ('x', passage_id) FROM passages", True),
        ("SELECT \"influence\"('x', passage_id) FROM passages", True),
        ("SELECT influence/* */('x', passage_id) FROM passages", True),
        ("SELECT influence --\n('x', passage_id) FROM passages", True),
        ("SELECT _influence('x', passage_id) FROM passages", True),
        ("FROM proponents('x')", True),
        ("FROM group_influence('x')", True),
        ("FROM compare('x', 'y')", True),
    ],
)
def test_a_statement_that_may_call_functions_is_known(query: str, calls: bool) -> None:
    assert may_call(query) == calls
