"""Coarser codes take the place of finer ones all at once, and earlier snapshots keep the finer ones."""

from collections.abc import Callable
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import func, select, update

from proponent.schema import catalog as models
from proponent.schema.errors import InputError, LakeBusyError, LeaseLostError, NotFoundError, SettingsError
from proponent.schema.settings import CODES
from proponent.schema.tables import codes_of
from proponent.store import requantise as requantise_module
from proponent.store.codes import codes_arrays, dequantise, quantise, read_codes
from proponent.store.commit import committing, finish_interrupted, write_batch
from proponent.store.fidelity import fidelity
from proponent.store.indexes import Proposer, build_index, built_index
from proponent.store.lake import LakeStore
from proponent.store.leases import lease
from proponent.store.matching import rows_of
from proponent.store.requantise import requantise
from proponent.store.scan import exact_scan
from proponent.store.snapshots import get_snapshot, latest_snapshot

DIM, ROWS = 128, 60
KEYS = [f"t{place:05d}" for place in range(ROWS)]
VECTORS = np.random.default_rng(0).standard_normal((ROWS, DIM))
METADATA = ["text_hash", "norm", "loss", "n_tokens"]

Encoded = Callable[..., models.Encoder]

OLD_SCHEMA = pa.schema(
    [
        ("text_hash", pa.string()),
        ("norm", pa.float32()),
        ("loss", pa.float32()),
        ("n_tokens", pa.int32()),
        ("codes", pa.list_(pa.int8(), DIM)),
        ("scales", pa.list_(pa.float16(), DIM // 64)),
    ]
)
"""An encodings table before there were formats, which had no other way to be."""


@pytest.fixture
def encoded(add_encoder: Any, encoding_rows: Any, publish: Any) -> Encoded:
    """An encoder with sixty encodings in three fragments."""

    def make(lake: LakeStore, codes: str) -> models.Encoder:
        encoder: models.Encoder = add_encoder(lake, "e", dim=DIM, codes=codes)
        rows = encoding_rows(KEYS, VECTORS, codes)
        publish(lake, [("encodings_e", rows.slice(start, 20)) for start in range(0, ROWS, 20)])
        return encoder

    return make


def newest(lake: LakeStore) -> lance.LanceDataset:
    return lake.table("encodings_e", at=latest_snapshot(lake.catalog))


def in_catalog(lake: LakeStore) -> models.Encoder:
    with lake.catalog.read() as session:
        return session.get_one(models.Encoder, "e")


def holder_died(lake: LakeStore) -> None:
    with lake.catalog.write() as session:
        session.execute(update(models.Lock).values(process_start="gone"))


@pytest.mark.parametrize(("codes", "to"), [("float16", "int8"), ("float16", "int4"), ("int8", "int4")])
def test_only_the_codes_change_and_earlier_snapshots_keep_theirs(
    lake: LakeStore, encoded: Encoded, codes: str, to: str
) -> None:
    encoder = encoded(lake, codes)
    before = latest_snapshot(lake.catalog)
    rows = newest(lake).to_table()
    told: list[int] = []
    found = requantise(lake, encoder, to, progress=told.append)
    after = latest_snapshot(lake.catalog)
    assert after.snapshot_id == before.snapshot_id + 1
    assert sum(told) == ROWS
    stored = newest(lake).to_table()
    assert codes_of(newest(lake).schema) == codes_of(stored.schema) == to
    assert stored.select(METADATA).equals(rows.select(METADATA))
    expected = quantise(dequantise(read_codes(rows.combine_chunks())), to)
    assert np.array_equal(read_codes(stored).codes, expected.codes)
    assert lake.table("encodings_e", at=before).to_table().equals(rows)
    assert codes_of(lake.table("encodings_e", at=get_snapshot(lake.catalog, before.snapshot_id)).schema) == codes
    assert (found.codes, found.name) == (to, "e")
    assert in_catalog(lake).codes == to


def test_step_by_step_or_at_once_the_last_format_is_the_same(make_lake: Any, encoded: Encoded, tmp_path: Any) -> None:
    last = []
    for way in (["int4"], ["int8", "int4"]):
        lake = make_lake(tmp_path / "-".join(way))
        encoder = encoded(lake, "float16")
        for codes in way:
            encoder = requantise(lake, encoder, codes)
        last.append(dequantise(read_codes(newest(lake).to_table())))
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    for restored in last:
        cosines = (restored * unit).sum(1) / np.linalg.norm(restored, axis=1)
        assert cosines.min() > 0.99


def test_the_fidelity_is_measured_against_the_format_it_came_from(lake: LakeStore, encoded: Encoded) -> None:
    encoder = encoded(lake, "float16")
    unit = dequantise(read_codes(newest(lake).to_table()))
    found = requantise(lake, encoder, "int4").fidelity
    assert found == fidelity(unit, "int4", against="float16")
    assert found == in_catalog(lake).fidelity


def test_a_measure_of_other_codes_does_not_stay(
    lake: LakeStore, add_encoder: Any, encoding_rows: Any, publish: Any
) -> None:
    encoder = add_encoder(lake, "e", dim=DIM)
    publish(lake, [("encodings_e", encoding_rows(KEYS[:3], VECTORS[:3]))])
    with lake.catalog.write() as session:
        session.get_one(models.Encoder, "e").fidelity = fidelity(np.eye(20, DIM, dtype=np.float32), "int8", against="x")
    assert requantise(lake, encoder, "int4").fidelity is None
    with lake.catalog.read() as session:
        assert session.scalars(select(models.Encoder.name).where(models.Encoder.fidelity.is_(None))).one() == "e"


@pytest.mark.parametrize(("codes", "to"), [("int4", "int8"), ("int4", "float16"), ("int8", "float16")])
def test_finer_codes_are_refused_with_the_reason(lake: LakeStore, encoded: Encoded, codes: str, to: str) -> None:
    encoder = encoded(lake, codes)
    before = latest_snapshot(lake.catalog)
    with pytest.raises(SettingsError, match=f"what a format left out is gone; .*--codes {to}"):
        requantise(lake, encoder, to)
    assert latest_snapshot(lake.catalog) == before


@pytest.mark.parametrize("codes", CODES)
def test_the_same_codes_again_are_refused(lake: LakeStore, encoded: Encoded, codes: str) -> None:
    with pytest.raises(SettingsError, match=f"'e' has {codes} codes already"):
        requantise(lake, encoded(lake, codes), codes)


def test_an_encoder_without_encodings_is_named(lake: LakeStore, add_encoder: Any) -> None:
    encoder = add_encoder(lake, "e", dim=DIM)
    with pytest.raises(NotFoundError, match="has encoded nothing yet; run `proponent encode`"):
        requantise(lake, encoder, "int4")


def test_unknown_codes_are_refused(lake: LakeStore, encoded: Encoded) -> None:
    with pytest.raises(SettingsError, match="codes must be one of float16, int8, int4, not 'int2'"):
        requantise(lake, encoded(lake, "int8"), "int2")


def test_more_can_be_encoded_afterwards_in_the_new_format_alone(
    lake: LakeStore, encoded: Encoded, encoding_rows: Any, publish: Any
) -> None:
    requantise(lake, encoded(lake, "int8"), "int4")
    with pytest.raises(InputError, match="'codes' is"):
        write_batch(lake, "encodings_e", encoding_rows(["new"], VECTORS[:1], "int8"))
    publish(lake, [("encodings_e", encoding_rows(["new"], VECTORS[:1], "int4"))])
    stored = newest(lake).to_table()
    assert stored["text_hash"].to_pylist() == [*KEYS, "new"]
    assert np.array_equal(read_codes(stored).codes[0], read_codes(stored).codes[-1])


def test_an_empty_table_takes_the_new_format(lake: LakeStore, encoded: Encoded, publish: Any) -> None:
    encoder = encoded(lake, "int8")
    publish(lake, deletes=[("encodings_e", "true")])
    requantise(lake, encoder, "int4")
    assert (newest(lake).count_rows(), codes_of(newest(lake).schema)) == (0, "int4")


def test_scans_of_both_snapshots_find_what_their_codes_say(lake: LakeStore, encoded: Encoded) -> None:
    encoder = encoded(lake, "float16")
    before = latest_snapshot(lake.catalog)
    requantise(lake, encoder, "int4")
    query = VECTORS[:1].astype(np.float32)
    for at in (before, latest_snapshot(lake.catalog)):
        table = lake.table("encodings_e", at=at)
        (found,) = exact_scan(table, query, k=ROWS, unit_norm=True)
        scores = dequantise(read_codes(table.to_table())) @ query[0]
        order = np.argsort(-scores, kind="stable")
        assert found.top.keys == [KEYS[place] for place in order]
        assert np.allclose(found.top.scores, scores[order], atol=1e-5)


def test_an_index_goes_on_proposing(
    lake: LakeStore, encoded: Encoded, publish: Any, encoding_rows: Any, passage_rows: Any
) -> None:
    encoder = encoded(lake, "int8")
    publish(lake, [("passages", passage_rows([*KEYS, "new"]))])
    build_index(lake, encoder)
    requantise(lake, encoder, "int4")
    publish(lake, [("encodings_e", encoding_rows(["new"], VECTORS[:1], "int4"))])
    at = latest_snapshot(lake.catalog)
    rows = rows_of(lake.table("encodings_e", at=at), pa.array([*KEYS, "new"]))
    query = VECTORS[0].astype(np.float32)
    proposed = Proposer(lake, at, "e", rows).propose(query, 1)
    assert proposed is not None
    assert {KEYS[0], "new"} <= set(proposed.to_pylist())
    built = built_index(lake, build_index(lake, encoder), "e")
    assert built is not None
    assert (built.n_rows, len(built.segments)) == (ROWS + 1, 2)


# Ending on the way, and several at once


def test_a_requantising_that_ends_at_any_step_changes_all_or_nothing(
    make_lake: Any, tmp_path: Any, encoded: Encoded, crashes: Any, crash: type[BaseException]
) -> None:
    for step in range(1000):
        lake = make_lake(tmp_path / f"lake{step}")
        encoder = encoded(lake, "int8")
        rows = newest(lake).to_table()
        try:
            with crashes.after_steps(step):
                requantise(lake, encoder, "int4")
            break
        except crash:
            holder_died(lake)
        for _ in range(2):
            stored = newest(lake)
            assert in_catalog(lake).codes == codes_of(stored.schema), step
            assert stored.to_table(columns=METADATA).equals(rows.select(METADATA)), step
            assert (codes_of(stored.schema) == "int4") == (in_catalog(lake).fidelity is not None), step
            finish_interrupted(lake)
        if codes_of(newest(lake).schema) == "int8":
            assert newest(lake).to_table().equals(rows), step
            requantise(lake, encoder, "int4")
        assert newest(lake).to_table(columns=METADATA).equals(rows.select(METADATA)), step
        assert codes_of(newest(lake).schema) == in_catalog(lake).codes == "int4", step
    assert "after commit" in crashes.steps
    assert step > 15


def test_it_does_not_run_beside_an_encoding_run(
    lake: LakeStore, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoded(lake, "int8")

    def at_once(catalog: Any, name: str, *, wait_s: float) -> Any:
        return lease(catalog, name, wait_s=0)

    monkeypatch.setattr(requantise_module, "lease", at_once)
    with lease(lake.catalog, "encode e"), pytest.raises(LakeBusyError, match="'encode e' is held by"):
        requantise(lake, encoder, "int4")


def test_whoever_lost_the_encoders_lock_publishes_nothing(
    lake: LakeStore, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoded(lake, "int8")

    def take_over(_n: int) -> None:
        with lake.catalog.write() as session:
            session.execute(update(models.Lock).where(models.Lock.name == "encode e").values(token="theirs"))

    with pytest.raises(LeaseLostError):
        requantise(lake, encoder, "int4", progress=take_over)
    assert codes_of(newest(lake).schema) == in_catalog(lake).codes == "int8"
    with lake.catalog.read() as session:
        assert session.scalar(select(func.count()).where(models.Publication.snapshot_id.is_(None))) == 0


def test_rows_that_came_meanwhile_are_not_lost(
    lake: LakeStore, encoded: Encoded, encoding_rows: Any, publish: Any
) -> None:
    encoder, new = encoded(lake, "int8"), [encoding_rows(["new"], VECTORS[:1])]

    def add(_n: int) -> None:
        if new:
            publish(lake, [("encodings_e", new.pop())])

    with pytest.raises(LakeBusyError, match="was changed meanwhile; start again"):
        requantise(lake, encoder, "int4", progress=add)
    assert newest(lake).count_rows() == ROWS + 1
    requantise(lake, encoder, "int4")
    assert newest(lake).count_rows() == ROWS + 1


# Older lakes


def test_a_table_from_before_there_were_formats_is_read_and_extended(
    lake: LakeStore, add_encoder: Any, encoding_rows: Any, publish: Any
) -> None:
    encoder = add_encoder(lake, "older", dim=DIM)
    with lake.catalog.read() as session:
        row = session.get_one(models.Encoder, "older")
    assert row.codes == "int8"
    path = lake.tables_dir / "encodings_older.lance"
    unit = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype(np.float32)
    blocks = (unit * np.float32(np.sqrt(DIM))).reshape(ROWS, DIM // 64, 64)
    scales = (np.abs(blocks).max(2) / 127).astype(np.float16)
    codes = np.rint(blocks / scales.astype(np.float32)[:, :, None]).clip(-127, 127).astype(np.int8)
    columns = {
        "text_hash": KEYS,
        "norm": np.ones(ROWS, np.float32),
        "loss": np.ones(ROWS, np.float32),
        "n_tokens": np.ones(ROWS, np.int32),
        "codes": pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), DIM),
        "scales": pa.FixedSizeListArray.from_arrays(pa.array(scales.reshape(-1)), DIM // 64),
    }
    fields = [field.with_nullable(False) for field in OLD_SCHEMA]
    lance.write_dataset(pa.table(columns, pa.schema(fields)), str(path), mode="overwrite")
    with lake.catalog.write() as session:
        run = session.scalars(select(models.Run.run_id)).first()
    with committing(lake) as committer:
        committer.publish(run, [], adopt=["encodings_older"])
    publish(lake, [("encodings_older", encoding_rows(["new"], VECTORS[:1]))])
    stored = lake.table("encodings_older", at=latest_snapshot(lake.catalog)).to_table()
    restored = dequantise(read_codes(stored))
    assert np.array_equal(restored[0], restored[-1])
    assert np.abs(restored[:-1] - unit).max() < 0.01
    requantise(lake, encoder, "int4")
    table = lake.table("encodings_older", at=latest_snapshot(lake.catalog))
    assert table.to_table(columns=METADATA).equals(stored.select(METADATA))
    expected = codes_arrays(quantise(restored, "int4"))
    assert table.to_table(columns=["codes"])["codes"].combine_chunks().equals(expected["codes"])
