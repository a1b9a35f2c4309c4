"""Exact search: seconds, bytes a second and memory, against reading the same columns and other flat searches.

    python benchmarks/search.py                  # some minutes; 6 GB of disk, 5 GB of memory
    python benchmarks/search.py --share 0.1      # a tenth of the rows

Vectors are generated. Lance searches what the encodings decode to, in float16; faiss the same in float32, which it has
in memory from the start. Measurements that are compared take turns in one process, with the files in the page cache;
ratios are those of the medians. Peak memory is measured in a process of its own.

faiss is measured where it can be imported, and left out elsewhere. Nothing else needs it: `pip install faiss-cpu`.
Prints one JSON object as its last line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from typing import Any

from proponent.threads import wait_quietly

wait_quietly()

import lance  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import torch  # noqa: E402

from proponent.schema.settings import ScanSettings  # noqa: E402
from proponent.schema.tables import code_columns, encodings_schema  # noqa: E402
from proponent.store.codes import codes_arrays, dequantise, fixed_size_column, quantise, read_codes  # noqa: E402
from proponent.store.scan import exact_scan, reading  # noqa: E402

_CHUNK = 1 << 26
_THREADS = 2
_K = 10
_FAISS_MOST = 2 << 30
"""Bytes of float32 vectors above which faiss, which keeps them in memory, is left out."""


def unit_vectors(n: int, d: int) -> Iterator[np.ndarray]:
    """Yield unit vectors (rows, d) float32, n in all: mixtures of some normal ones, so that some are near others."""
    draw = np.random.default_rng(0)
    pool = draw.standard_normal((1024, d), dtype=np.float32)
    for start in range(0, n, _CHUNK // d):
        rows = min(_CHUNK // d, n - start)
        others = np.roll(pool, draw.integers(1, d), axis=1)
        vectors = pool[draw.integers(0, 1024, rows)] + others[draw.integers(0, 1024, rows)]
        yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_encodings(path: Path, n: int, d: int) -> None:
    """Write an encodings table with int8 codes."""
    schema, written = encodings_schema(d, "int8"), 0
    for unit in unit_vectors(n, d):
        places = range(written, written + len(unit))
        columns = {
            "text_hash": [f"{place * 0x9E3779B97F4A7C15 % (1 << 64):026x}" for place in places],
            "norm": np.ones(len(unit), np.float32),
            "loss": np.ones(len(unit), np.float32),
            "n_tokens": np.ones(len(unit), np.int32),
        }
        rows = pa.table(columns | codes_arrays(quantise(unit, "int8")), schema=schema)
        lance.write_dataset(rows, path, mode="append" if written else "create")
        written += len(unit)


def write_float16(path: Path, encodings: lance.LanceDataset) -> None:
    """Write what encodings decode to as float16 vectors."""
    for number, rows in enumerate(encodings.to_batches(columns=code_columns(encodings.schema), batch_size=1024)):
        vectors = fixed_size_column(dequantise(read_codes(rows)).astype(np.float16))
        lance.write_dataset(pa.table({"vector": vectors}), path, mode="append" if number else "create")


def queries_for(d: int, n: int) -> np.ndarray:
    """Return queries (n, d) float32."""
    return np.random.default_rng(1).standard_normal((n, d), dtype=np.float32)


def keys_of(encodings: lance.LanceDataset) -> pa.Array:
    """Return all text hashes."""
    return encodings.to_table(columns=["text_hash"])["text_hash"].combine_chunks()


def search(encodings: lance.LanceDataset, n_queries: int, threads: int = _THREADS) -> list[list[str]]:
    """Search exactly; return the keys of the highest scores."""
    queries = queries_for(encodings.schema.field("codes").type.list_size, n_queries)
    settings = ScanSettings(threads=threads)
    found = exact_scan(encodings, queries, k=_K, unit_norm=True, settings=settings)
    return [one.top.keys for one in found]


def scan(encodings: lance.LanceDataset, **options: Any) -> None:
    """Read the columns of the vectors, and do nothing with them."""
    for _ in encodings.scanner(columns=code_columns(encodings.schema), **options).to_batches():
        pass


def in_turns(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of tasks that take turns, after each was done once to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in seconds.items()}


def flat_lance(vectors: lance.LanceDataset, n_queries: int) -> None:
    """Let Lance search without an index."""
    queries = queries_for(vectors.schema.field("vector").type.list_size, n_queries).astype(np.float16)
    nearest = {"column": "vector", "q": queries if n_queries > 1 else queries[0], "k": _K, "metric": "dot"}
    vectors.to_table(columns=[], nearest=nearest | {"use_index": False}, with_row_id=True)


def flat_faiss(encodings: lance.LanceDataset) -> Any:
    """Return faiss's flat index of what encodings decode to, or None where faiss is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(_THREADS)
    index = faiss.IndexFlatIP(encodings.schema.field("codes").type.list_size)
    for rows in encodings.to_batches(columns=code_columns(encodings.schema), batch_size=1024):
        index.add(dequantise(read_codes(rows)))
    return index


