"""An index proposes candidates, never hides a row, and is whole or not there at all."""

from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import select, update

from proponent.schema import catalog as models
from proponent.schema.errors import LakeBusyError, NotFoundError, SettingsError
from proponent.schema.tables import index_schema
from proponent.store import indexes
from proponent.store.commit import Change, committing, write_batch
from proponent.store.indexes import Proposer, build_index, built_index
from proponent.store.lake import LakeStore
from proponent.store.leases import lease
from proponent.store.matching import rows_of
from proponent.store.runs import recorded_run
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


def unit_query(seed: int) -> np.ndarray:
    query = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
    return query / np.linalg.norm(query)


def proposed(lake: LakeStore, query: np.ndarray, n: int, allowed: pa.Array | None = None) -> set[str]:
    at = latest_snapshot(lake.catalog)
    allowed = pa.array(keys(lake, "encodings_e")) if allowed is None else allowed
    rows = rows_of(lake.table("encodings_e", at=at), allowed)
    found = Proposer(lake, at, "e", rows).propose(query, n)
    return set((allowed if found is None else found).to_pylist())


MANY = range(10, 110)
"""Seeds of so many queries that their mean says something of the index: of a dozen, one miss is a hundredth."""


def recall(lake: LakeStore, n: int, *, seeds: range = range(10, 22), allowed: pa.Array | None = None) -> float:
    """Return which share of the ten best and the ten worst is proposed, over some queries."""
    at, found = latest_snapshot(lake.catalog), []
    among = pa.array(keys(lake, "encodings_e")) if allowed is None else allowed
    for seed in seeds:
        query = unit_query(seed)
        encodings = lake.table("encodings_e", at=at)
        [truth] = exact_scan(encodings, query[None], rows=rows_of(encodings, among), k=10, unit_norm=True)
        within = proposed(lake, query, n, among)
        found += [len(within & set(side.keys)) / 10 for side in truth]
    return float(np.mean(found))


def indexed_rows(lake: LakeStore) -> int:
    built = built_index(lake, latest_snapshot(lake.catalog), "e")
    assert built is not None
    return built.n_rows


def test_without_encodings_or_without_an_index_there_is_none(lake: LakeStore, encoder: models.Encoder) -> None:
    with pytest.raises(NotFoundError, match="has encoded nothing yet; run `proponent encode`"):
        build_index(lake, encoder)
    assert built_index(lake, latest_snapshot(lake.catalog), "e") is None


def test_an_index_proposes_the_best_of_both_sides_and_stores_no_vector(
    lake: LakeStore, encoder: models.Encoder, encode: Any
) -> None:
    encode(0, 3000)
    build_index(lake, encoder)
    assert len(proposed(lake, unit_query(1), 50)) == 100
    assert recall(lake, 50, seeds=MANY) > 0.97
    rows = lake.table("index_e", at=latest_snapshot(lake.catalog)).to_table()
    assert rows["vector"].null_count == len(rows) == indexed_rows(lake) == 3000
    with lake.catalog.read() as session:
        run = session.scalars(select(models.Run).where(models.Run.kind == "index")).one()
    assert (run.status, run.counts) == ("done", {"rows": 3000})
    assert not list(lake.work_dir.iterdir())


def test_what_is_proposed_does_not_depend_on_the_querys_length(
    lake: LakeStore, encoder: models.Encoder, encode: Any
) -> None:
    encode(0, 600)
    build_index(lake, encoder)
    query = unit_query(2)
    for length in (1e-9, 1e-4, 1e6):
        assert proposed(lake, np.float32(length) * query, 20) == proposed(lake, query, 20)


def test_fewer_bits_take_less_space_and_a_kind_stays_until_another_is_asked_for(
    lake: LakeStore, encoder: models.Encoder, encode: Any
) -> None:
    encode(0, 300)
    sizes = {}
    for kind in ("rq3", "rq2"):
        build_index(lake, encoder, kind=kind)
        built = built_index(lake, latest_snapshot(lake.catalog), "e")
        assert built is not None
        assert (built.kind, len(built.segments), built.n_rows) == (kind, 1, 300)
        sizes[kind] = built.n_bytes
    assert sizes["rq2"] < sizes["rq3"]
    encode(300, 20)
    build_index(lake, encoder)
    built = built_index(lake, latest_snapshot(lake.catalog), "e")
    assert built is not None
    assert (built.kind, len(built.segments), built.n_rows) == ("rq2", 2, 320)
    with pytest.raises(SettingsError, match="must be one of rq3, rq2"):
        build_index(lake, encoder, kind="IVF_PQ")


