"""A norm is there for every encoding before it is needed, once, and the same at every snapshot."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from proponent.schema import catalog as models
from proponent.store import curvatures, scan
from proponent.store.codes import dequantise, read_codes
from proponent.store.curvatures import fill_norms, stored_norms
from proponent.store.lake import LakeStore
from proponent.store.matching import rows_of
from proponent.store.requantise import requantise
from proponent.store.scan import exact_scan, unit_vectors
from proponent.store.snapshots import Snapshot, get_snapshot, latest_snapshot

DIM = 64
CURVATURE = "somecurvature"
WEIGHTS = np.linspace(0.5, 2, DIM).astype(np.float32)


def norms_of(unit: np.ndarray) -> np.ndarray:
    """Stand for a curvature."""
    norms: np.ndarray = np.linalg.norm(unit * WEIGHTS, axis=1).astype(np.float32)
    return norms


def norms_at(lake: LakeStore, curvature_id: str, *, at: Snapshot | None = None) -> dict[str, float]:
    at = at or latest_snapshot(lake.catalog)
    texts = lake.table("encodings_e", at=at).to_table(columns=["text_hash"])["text_hash"].to_pylist()
    norms = stored_norms(lake, at, encoder="e", curvature_id=curvature_id)
    return dict(zip(texts, norms.tolist(), strict=True))


def fill(lake: LakeStore, at: Snapshot | None = None, **more: Any) -> int:
    at = at or latest_snapshot(lake.catalog)
    return fill_norms(lake, at, encoder="e", curvature_id=CURVATURE, **{"norms_of": norms_of} | more)


def keys(lake: LakeStore, table: str, at: Snapshot | None = None) -> list[str]:
    rows = lake.table(table, at=at or latest_snapshot(lake.catalog)).to_table(columns=["text_hash"])
    return sorted(rows["text_hash"].to_pylist())


def expected(lake: LakeStore, at: Snapshot) -> dict[str, float]:
    rows = lake.table("encodings_e", at=at).to_table()
    unit = dequantise(read_codes(rows))
    return dict(zip(rows["text_hash"].to_pylist(), norms_of(unit).tolist(), strict=True))


def refuse(_unit: np.ndarray) -> np.ndarray:
    raise AssertionError


@pytest.fixture
def encode(lake: LakeStore, add_encoder: Any, encoding_rows: Any, publish: Any) -> Callable[[int, int], None]:
    add_encoder(lake, "e", dim=DIM)

    def encode(first: int, n: int) -> None:
        vectors = np.random.default_rng(first).standard_normal((n, DIM))
        publish(lake, [("encodings_e", encoding_rows([f"t{first + place:05d}" for place in range(n)], vectors))])

    return encode


def test_every_encoding_gets_its_norm_and_no_encoding_gets_two(
    lake: LakeStore, encode: Callable[[int, int], None]
) -> None:
    encode(0, 300)
    assert fill(lake) == 300
    at = latest_snapshot(lake.catalog)
    assert norms_at(lake, CURVATURE) == pytest.approx(expected(lake, at))
    assert fill(lake, norms_of=refuse) == 0
    assert latest_snapshot(lake.catalog) == at
    encode(300, 20)
    assert fill(lake) == 20
    assert keys(lake, f"norms_{CURVATURE}_int8") == keys(lake, "encodings_e")


def test_before_anything_is_encoded_there_is_nothing_to_fill(lake: LakeStore, add_encoder: Any) -> None:
    add_encoder(lake, "e", dim=DIM)
    at = latest_snapshot(lake.catalog)
    assert fill(lake, norms_of=refuse) == 0
    assert latest_snapshot(lake.catalog) == at


def test_norms_serve_older_snapshots_and_those_of_older_ones_the_newest(
    lake: LakeStore, encode: Callable[[int, int], None]
) -> None:
    encode(0, 50)
    before = latest_snapshot(lake.catalog)
    encode(50, 30)
    assert fill(lake, before) == 50  # as it was then, though more is there now
    assert fill(lake) == 30
    older = get_snapshot(lake.catalog, before.snapshot_id)
    assert not older.has(f"norms_{CURVATURE}_int8")
    assert fill(lake, older, norms_of=refuse) == 0
    assert norms_at(lake, CURVATURE, at=older) == pytest.approx(expected(lake, older))


def test_each_format_of_the_vectors_has_norms_of_its_own(lake: LakeStore, encode: Callable[[int, int], None]) -> None:
    encode(0, 60)
    finer = latest_snapshot(lake.catalog)
    fill(lake)
    with lake.catalog.read() as session:
        row = session.get_one(models.Encoder, "e")
    requantise(lake, row, "int4")
    assert fill(lake) == 60
    coarser = latest_snapshot(lake.catalog)
    found = [norms_at(lake, CURVATURE, at=at) for at in (finer, coarser)]
    assert found[0] == pytest.approx(expected(lake, finer))
    assert found[1] == pytest.approx(expected(lake, coarser))
    assert found[0] != found[1]
    assert fill(lake, finer, norms_of=refuse) == 0


def test_norms_of_two_curvatures_are_apart(lake: LakeStore, encode: Callable[[int, int], None]) -> None:
    encode(0, 10)
    fill(lake)
    at = latest_snapshot(lake.catalog)
    ones = np.ones(10, np.float32)
    assert fill_norms(lake, at, encoder="e", curvature_id="other", norms_of=lambda _unit: ones) == 10
    assert set(norms_at(lake, "other").values()) == {1.0}
    assert norms_at(lake, CURVATURE) == pytest.approx(expected(lake, at))


def test_a_fill_that_waited_for_another_adds_nothing_twice(
    lake: LakeStore, encode: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(0, 40)
    committing, waited = curvatures.committing, []

    def after_another(at: LakeStore) -> Any:
        if not waited:
            waited.append(True)
            fill(lake)
        return committing(at)

    monkeypatch.setattr(curvatures, "committing", after_another)
    fill(lake)
    assert waited
    assert keys(lake, f"norms_{CURVATURE}_int8") == keys(lake, "encodings_e")


def test_a_long_fill_is_published_in_pieces_and_goes_on_from_there(
    lake: LakeStore, encode: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvatures, "PUBLISH_EVERY", 1024)
    monkeypatch.setattr(scan, "MOST_ROWS", 1024)
    encode(0, 2500)
    calls = 0

    def stopping(unit: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return norms_of(unit)

    with pytest.raises(KeyboardInterrupt):
        fill(lake, norms_of=stopping)
    assert len(keys(lake, f"norms_{CURVATURE}_int8")) == 2048
    done: list[int] = []
    assert fill(lake, progress=done.append) == 2500 - 2048
    assert sum(done) == 2500 - 2048
    assert keys(lake, f"norms_{CURVATURE}_int8") == keys(lake, "encodings_e")
    with lake.catalog.read() as session:
        runs = list(session.scalars(select(models.Run).where(models.Run.kind == "norms")))
    assert sorted(run.counts["norms"] for run in runs) == [452, 1024, 1024]


def test_a_fill_that_ends_at_any_step_is_finished_by_filling_again(
    make_lake: Any,
    tmp_path: Any,
    add_encoder: Any,
    encoding_rows: Any,
    publish: Any,
    crashes: Any,
    crash: type[BaseException],
) -> None:
    vectors = np.random.default_rng(0).standard_normal((20, DIM))
    for step in range(0, 1000, 3):
        lake = make_lake(tmp_path / f"lake{step}")
        add_encoder(lake, "e", dim=DIM)
        publish(lake, [("encodings_e", encoding_rows([f"t{place:05d}" for place in range(20)], vectors))])
        try:
            with crashes.after_steps(step):
                fill(lake)
            break
        except crash:
            with lake.catalog.write() as session:
                session.execute(update(models.Lock).values(process_start="gone"))
            fill(lake)
            assert keys(lake, f"norms_{CURVATURE}_int8") == keys(lake, "encodings_e"), step
    assert step > 9


@given(st.integers(1, 40), st.integers(0, 100))
def test_a_scan_under_norms_ranks_by_the_divided_scores(
    lake: LakeStore, encode: Callable[[int, int], None], k: int, seed: int
) -> None:
    if not lake.table("encodings_e").count_rows():
        encode(0, 30)
        fill(lake)
    at = latest_snapshot(lake.catalog)
    query = np.random.default_rng(seed).standard_normal((1, DIM)).astype(np.float32)
    encodings = lake.table("encodings_e", at=at)
    rows = rows_of(encodings, pa.array(keys(lake, "encodings_e")[seed % 7 :]))
    norms = stored_norms(lake, at, encoder="e", curvature_id=CURVATURE)
    (found,) = exact_scan(encodings, query, rows=rows, k=k, unit_norm=True, norms=norms)
    ((hashes, unit),) = unit_vectors(encodings, rows=rows)
    scores = dict(zip(hashes.to_pylist(), (unit @ query[0] / norms_of(unit)).tolist(), strict=True))
    best = sorted(scores, key=scores.__getitem__, reverse=True)
    assert found.top.keys == best[:k]
    assert found.bottom.keys == best[::-1][:k]
    assert found.top.scores == pytest.approx([scores[key] for key in best[:k]], rel=1e-5, abs=1e-6)
