"""Kinds of vector index on the same vectors: bytes, build, seconds a query, and recall after exact scoring.

Every kind proposes candidates, ten or twenty for each hit asked for on either side, and what it proposes is scored
exactly from int8 codes; a query's seconds are those of both steps for proponents and opponents together. The exact scan
of all codes runs between them, query by query. The vectors are a lake's encodings with its stored queries (the demo's,
which is made for that, unless `--lake` names another), and generated ones: normal vectors whose components' variances
fall off as the eigenvalues of those encodings do, and queries with the same spectrum, each drawn towards one of the
vectors. Prints one JSON object as its last line.

    python benchmarks/index.py                                  # the demo's encodings, and 20,000 generated vectors
    python benchmarks/index.py --lake mylake --encoder mymodel --rows 0
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("LANCE_LOG", "error")

import lance
import numpy as np
import pyarrow as pa

from proponent.schema.tables import encodings_schema
from proponent.store.codes import codes_arrays, dequantise, fixed_size_column, quantise, read_codes
from proponent.store.matching import rows_of
from proponent.store.scan import exact_scan

KS = (10, 100)
PROPOSED = (10, 20)
GENERATED = 20_000
SLOW = ("IVF_PQ", "IVF_HNSW_SQ")
"""Kinds that take minutes to build; they are measured on a lake's encodings alone."""
Propose = Callable[[np.ndarray, int], np.ndarray]
"""Places (n,) of the vectors that may have the highest products with a query (d,)."""


@dataclass(frozen=True)
class Vectors:
    """What is searched, and what for."""

    name: str
    unit: np.ndarray
    """(n, d) float32"""
    queries: np.ndarray
    """(q, d) float32"""


@dataclass(frozen=True)
class Built:
    """An index of one kind."""

    seconds: float
    n_bytes: int
    n_temporary: int
    """Bytes that are there while it is built, or as long as Lance wants them, and that the index does not need."""
    propose: Propose


def of_lake(path: Path, encoder: str, n_queries: int) -> Vectors:
    """Return a lake's encodings and stored queries."""
    from proponent.lake import open as open_lake

    with open_lake(path) as lake:
        at = lake.snapshot
        batches = lake.store.table(f"encodings_{encoder}", at=at).to_batches(batch_size=4096)
        unit = np.concatenate([dequantise(read_codes(batch)) for batch in batches])
        stored = lake.store.table("queries", at=at).to_table(columns=["vector"], filter=f"encoder = '{encoder}'")
    if not stored.num_rows:
        sys.exit(f"encoder {encoder!r} of {path} has no stored query; trace something first")
    queries = np.stack(stored["vector"].to_numpy()).astype(np.float32)
    drawn = np.random.default_rng(0).permutation(len(queries))[:n_queries]
    return Vectors(f"{encoder}, {len(unit):,} encodings", unit, _unit(queries[drawn]))