def test_rows_encoded_after_the_build_are_always_proposed(
    lake: LakeStore, encoder: models.Encoder, encode: Any
) -> None:
    encode(0, 300)
    build_index(lake, encoder)
    query = unit_query(9)
    encode(300, 20, like=query)
    later = {f"t{place:05d}" for place in range(300, 320)}
    assert later <= proposed(lake, query, 1)
    few = pa.array(sorted(later)[:3])
    assert proposed(lake, query, 5, few) == set(few.to_pylist())


def test_only_what_is_allowed_is_proposed_however_little_that_is(
    lake: LakeStore, encoder: models.Encoder, encode: Any
) -> None:
    encode(0, 2000)
    build_index(lake, encoder)
    all_keys, draw = keys(lake, "encodings_e"), np.random.default_rng(3)
    for share in (1.0, 0.5, 0.1, 0.02):
        allowed = pa.array(sorted(draw.choice(all_keys, int(share * 2000), replace=False)))
        within = proposed(lake, unit_query(4), 30, allowed)
        assert within <= set(allowed.to_pylist())
        assert len(within) == min(len(allowed), 60)
        assert recall(lake, 30, allowed=allowed, seeds=range(4)) > 0.9


def test_withdrawn_texts_are_not_proposed(lake: LakeStore, encoder: models.Encoder, encode: Any, publish: Any) -> None:
    encode(0, 200)
    build_index(lake, encoder)
    gone = "text_hash < 't00150'"
    publish(lake, deletes=[(table, gone) for table in ("passages", "encodings_e", "index_e")])
    allowed = pa.array(keys(lake, "encodings_e"))
    assert proposed(lake, unit_query(5), 10, allowed) <= set(allowed.to_pylist())
    assert indexed_rows(lake) == 50


def test_building_again_adds_what_is_new_and_nothing_twice(
    lake: LakeStore, encoder: models.Encoder, encode: Any
) -> None:
    encode(0, 400)
    build_index(lake, encoder)
    before = built_index(lake, latest_snapshot(lake.catalog), "e")
    build_index(lake, encoder)
    assert built_index(lake, latest_snapshot(lake.catalog), "e") == before
    encode(400, 200)
    build_index(lake, encoder)
    after = built_index(lake, latest_snapshot(lake.catalog), "e")
    assert before is not None
    assert after is not None
    assert set(before.segments) < set(after.segments)
    assert keys(lake, "index_e") == keys(lake, "encodings_e")
    assert after.n_rows == 600
    assert recall(lake, 50, seeds=MANY) > 0.97


def test_an_index_in_too_many_segments_becomes_one(
    lake: LakeStore, encoder: models.Encoder, encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "_MOST_SEGMENTS", 3)
    numbers = []
    for part in range(5):
        encode(40 * part, 40)
        build_index(lake, encoder)
        built = built_index(lake, latest_snapshot(lake.catalog), "e")
        assert built is not None
        assert built.n_rows == 40 * (part + 1)
        numbers.append(len(built.segments))
    assert numbers == [1, 2, 3, 1, 2]
    assert recall(lake, 30) > 0.9


