"""An index proposes candidates, states how many of the best it finds, and never hides a row."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import func, select

from proponent.schema import catalog as models
from proponent.schema.errors import NotFoundError
from proponent.store.indexes import KIND, UsableIndex, build_index, find_index, propose
from proponent.store.lake import LakeStore
from proponent.store.scan import exact_scan
from proponent.store.snapshots import latest_snapshot

DIM = 64


@pytest.fixture
def encoder(lake: LakeStore, add_encoder: Any) -> models.Encoder:
    encoder: models.Encoder = add_encoder(lake, "e", dim=DIM)
    return encoder


@pytest.fixture
def encode(lake: LakeStore, encoder: models.Encoder, encoding_rows: Any, passage_rows: Any, publish: Any) -> Any:
    def encode(first: int, n: int, *, like: np.ndarray | None = None) -> None:
        draw = np.random.default_rng(first)
        vectors = draw.standard_normal((n, DIM)) if like is None else like + 0.01 * draw.standard_normal((n, DIM))
        hashes = [f"t{first + place:05d}" for place in range(n)]
        publish(lake, [("passages", passage_rows(hashes)), ("encodings_e", encoding_rows(hashes, vectors))])

    return encode


def keys(lake: LakeStore, table: str) -> list[str]:
    rows = lake.table(table, at=latest_snapshot(lake.catalog)).to_table(columns=["text_hash"])
    return sorted(rows["text_hash"].to_pylist())


def test_without_encodings_or_without_an_index_there_is_none_to_use(lake: LakeStore, encoder: models.Encoder) -> None:
    with pytest.raises(NotFoundError, match="has encoded nothing yet; run `proponent encode`"):
        build_index(lake, encoder)
    with pytest.raises(NotFoundError, match="has no index; build one with `proponent index`"):
        find_index(lake, "e")


def test_the_recall_on_the_lakes_own_encodings_is_recorded(
    lake: LakeStore, encoder: models.Encoder, encode: Any
) -> None:
    encode(0, 400)
    build = build_index(lake, encoder, n_queries=8)
    assert (build.kind, build.n_rows) == (KIND, 400)
    assert build.recall["queries"] == 8
    assert build.recall["measured_with"] == "stored encodings"
    with lake.catalog.read() as session:
        run = session.scalars(select(models.Run).where(models.Run.kind == "index")).one()
    assert (run.status, run.counts) == ("done", {"rows": 400})
    at, index = latest_snapshot(lake.catalog), find_index(lake, "e")
    assert index.recall == min(build.recall["proponents"], build.recall["opponents"]) > 0.9
    indices = lake.table("index_e", at=at).describe_indices()
    assert [list(index.field_names) for index in indices] == [["vector"]]


def test_the_recorded_recall_is_that_of_the_proposals(lake: LakeStore, encoder: models.Encoder, encode: Any) -> None:
    encode(0, 300)
    draw = np.random.default_rng(5)
    stored = draw.standard_normal((6, DIM)).astype(np.float32)
    blank = {"encoder": "e", "norm": 1.0, "loss": 1.0, "n_tokens": 1}
    rows = [blank | {"query_id": f"q{place}", "vector": vector} for place, vector in enumerate(stored)]
    from proponent.schema.tables import QUERIES
    from proponent.store.commit import Changes, committing, write_batch
    from proponent.store.runs import recorded_run

    with recorded_run(lake.catalog, "test", {}) as run, committing(lake) as committer:
        changes = Changes()
        changes.append(write_batch(lake, "queries", pa.Table.from_pylist(rows, QUERIES)))
        committer.publish(run.run_id, changes.take())
    build = build_index(lake, encoder)
    assert (build.recall["queries"], build.recall["measured_with"]) == (6, "stored queries")
    at, allowed = latest_snapshot(lake.catalog), pa.array(keys(lake, "encodings_e"))
    unit = stored / np.linalg.norm(stored, axis=1, keepdims=True)
    found = {"proponents": [], "opponents": []}
    for query, truth in zip(
        unit, exact_scan(lake.table("encodings_e", at=at), unit, allowed=allowed, k=10, unit_norm=True), strict=True
    ):
        proposed = set(propose(lake, at, UsableIndex("e", 1.0), query=query, allowed=allowed, k=10).to_pylist())
        found["proponents"].append(len(proposed & set(truth.top.keys)) / 10)
        found["opponents"].append(len(proposed & set(truth.bottom.keys)) / 10)
    for side, shares in found.items():
        assert build.recall[side] == pytest.approx(np.mean(shares))


def test_rows_encoded_after_the_build_are_always_proposed(
    lake: LakeStore, encoder: models.Encoder, encode: Any
) -> None:
    encode(0, 300)
    build_index(lake, encoder, n_queries=4)
    query = np.random.default_rng(9).standard_normal(DIM).astype(np.float32)
    query /= np.linalg.norm(query)
    encode(300, 20, like=query)
    at, allowed = latest_snapshot(lake.catalog), pa.array(keys(lake, "encodings_e"))
    index = find_index(lake, "e")
    later = {f"t{place:05d}" for place in range(300, 320)}
    assert later <= set(propose(lake, at, index, query=query, allowed=allowed, k=1).to_pylist())
    few = pa.array(sorted(later)[:3])
    assert set(propose(lake, at, index, query=query, allowed=few, k=5).to_pylist()) == set(few.to_pylist())


def test_building_again_takes_what_is_new_and_nothing_twice(
    lake: LakeStore, encoder: models.Encoder, encode: Any
) -> None:
    encode(0, 100)
    build_index(lake, encoder, n_queries=2)
    build_index(lake, encoder, n_queries=2)
    assert keys(lake, "index_e") == keys(lake, "encodings_e")
    encode(100, 50)
    build = build_index(lake, encoder, n_queries=2)
    assert build.n_rows == 150
    assert keys(lake, "index_e") == keys(lake, "encodings_e")
    with lake.catalog.read() as session:
        assert session.scalar(select(func.count()).select_from(models.IndexBuild)) == 3


def test_a_build_that_waited_for_another_adds_nothing_twice(
    lake: LakeStore, encoder: models.Encoder, encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(0, 100)
    from proponent.store import indexes

    committing, waited = indexes.committing, []

    def after_another(at: LakeStore, **options: Any) -> Any:
        if not waited:
            waited.append(True)
            build_index(lake, encoder, n_queries=2)
        return committing(at, **options)

    monkeypatch.setattr(indexes, "committing", after_another)
    build_index(lake, encoder, n_queries=2)
    assert keys(lake, "index_e") == keys(lake, "encodings_e")


def test_a_build_that_ends_at_any_step_is_finished_by_building_again(
    make_lake: Any,
    tmp_path: Any,
    add_encoder: Any,
    encoding_rows: Any,
    passage_rows: Any,
    publish: Any,
    crashes: Any,
    crash: type[BaseException],
) -> None:
    from sqlalchemy import update

    vectors = np.random.default_rng(0).standard_normal((60, DIM))
    for step in range(0, 1000, 5):
        lake = make_lake(tmp_path / f"lake{step}")
        encoder = add_encoder(lake, "e", dim=DIM)
        hashes = [f"t{place:05d}" for place in range(60)]
        publish(lake, [("passages", passage_rows(hashes)), ("encodings_e", encoding_rows(hashes, vectors))])
        try:
            with crashes.after_steps(step):
                build_index(lake, encoder, n_queries=2)
            break
        except crash:
            with lake.catalog.write() as session:
                session.execute(update(models.Lock).values(process_start="gone"))
            build_index(lake, encoder, n_queries=2)
            assert keys(lake, "index_e") == keys(lake, "encodings_e"), step
    assert step > 15
