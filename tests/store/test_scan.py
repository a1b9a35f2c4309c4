"""The exact scan is a sort of all scores, whatever lies where on the disk and however it is read."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lance.dataset import serialize_row_addrs

from proponent.schema.settings import CODES, ScanSettings
from proponent.store import scan
from proponent.store.codes import dequantise, read_codes
from proponent.store.lake import LakeStore
from proponent.store.matching import rows_of
from proponent.store.scan import Ranked, exact_scan, in_list, unit_vectors

DIM = 64
ROUNDING = 2e-6
"""Most error of a score of vectors of length 1; a float32 product of parallel ones was seen to err by 8e-7."""


class Stored(NamedTuple):
    table: lance.LanceDataset
    unit: dict[str, np.ndarray]
    """What the codes say, in float64, by key."""
    norms: dict[str, float]

    def score(self, key: str, query: np.ndarray, *, unit_norm: bool = True) -> float:
        return float(self.unit[key] @ query.astype(np.float64)) * (1 if unit_norm else self.norms[key])


@pytest.fixture
def store(tmp_path: Path, encoding_rows: Any) -> Callable[..., Stored]:
    """Write encodings of vectors (n, d) in fragments of some rows."""

    def store(keys: Sequence[str], vectors: np.ndarray, codes: str, *, fragment: int = 1 << 20) -> Stored:
        rows = encoding_rows(keys, vectors, codes)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.lance"
        table = lance.write_dataset(rows, path, max_rows_per_file=fragment, mode="create")
        unit = dequantise(read_codes(rows)).astype(np.float64)
        return Stored(table, dict(zip(keys, unit, strict=True)), dict(zip(keys, rows["norm"].to_pylist(), strict=True)))

    return store


def vectors_for(seed: int, n: int, d: int, *, heavy: bool = False) -> np.ndarray:
    draw = np.random.default_rng(seed)
    vectors = draw.standard_t(1.2, (n, d)) if heavy else draw.standard_normal((n, d))
    return vectors * draw.uniform(0.1, 10, (n, 1))


def queries_for(seed: int, n: int, d: int, *, heavy: bool = False) -> np.ndarray:
    draw = np.random.default_rng(seed + 1)
    return (draw.standard_t(1.2, (n, d)) if heavy else draw.standard_normal((n, d))).astype(np.float32)


def require_best(side: Ranked, scores: dict[str, float], k: int, *, sign: int, error: float) -> None:
    """Require that a side has the best of the true scores, in order, up to an error of each score."""
    assert len(side.keys) == len(side.scores) == len(set(side.keys)) == min(k, len(scores))
    found = sign * np.array(side.scores)
    assert np.allclose(found, [sign * scores[key] for key in side.keys], rtol=0, atol=error)
    assert (np.diff(found) <= 0).all()
    for place in np.flatnonzero(np.diff(found) == 0):
        assert side.keys[place] < side.keys[place + 1]
    left_out = [sign * score for key, score in scores.items() if key not in set(side.keys)]
    assert not left_out or max(left_out) <= found.min(initial=np.inf) + 2 * error


@given(
    seed=st.integers(0, 2**32 - 1),
    d=st.sampled_from([64, 192, 1024, 4160]),
    n=st.integers(1, 700),
    allowed=st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1)),
    k=st.one_of(st.integers(1, 20), st.integers(1, 800)),
    n_queries=st.integers(1, 5),
    unit_norm=st.booleans(),
    divided=st.booleans(),
    heavy=st.booleans(),
    copies=st.booleans(),
    codes=st.sampled_from(CODES),
)
def test_the_scan_is_a_sort_of_all_scores_in_float64(
    store: Callable[..., Stored], seed: int, d: int, n: int, allowed: float, k: int, n_queries: int, unit_norm: bool,
    divided: bool, heavy: bool, copies: bool, codes: str,
) -> None:  # fmt: skip
    draw = np.random.default_rng(seed)
    vectors, queries = vectors_for(seed, n, d, heavy=heavy), queries_for(seed, n_queries, d, heavy=heavy)
    if copies:  # many equal scores
        vectors = vectors[draw.integers(0, 1 + n // 20, n)]
    keys = [f"t{place:04d}" for place in draw.permutation(n)]
    stored = store(keys, vectors, codes, fragment=int(draw.integers(1 + n // 5, n + 1)))
    among = [key for key in keys if draw.random() < allowed]
    wanted = pa.array([*draw.permutation(among).tolist(), "unknown"], pa.string())
    by = {key: float(np.float32(draw.uniform(0.2, 3))) for key in keys}
    norms = np.array([by[key] if key in among else np.nan for key in keys], np.float32)
    rows = rows_of(stored.table, wanted)
    found = exact_scan(stored.table, queries, rows=rows, k=k, unit_norm=unit_norm, norms=norms if divided else None)
    assert len(found) == n_queries
    for query, result in zip(queries, found, strict=True):
        scores = {key: stored.score(key, query, unit_norm=unit_norm) for key in among}
        longest = 1.0 if unit_norm else max(stored.norms.values())
        if divided:
            scores, longest = {key: score / by[key] for key, score in scores.items()}, longest / 0.2
        error = ROUNDING * float(np.linalg.norm(query)) * longest
        require_best(result.top, scores, k, sign=1, error=error)
        require_best(result.bottom, scores, k, sign=-1, error=error)


@pytest.mark.parametrize("codes", CODES)
def test_how_rows_lie_and_are_read_changes_no_bit(
    store: Callable[..., Stored], monkeypatch: pytest.MonkeyPatch, codes: str
) -> None:
    n, d = 600, 4160
    draw, vectors = np.random.default_rng(5), vectors_for(5, n, d, heavy=True)
    vectors[::3] = vectors[0]
    keys, queries = [f"t{place:04d}" for place in range(n)], queries_for(5, 3, d)
    allowed = pa.array([key for key in keys if draw.random() < 0.7])
    found = []
    for fragment, most, sparse, threads, memory in (
        (n, 8192, 0.0, 1, 1 << 28),
        (100, 8192, 0.0, 2, 1 << 24),
        (401, 7, 0.0, 3, 1 << 24),
        (n, 111, 1.0, 2, 1 << 24),
        (90, 8192, 1.0, 1, 1 << 30),
    ):
        order = draw.permutation(n)
        stored = store([keys[place] for place in order], vectors[order], codes, fragment=fragment)
        monkeypatch.setattr(scan, "MOST_ROWS", most)
        monkeypatch.setattr(scan, "_SPARSE", sparse)
        settings = ScanSettings(threads=threads, memory=memory)
        rows = rows_of(stored.table, allowed)
        found.append(exact_scan(stored.table, queries, rows=rows, k=300, unit_norm=False, settings=settings))
    assert all(other == found[0] for other in found[1:])


@pytest.mark.parametrize("codes", CODES)
def test_near_ties_of_long_heavy_tailed_vectors_are_told_apart_as_well_as_float32_can(
    store: Callable[..., Stored], codes: str
) -> None:
    n, d = 40, 65_536
    draw, base = np.random.default_rng(0), vectors_for(0, 1, d, heavy=True)
    vectors = base + 1e-4 * np.linalg.norm(base) / np.sqrt(d) * draw.standard_normal((n, d))
    keys = [f"t{place:02d}" for place in range(n)]
    stored, query = store(keys, vectors, codes), queries_for(0, 1, d, heavy=True)
    aligned = np.stack([query[0], next(iter(stored.unit.values())).astype(np.float32)])
    for one in aligned:
        (found,) = exact_scan(stored.table, one[None], k=n, unit_norm=True)
        scores = {key: stored.score(key, one) for key in keys}
        for sign, side in ((1, found.top), (-1, found.bottom)):
            require_best(side, scores, n, sign=sign, error=ROUNDING * float(np.linalg.norm(one)))


@pytest.mark.parametrize("sparse", [0.0, 1.0])
def test_rows_that_were_deleted_are_not_scored_and_others_keep_their_scores(
    store: Callable[..., Stored], monkeypatch: pytest.MonkeyPatch, sparse: float
) -> None:
    monkeypatch.setattr(scan, "_SPARSE", sparse)
    keys, query = [f"t{place:03d}" for place in range(200)], queries_for(1, 1, DIM)
    stored = store(keys, vectors_for(1, 200, DIM), "int8", fragment=30)
    gone = {*keys[3:50], *keys[120:140:2], keys[199]}
    stored.table.delete(in_list("text_hash", pa.array(gone)))
    kept = {key: stored.score(key, query[0]) for key in keys if key not in gone}
    (found,) = exact_scan(stored.table, query, k=300, unit_norm=True)
    require_best(found.top, kept, 300, sign=1, error=ROUNDING * float(np.linalg.norm(query)))
    vectors = list(unit_vectors(stored.table, rows=rows_of(stored.table, pa.array(keys[40:160]))))
    restored = {key: row for hashes, unit in vectors for key, row in zip(hashes.to_pylist(), unit, strict=True)}
    assert restored.keys() == kept.keys() & set(keys[40:160])
    assert all(np.array_equal(row, stored.unit[key].astype(np.float32)) for key, row in restored.items())


def test_lance_reads_the_rows_of_an_allowlist_in_the_order_of_their_addresses(store: Callable[..., Stored]) -> None:
    keys = [f"t{place:03d}" for place in range(200)]
    table = store(keys, vectors_for(2, 200, DIM), "int8", fragment=30).table
    table.delete(in_list("text_hash", pa.array(keys[35:55])))
    there = table.to_table(columns=["text_hash"], with_row_address=True)
    chosen = [*range(0, 180, 7), 179]
    addresses = there["_rowaddr"].to_pylist()
    allowlist = serialize_row_addrs([addresses[place] for place in reversed(chosen)])
    read = table.scanner(columns=["text_hash"], row_addr_allowlist=allowlist, scan_in_order=True, batch_size=4)
    assert read.to_table()["text_hash"].to_pylist() == there["text_hash"].take(pa.array(chosen)).to_pylist()


def test_keys_that_are_not_stored_find_nothing(store: Callable[..., Stored]) -> None:
    query = np.ones((2, DIM), np.float32)
    table = store(["t1", "t2"], vectors_for(0, 2, DIM), "int8").table

    def scan_for(*keys: str) -> list[scan.ScanResult]:
        return exact_scan(table, query, rows=rows_of(table, pa.array(keys)), k=5, unit_norm=True)

    for result in scan_for("nothing", "t1"):
        assert result.top.keys == result.bottom.keys == ["t1"]
    for result in scan_for("nothing"):
        assert result.top == result.bottom == Ranked([], [])
    assert exact_scan(table, query[:0], k=5, unit_norm=True) == []
    table.delete("true")
    for result in [*scan_for("t1"), *exact_scan(table, query, k=5, unit_norm=True)]:
        assert result.top == result.bottom == Ranked([], [])


@pytest.mark.parametrize("batch_rows", [1, 3, 1024])
@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_equal_scores_are_ordered_by_key_wherever_the_rows_lie(
    lake: LakeStore,
    add_encoder: Any,
    encoding_rows: Any,
    publish: Any,
    monkeypatch: pytest.MonkeyPatch,
    batch_rows: int,
    k: int,
) -> None:
    # One-hot vectors, whose products are exact in any order of summation: three groups of three equal scores.
    monkeypatch.setattr(scan, "MOST_ROWS", batch_rows)
    keys = list("hbgaficed")
    vectors = np.zeros((9, DIM))
    for place, key in enumerate(keys):
        vectors[place, "abc def ghi".replace(" ", "").index(key) // 3] = 1
    query = np.zeros((1, DIM), np.float32)
    query[0, :3] = [0.5, 0.25, -0.5]
    add_encoder(lake, "e", dim=DIM)
    rows = encoding_rows(keys, vectors)
    at = publish(lake, [("encodings_e", rows.slice(start, 2)) for start in range(0, 9, 2)])
    (found,) = exact_scan(lake.table("encodings_e", at=at), query, k=k, unit_norm=True)
    assert found.top.keys == list("abcdefghi")[:k]
    assert found.bottom.keys == list("ghidefabc")[:k]


def test_an_error_in_a_thread_ends_the_scan_and_leaves_torch_its_threads(
    store: Callable[..., Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "MOST_ROWS", 10)
    keys = [f"t{place:03d}" for place in range(300)]
    table = store(keys, vectors_for(0, 300, DIM), "int8").table
    before, calls = torch.get_num_threads(), []

    def failing(rows: Any) -> Any:
        calls.append(threading.current_thread().name)
        if len(calls) == 3:
            raise MemoryError("as a test")
        return read_codes(rows)

    monkeypatch.setattr(scan, "read_codes", failing)
    query = np.ones((1, DIM), np.float32)
    with pytest.raises(MemoryError, match="as a test"):
        exact_scan(table, query, k=1, unit_norm=True, settings=ScanSettings(threads=2))
    assert len(calls) < 30
    assert all(name.startswith("scan") for name in calls)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("scan")]
    assert torch.get_num_threads() == before


def test_the_best_so_far_are_those_of_the_rows_that_were_read(
    store: Callable[..., Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "MOST_ROWS", scan.TILE_ROWS)
    keys = [f"key{i:05}" for i in range(4 * scan.TILE_ROWS)]
    stored, query = store(keys, vectors_for(5, len(keys), DIM), "int8"), queries_for(5, 1, DIM)
    told, read = list[tuple[int, list[scan.ScanResult]]](), list[int]()

    def look(allowed: list[str], **more: Any) -> list[scan.ScanResult]:
        rows = rows_of(stored.table, pa.array(allowed))
        return exact_scan(stored.table, query, rows=rows, k=7, unit_norm=True, **more)

    whole = look(
        keys,
        settings=ScanSettings(threads=1),
        progress=read.append,
        so_far=lambda now: told.append((sum(read), now())),
    )
    assert len(told) == 4
    assert told[-1][1] == whole
    for n_read, found in told:
        assert found == look(keys[:n_read])


def test_scans_at_the_same_time_do_not_disturb_each_other(store: Callable[..., Stored]) -> None:
    keys = [f"t{place:03d}" for place in range(400)]
    table, query = store(keys, vectors_for(3, 400, DIM), "int8", fragment=50).table, queries_for(3, 2, DIM)
    before = torch.get_num_threads()
    alone, together = exact_scan(table, query, k=50, unit_norm=True), []

    def again() -> None:
        together.append(exact_scan(table, query, k=50, unit_norm=True))

    threads = [threading.Thread(target=again) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [alone] * 6
    assert torch.get_num_threads() == before


def test_a_key_list_is_a_predicate_that_lance_reads(store: Callable[..., Stored]) -> None:
    table = store(["t1", "t2", "t3"], vectors_for(0, 3, DIM), "int8").table
    assert table.count_rows(in_list("text_hash", pa.array(["t1", "t3", "none"]))) == 2


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_memory_does_not_grow_with_the_vectors(tmp_path: Path, encoding_rows: Any, start_python: Any) -> None:
    path, script = tmp_path / "encodings.lance", (
        "import sys, lance, numpy as np, pyarrow as pa, torch\n"
        "from proponent.schema.settings import ScanSettings\n"
        "from proponent.store.scan import exact_scan\n"
        "def peak():\n"
        "    return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024\n"
        "table, queries = lance.dataset(sys.argv[1]), np.ones((4, 4096), np.float32)\n"
        "rows = pa.array(np.arange(table.count_rows()) < 3000)\n"
        "settings = ScanSettings(memory=1 << 24, threads=2)\n"
        "exact_scan(table, queries, rows=rows, k=5, unit_norm=True, settings=settings)\n"
        "before = peak()\n"
        "found = exact_scan(table, queries, k=5, unit_norm=True, settings=settings)\n"
        "print(len(found[0].top.keys), peak() - before)\n"
    )  # fmt: skip
    rows = encoding_rows([f"t{place:04d}" for place in range(4096)], vectors_for(0, 4096, 4096), "int8")
    for _ in range(15):
        lance.write_dataset(rows, path, mode="append" if path.exists() else "create")
    out, err = start_python(script, path).communicate(timeout=300)
    n, mib = out.split()
    assert (n, err.count("Error")) == ("5", 0)
    assert float(mib) < 130  # of 254 MiB