def test_nobody_waits_for_the_commit_lock_while_the_index_is_built(
    lake: LakeStore, encoder: models.Encoder, encode: Any, monkeypatch: pytest.MonkeyPatch, publish: Any
) -> None:
    encode(0, 100)
    create, went_on = lance.LanceDataset.create_index_uncommitted, []

    def while_others_write(self: lance.LanceDataset, *args: Any, **options: Any) -> Any:
        encode(100, 10)
        publish(lake, deletes=[(table, "text_hash < 't00010'") for table in ("passages", "encodings_e", "index_e")])
        went_on.append(True)
        return create(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(lance.LanceDataset, "create_index_uncommitted", while_others_write)
        build_index(lake, encoder)
    assert went_on == [True]
    everything = set(keys(lake, "encodings_e"))
    assert len(everything) == 100
    assert indexed_rows(lake) == 90
    assert {f"t{place:05d}" for place in range(100, 110)} <= proposed(lake, unit_query(0), 5) <= everything
    assert recall(lake, 30) > 0.9


def test_everything_withdrawn_while_it_was_indexed_leaves_nothing_to_propose(
    lake: LakeStore, encoder: models.Encoder, encode: Any, monkeypatch: pytest.MonkeyPatch, publish: Any
) -> None:
    encode(0, 100)
    build_index(lake, encoder)
    encode(100, 50)
    create = lance.LanceDataset.create_index_uncommitted

    def while_all_is_withdrawn(self: lance.LanceDataset, *args: Any, **options: Any) -> Any:
        publish(lake, deletes=[(table, "text_hash >= 't00100'") for table in ("passages", "encodings_e", "index_e")])
        return create(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(lance.LanceDataset, "create_index_uncommitted", while_all_is_withdrawn)
        build_index(lake, encoder)
    assert indexed_rows(lake) == 100
    assert proposed(lake, unit_query(0), 10) <= set(keys(lake, "encodings_e"))
    encode(200, 30)
    build_index(lake, encoder)
    assert indexed_rows(lake) == 130
    assert recall(lake, 30) > 0.9


def test_two_builds_at_once_are_refused(
    lake: LakeStore, encoder: models.Encoder, encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "_WAIT_S", 0)
    encode(0, 50)
    with lease(lake.catalog, "index e"), pytest.raises(LakeBusyError, match="lock 'index e' is held"):
        build_index(lake, encoder)


def test_an_index_of_an_older_version_counts_for_nothing_and_is_built_anew(
    lake: LakeStore, encoder: models.Encoder, encode: Any
) -> None:
    encode(0, 80)
    old = pa.schema([pa.field("text_hash", pa.string(), False), pa.field("vector", pa.list_(pa.float16(), DIM), False)])
    vectors = np.random.default_rng(0).standard_normal(80 * DIM).astype(np.float16)
    rows = pa.table([keys(lake, "encodings_e"), pa.FixedSizeListArray.from_arrays(pa.array(vectors), DIM)], schema=old)
    settings = {"encoder": "e", "kind": "IVF_RQ"}
    with recorded_run(lake.catalog, "index", settings) as run, committing(lake) as committer:
        lance.write_dataset(old.empty_table(), str(lake.table_dir("index_e")), schema=old)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lake, "schema", lambda _name: old)
            batch = write_batch(lake, "index_e", rows)
        committer.publish(run.run_id, [Change("index_e", (batch,))])
        lake.table("index_e").create_index("vector", "IVF_RQ", metric="dot", num_partitions=1, num_bits=3)
        committer.publish(run.run_id, [], adopt=["index_e"])
    assert built_index(lake, latest_snapshot(lake.catalog), "e") is None
    build_index(lake, encoder)
    assert indexed_rows(lake) == 80
    assert lake.table("index_e", at=latest_snapshot(lake.catalog)).schema == index_schema(DIM)


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.full)])
def test_a_build_that_ends_at_any_step_is_finished_by_building_again(
    stride: int,
    make_lake: Any,
    tmp_path: Any,
    add_encoder: Any,
    encoding_rows: Any,
    passage_rows: Any,
    publish: Any,
    crashes: Any,
    crash: type[BaseException],
) -> None:
    vectors = np.random.default_rng(0).standard_normal((60, DIM))
    for step in range(0, 1000, stride):
        lake = make_lake(tmp_path / f"lake{step}")
        encoder = add_encoder(lake, "e", dim=DIM)
        hashes = [f"t{place:05d}" for place in range(60)]
        publish(lake, [("passages", passage_rows(hashes)), ("encodings_e", encoding_rows(hashes, vectors))])
        try:
            with crashes.after_steps(step):
                build_index(lake, encoder)
            break
        except crash:
            with lake.catalog.write() as session:
                session.execute(update(models.Lock).values(process_start="gone"))
            at = latest_snapshot(lake.catalog)
            if built_index(lake, at, "e"):
                assert recall(lake, 10) > 0.5, step
            build_index(lake, encoder)
            assert keys(lake, "index_e") == keys(lake, "encodings_e"), step
            assert indexed_rows(lake) == 60, step
    assert step > 15