def generated(like: Vectors, n: int, n_queries: int) -> Vectors:
    """Return vectors with the spectrum of others: those of a small sample, beyond its rank, follow its last half."""
    draw = np.random.default_rng(1)
    d = like.unit.shape[1]
    sample = like.unit[draw.permutation(len(like.unit))[:2048]]
    values = np.sort(np.linalg.eigvalsh(sample @ sample.T / len(sample)))[::-1]
    values = np.maximum(values, 1e-12)
    half = len(values) // 2
    slope = np.log(values[half - 1] / values[half // 2]) / np.log(half / (half // 2 + 1))
    tail = values[half - 1] * (np.arange(half + 1, d + 1) / half) ** slope
    spread = np.sqrt(np.concatenate([values[:half], tail])).astype(np.float32)
    unit = _unit(draw.standard_normal((n, d), dtype=np.float32) * spread)
    near = unit[draw.permutation(n)[:n_queries]]
    queries = _unit(0.3 * near + 0.95 * _unit(draw.standard_normal((n_queries, d), dtype=np.float32) * spread))
    return Vectors(f"{n:,} generated", unit, queries)


def _unit(vectors: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def indexed(
    folder: Path, vectors: np.ndarray, kind: str | None, project: Callable[[np.ndarray], np.ndarray], **options: Any
) -> Built:
    """Store vectors (n, m) in Lance, index them, and return what searches all of it."""
    metric = options.pop("metric", "dot")
    places = pa.array(np.arange(len(vectors)))
    dataset = lance.write_dataset(pa.table({"place": places, "vector": fixed_size_column(vectors)}), str(folder))
    stored, began = _size(folder), time.perf_counter()
    if kind is not None:
        dataset.create_index("vector", kind, metric=metric, **options)
    seconds = time.perf_counter() - began
    dataset, codes = lance.dataset(str(folder)), _size(folder) - stored

    def propose(query: np.ndarray, n: int) -> np.ndarray:
        nearest: dict[str, Any] = {"column": "vector", "q": project(query), "k": n, "metric": metric}
        nearest |= {"use_index": False} if kind is None else {"minimum_nprobes": 1 << 16}
        found = dataset.scanner(columns=["place"], nearest=nearest, disable_scoring_autoprojection=True)
        rows: np.ndarray = found.to_table()["place"].to_numpy()
        return rows

    return Built(seconds, codes if kind else stored, stored if kind else 0, propose)


def scanned(codes: lance.LanceDataset, n: int) -> Built:
    """Return the scan of coarser codes as an index."""

    def propose(query: np.ndarray, n: int) -> np.ndarray:
        [found] = exact_scan(codes, query[None], k=n, unit_norm=True)
        return np.array([int(key) for key in found.top.keys])

    return Built(0.0, _size(Path(codes.uri)), 0, propose)


def kinds(of: Vectors, folder: Path) -> Mapping[str, Callable[[], Built]]:
    """Return every kind with how to build it."""
    n, d = of.unit.shape
    half = of.unit.astype(np.float16)
    ivf = {"num_partitions": max(1, min(256, n // 1024))}
    draw = np.random.default_rng(0)
    bases = {m: np.linalg.qr(draw.standard_normal((d, m), dtype=np.float32))[0] for m in (d // 4, d // 8)}

    def f16(query: np.ndarray) -> np.ndarray:
        return query.astype(np.float16)

    def reduced(m: int, kind: str | None, **options: Any) -> Built:
        onto = _unit(of.unit @ bases[m]).astype(np.float16)
        return indexed(folder / f"to {m} {kind}", onto, kind, lambda query: f16(query @ bases[m]), **options)

    def bits() -> Built:
        packed = np.packbits(of.unit >= 0, axis=1)
        return indexed(folder / "bits", packed, None, lambda query: np.packbits(query >= 0), metric="hamming")

    return {
        **{
            f"IVF_RQ, {one} bit{'s' if one > 1 else ''}": lambda one=one: indexed(
                folder / f"rq{one}", half, "IVF_RQ", f16, num_bits=one, **ivf
            )
            for one in (1, 2, 3)
        },
        "IVF_PQ, d/8": lambda: indexed(folder / "pq", half, "IVF_PQ", f16, num_sub_vectors=d // 8, **ivf),
        "IVF_HNSW_SQ": lambda: indexed(folder / "hnsw", half, "IVF_HNSW_SQ", f16, num_partitions=1),
        f"projection to {d // 4}, flat": lambda: reduced(d // 4, None),
        f"projection to {d // 8}, flat": lambda: reduced(d // 8, None),
        f"projection to {d // 4}, IVF_RQ, 3 bits": lambda: reduced(d // 4, "IVF_RQ", num_bits=3, **ivf),
        "sign bits, flat": bits,
        "int4 codes, scanned": lambda: scanned(coded(of.unit, "int4", folder / "int4"), n),
    }


def coded(unit: np.ndarray, codes: str, folder: Path) -> lance.LanceDataset:
    """Store vectors as an encodings table does."""
    n, d = unit.shape
    columns = {
        "text_hash": pa.array([f"{place:08d}" for place in range(n)]),
        "norm": np.ones(n, np.float32),
        "loss": np.ones(n, np.float32),
        "n_tokens": np.ones(n, np.int32),
        **codes_arrays(quantise(unit, codes)),
    }
    schema = encodings_schema(d, codes)
    return lance.write_dataset(pa.table(columns, schema=schema), str(folder), schema=schema)


def measure(of: Vectors, folder: Path, *, only: str, slow: bool) -> dict[str, Any]:
    """Build every kind, and ask all of them and the exact scan the same queries."""
    codes = coded(of.unit, "int8", folder / "int8")
    keys = codes.to_table(columns=["text_hash"])["text_hash"].combine_chunks()
    truth = exact_scan(codes, of.queries, k=max(KS), unit_norm=True)
    n_rows, results = len(of.unit), {}
    for name, build in kinds(of, folder).items():
        if only not in name or (name.startswith(SLOW) and not slow):
            continue
        with redirect_stderr(None):
            built = build()
        found = {
            f"recall@{k} x{proposed}": _recall(of, codes, keys, built.propose, truth, k=k, proposed=proposed)
            for k in KS
            for proposed in PROPOSED
            if 2 * k * proposed <= n_rows
        }
        result = {
            "bytes": round(built.n_bytes / n_rows),
            "temporary_bytes": round(built.n_temporary / n_rows),
            "build_s": round(built.seconds, 2),
            **{key: one["recall"] for key, one in found.items()},
            "query_s": {key.removeprefix("recall"): one["seconds"] for key, one in found.items()},
            "over_exact": {key.removeprefix("recall"): one["ratio"] for key, one in found.items()},
        }
        results[name] = result
        _print(name, result)
    return results


def _recall(
    of: Vectors,
    codes: lance.LanceDataset,
    keys: pa.Array,
    propose: Propose,
    truth: Any,
    *,
    k: int,
    proposed: int,
) -> dict[str, Any]:
    shares, seconds, ratios = [], [], []
    for query, sides in zip(of.queries, truth, strict=True):
        began = time.perf_counter()
        places = np.unique(np.concatenate([propose(query, proposed * k), propose(-query, proposed * k)]))
        [found] = exact_scan(codes, query[None], rows=rows_of(codes, keys.take(pa.array(places))), k=k, unit_norm=True)
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        exact_scan(codes, query[None], k=k, unit_norm=True)
        ratios.append(seconds[-1] / (time.perf_counter() - began))
        shares.append([len(set(a.keys) & set(b.keys[:k])) / k for a, b in zip(found, sides, strict=True)])
    recall = [round(float(value), 4) for value in np.mean(shares, axis=0)]
    return {"recall": recall, "seconds": round(median(seconds), 4), "ratio": round(median(ratios), 3)}


def _print(name: str, result: dict[str, Any]) -> None:
    parts = [f"{name:34} {result['bytes']:6} B {result['build_s']:7} s"]
    for key, ratio in result["over_exact"].items():
        proponents, opponents = result[f"recall{key}"]
        parts.append(f"{key} {proponents:.3f}/{opponents:.3f} ({ratio})")
    print(" ".join(parts), flush=True)


def demo_lake(folder: Path) -> Path:
    """Make the demo's lake, and return its path."""
    from proponent.demo.run import run

    run(folder, echo=lambda _line: None)
    return folder / "lake"


def main() -> None:
    """Measure the encodings of a lake, and generated vectors that are like them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lake", type=Path, help="a lake with stored queries; by default the demo's is made")
    parser.add_argument("--encoder", default="factbook", help="encoder of the lake")
    parser.add_argument("--rows", type=int, default=GENERATED, help="generated vectors")
    parser.add_argument("--queries", type=int, default=24, help="queries to ask")
    parser.add_argument("--only", default="", help="only kinds whose name has this")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        real = of_lake(asked.lake or demo_lake(root / "demo"), asked.encoder, asked.queries)
        told = {}
        for place, vectors in enumerate([real, *([generated(real, asked.rows, asked.queries)] if asked.rows else [])]):
            print(f"\n{vectors.name}, d = {vectors.unit.shape[1]:,}, {len(vectors.queries)} queries", flush=True)
            told[vectors.name] = measure(vectors, root / str(place), only=asked.only, slow=not place)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
