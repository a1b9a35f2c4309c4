"""Group sums: answering from them against scoring every passage, and bringing them up to date against making them.

    python benchmarks/groups.py                       # 100,000 passages of 1,024 components, a minute or two
    python benchmarks/groups.py --passages 1000000

A lake of generated metadata and random int8 vectors: 200 sources and 20,000 entities of very different sizes, three
entities a passage, twenty years of dates. Every task is a process of its own, so that its peak memory is its own; the
tasks take turns. Prints one JSON object as its last line.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from proponent import migrations
from proponent.query.group_sums import group_sums
from proponent.query.groups import group_influence
from proponent.query.session import Session
from proponent.schema import catalog as models
from proponent.schema.tables import DOCUMENTS, MENTIONS, PASSAGES
from proponent.store.codes import Products, codes_arrays, quantise, read_codes
from proponent.store.commit import Changes, committing, write_batch
from proponent.store.group_sums import Summed, remove_sums
from proponent.store.lake import DEFAULT_CATALOG, LakeStore, create_store, open_store
from proponent.store.runs import new_run, recorded_run
from proponent.store.snapshots import latest_snapshot

_AT_ONCE = 20_000
_PASSAGES_EACH = 2
_ENTITIES_EACH = 3


def make_lake(root: Path, *, passages: int, dim: int) -> None:
    """Make a lake of so many passages, each with its encoding."""
    run = new_run("init", {})
    run.status, run.finished_at = "done", models.now()
    lake = create_store(root, catalog=DEFAULT_CATALOG, upgrade=migrations.upgrade, run=run)
    model = models.Model(
        model_id="m", name="m", path="p", architecture="a", n_parameters=1, n_layers=1, context_length=8,
        weights_hash="w", tokenizer_hash="t",
    )  # fmt: skip
    encoder = models.Encoder(
        name="e", encoder_id="id", model_id="m", dim=dim, moments="none", settings={}, projection_hash="x",
        coverage=1.0, uncovered=[], artifact="x",
    )  # fmt: skip
    with lake.catalog.write() as session:
        session.add(model)
        session.flush()
        session.add(encoder)
    with committing(lake):
        lake.create_table("encodings_e")
    for first in range(0, passages, _AT_ONCE):
        add_passages(lake, first, min(_AT_ONCE, passages - first), dim)
    lake.close()


def add_passages(lake: LakeStore, first: int, n: int, dim: int) -> None:
    """Publish passages of new documents, with their encodings."""
    draw = np.random.default_rng(first)
    ids = [f"d{first + place:025d}" for place in range(0, n, _PASSAGES_EACH)]
    sources, days = draw.zipf(1.3, len(ids)) % 200, draw.integers(0, 7300, len(ids))
    blank = {field.name: None if field.nullable else "" for field in DOCUMENTS} | {"n_passages": _PASSAGES_EACH}
    documents = [
        blank
        | {"doc_id": one, "doc_key": one, "corpus": "c", "source": f"source {source}", "published_precision": "day",
           "published": date(2005, 1, 1) + timedelta(days=day)}
        for one, source, day in zip(ids, sources.tolist(), days.tolist(), strict=True)
    ]  # fmt: skip
    keys = [f"t{first + place:025d}" for place in range(n)]
    passages = pa.table(
        {
            "passage_id": [f"p{first + place:025d}" for place in range(n)],
            "doc_id": [ids[place // _PASSAGES_EACH] for place in range(n)],
            "ordinal": pa.array([place % _PASSAGES_EACH for place in range(n)], pa.int32()),
            "char_start": pa.array([0] * n, pa.int64()),
            "char_end": pa.array([1] * n, pa.int64()),
            "n_tokens": pa.array([1] * n, pa.int32()),
            "text": [f"Passage {first + place}." for place in range(n)],
            "text_hash": keys,
        }
    ).cast(PASSAGES)
    entities = draw.zipf(1.2, n * _ENTITIES_EACH) % 20_000
    mentions = pa.table(
        {
            "passage_id": np.repeat(passages["passage_id"].to_numpy(), _ENTITIES_EACH),
            "doc_id": np.repeat(passages["doc_id"].to_numpy(), _ENTITIES_EACH),
            "entity": [f"Entity {one}" for one in entities.tolist()],
            **{name: pa.nulls(len(entities), MENTIONS.field(name).type) for name in ("surface", "type")},
            "origin": ["corpus"] * len(entities),
            **{name: pa.nulls(len(entities), MENTIONS.field(name).type) for name in ("char_start", "char_end")},
        }
    ).cast(MENTIONS)
    vectors = draw.standard_normal((n, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    encodings = pa.table(
        {
            "text_hash": keys,
            **{name: np.ones(n, np.float32) for name in ("norm", "loss")},
            "n_tokens": np.ones(n, np.int32),
            **codes_arrays(quantise(vectors, "int8")),
        }
    )
    rows = {
        "documents": pa.Table.from_pylist(documents, DOCUMENTS),
        "passages": passages,
        "mentions": mentions,
        "encodings_e": encodings,
    }
    with recorded_run(lake.catalog, "test", {}) as run, committing(lake) as committer:
        changes = Changes()
        for table, data in rows.items():
            changes.append(write_batch(lake, table, data))
        committer.publish(run.run_id, changes.take())


def scored(lake: LakeStore, query: np.ndarray) -> pa.Table:
    """Return the summed score of every source, by scoring every passage."""
    at = latest_snapshot(lake.catalog)
    keys, scores = [], []
    products = Products(query[None] if query.ndim == 1 else query)
    tile = products.tile()
    columns = ["text_hash", "codes", "scales"]
    batches = lake.table("encodings_e", at=at).scanner(columns=columns, batch_size=1024, scan_in_order=True)
    for batch in batches.to_batches():
        keys.append(batch["text_hash"])
        scores.append(products.of(read_codes(batch), tile))
    found = pa.table({"text_hash": pa.chunked_array(keys), "score": np.concatenate(scores)[:, 0]})
    with Session(lake, at) as session:
        connection = session._connection
        connection.from_arrow(found).create_view("scores")
        return connection.sql(
            "SELECT source, count(*), sum(score::DOUBLE) AS influence FROM passages JOIN documents USING (doc_id) "
            "JOIN scores USING (text_hash) GROUP BY source ORDER BY influence DESC"
        ).to_arrow_table()


def perform(task: str, root: Path, dim: int) -> dict[str, float]:
    """Do one task; return its seconds, CPU seconds and peak memory in MiB."""
    lake, summed = open_store(root), Summed("e", dim)
    query = np.random.default_rng(1).standard_normal((1, dim)).astype(np.float32)
    at = latest_snapshot(lake.catalog)
    tasks: dict[str, Callable[[], Any]] = {
        "made": lambda: group_sums(lake, at, summed),
        "updated": lambda: group_sums(lake, at, summed),
        "answered": lambda: group_influence(lake, at, query, summed, by="source"),
        "scanned": lambda: scored(lake, query),
    }
    if task == "made":
        remove_sums(lake)
    if task == "scanned":
        import torch

        torch.set_num_threads(1)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far; getrusage would mix it with the parent's
    started, used = time.perf_counter(), time.process_time()
    tasks[task]()
    done = {"s": time.perf_counter() - started, "cpu_s": time.process_time() - used, "mib": _memory_mib("VmHWM")}
    lake.close()
    return done


def _memory_mib(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to put the lake; by default a temporary folder")
    parser.add_argument("--task", nargs=2, metavar=("TASK", "LAKE"), help="perform one task, and end")
    chosen = parser.parse_args()
    if chosen.task:
        print(json.dumps(perform(chosen.task[0], Path(chosen.task[1]), chosen.dim)))
        return
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        root = Path(folder) / "lake"
        make_lake(root, passages=chosen.passages, dim=chosen.dim)
        report(measure(root, chosen), chosen)


def measure(root: Path, chosen: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return medians over the rounds of every task, in which one per cent of passages is added each time."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("made", "answered", "scanned", "updated")}
    for number in range(chosen.rounds):
        for task in ("made", "answered", "scanned"):
            found[task].append(_apart(task, root, chosen.dim))
        lake = open_store(root)
        add_passages(lake, chosen.passages + number * _AT_ONCE, chosen.passages // 100, chosen.dim)
        lake.close()
        found["updated"].append(_apart("updated", root, chosen.dim))
    return {name: {key: median(one[key] for one in rounds) for key in rounds[0]} for name, rounds in found.items()}


def _apart(task: str, root: Path, dim: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--dim", str(dim), "--task", task, str(root)]
    done: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return done


def report(found: dict[str, dict[str, float]], chosen: argparse.Namespace) -> None:
    """Print a table, and the ratios as JSON."""
    print(f"{chosen.passages:,} passages, d = {chosen.dim:,}, int8; medians of {chosen.rounds}\n")
    told = {
        "made": "sums made from nothing",
        "updated": "brought up to date after 1 % more passages",
        "answered": "sources, answered from sums",
        "scanned": "sources, by scoring every passage",
    }
    for name, words in told.items():
        of = found[name]
        print(f"  {words:44} {of['s']:8.3f} s {of['cpu_s']:8.3f} CPU s {of['mib']:7.0f} MiB at the peak")
    ratios = {
        "scan_over_answer": found["scanned"]["s"] / found["answered"]["s"],
        "made_over_updated": found["made"]["s"] / found["updated"]["s"],
        "made_mib": found["made"]["mib"],
    }
    print(json.dumps({name: round(value, 2) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