def compare(folder: Path, n: int, d: int, rounds: int) -> dict[str, Any]:
    """Measure searches of one table of encodings beside the references."""
    path = folder / f"{n}x{d}.lance"
    write_encodings(path, n, d)
    encodings = lance.dataset(path)
    write_float16(folder / "float16.lance", encodings)
    vectors, keys = lance.dataset(folder / "float16.lance"), keys_of(encodings)
    size = n * (d + d // 32)
    index = flat_faiss(encodings) if 4 * n * d <= _FAISS_MOST else None
    print(f"\n{n:,} x {d:,} int8 codes with block scales, {size / 1e6:,.0f} MB")
    tasks: dict[str, Callable[[], object]] = {
        "scan": lambda: scan(encodings, **reading(encodings, ScanSettings())),
        "scan_lance_defaults": lambda: scan(encodings),
        "16": lambda: search(encodings, 16),
        "16_one_thread": lambda: search(encodings, 16, threads=1),
        "1": lambda: search(encodings, 1),
    }
    seconds = in_turns(tasks, rounds)
    slow: dict[str, Callable[[], object]] = {
        "256": lambda: search(encodings, 256),
        "lance_flat_1": lambda: flat_lance(vectors, 1),
        "lance_flat_16": lambda: flat_lance(vectors, 16),
        "16 again": lambda: search(encodings, 16),
    }
    if index is not None:
        slow |= {f"faiss_flat_{q}": lambda q=q: index.search(queries_for(d, q), _K) for q in (1, 16, 256)}
        found = [set(keys.take(pa.array(places)).to_pylist()) for places in index.search(queries_for(d, 16), _K)[1]]
        same = sum(len(one & set(other)) for one, other in zip(found, search(encodings, 16), strict=True))
        print(f"  {same / (16 * _K):.1%} of faiss's {_K} best of 16 queries are found")
    seconds |= in_turns(slow, max(1, rounds // 2))
    for name, value in seconds.items():
        print(f"  {name:22} {value:8.3f} s  {size / value / 1e9:6.2f} GB/s  {value / seconds['scan']:7.2f} of scanning")
    ratios = {f"scan_ratio_{name}": seconds[name] / seconds["scan"] for name in ("1", "16", "256", "16_one_thread")}
    ratios["scan_ratio_16_lance_defaults"] = seconds["16"] / seconds["scan_lance_defaults"]
    for name in ("lance_flat_1", "lance_flat_16", "faiss_flat_1", "faiss_flat_16", "faiss_flat_256"):
        if name in seconds:
            ours = seconds["16 again" if name.endswith("_16") else name.rsplit("_", 1)[1]]
            ratios[f"vs_{name}"] = ours / seconds[name]
    return {name: round(value, 3) for name, value in ratios.items()} | {
        "seconds": {name: round(value, 4) for name, value in seconds.items()}
    }


def one_core(path: Path, rounds: int) -> float:
    """Return the ratio of a search with 16 queries to scanning when all threads, Lance's too, share one core."""
    encodings = lance.dataset(path)
    tasks: dict[str, Callable[[], object]] = {
        "scan": lambda: scan(encodings, **reading(encodings, ScanSettings())),
        "16": lambda: search(encodings, 16, threads=1),
    }
    seconds = in_turns(tasks, rounds)
    return seconds["16"] / seconds["scan"]


def alone(path: Path) -> tuple[float, float]:
    """Return the seconds of one search with 16 queries, and this process's peak memory in MiB."""
    encodings = lance.dataset(path)
    started = time.perf_counter()
    search(encodings, 16)
    return time.perf_counter() - started, peak_mib()


def peak_mib() -> float:
    """Return the peak memory of this process."""
    try:
        # What getrusage says begins with that of the process that started this one.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except OSError:
        return getrusage(RUSAGE_SELF).ru_maxrss / 1024


def in_a_process(*arguments: object) -> list[float]:
    """Run this script with arguments; return the numbers that it prints."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return [float(word) for word in subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()]


def growth(folder: Path, share: float) -> dict[str, Any]:
    """Measure how time and memory grow with the rows."""
    print("\n16 queries, two threads, each in a process of its own: 1,024 components")
    found: dict[str, Any] = {"before_mib": round(in_a_process("--before")[0])}
    for n in (10_000, 100_000, 1_000_000):
        path, rows = folder / f"{n}.lance", round(n * share)
        write_encodings(path, rows, 1024)
        seconds, mib = in_a_process("--alone", path)
        print(f"  {rows:9,} rows, {rows * 1056 / 1e6:7,.1f} MB  {seconds:7.3f} s  {mib:6,.0f} MiB at the peak")
        found[f"{rows}x1024"] = {"seconds": round(seconds, 3), "peak_mib": round(mib)}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--folder", type=Path, help="where to put the tables; by default a temporary folder")
    parser.add_argument("--before", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one-core", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(_THREADS)
    if chosen.before:
        print(peak_mib())
        return
    if chosen.alone:
        print(*alone(chosen.alone))
        return
    if chosen.one_core:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        print(one_core(chosen.one_core, chosen.rounds))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as parent:
        for n, d in ((100_000, 4096), (20_000, 65_536)):
            folder, rows = Path(parent) / str(d), round(n * chosen.share)
            measured = compare(folder, rows, d, chosen.rounds)
            if d == 4096:
                found |= measured
                if hasattr(os, "sched_setaffinity"):
                    path = folder / f"{rows}x{d}.lance"
                    (found["scan_ratio_16_one_core"],) = in_a_process("--one-core", path, "--rounds", chosen.rounds)
            else:
                found[f"{rows}x{d}"] = measured
        found["growth"] = growth(Path(parent), chosen.share)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
