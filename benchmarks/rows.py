"""Whole searches among more and more rows: time, and peak memory, which ought not to grow with them.

    python benchmarks/rows.py                                        # a minute on two cores
    python benchmarks/rows.py --rows 1000000 10000000 30000000       # half an hour, 4 GB of disk

A lake is generated whose passages have a text of their own each, and an encoding of 64 components in int8, the
smallest that codes come in, so that what is not the scan weighs most. A search is all that a trace does with a query's
vector: which passages pass the filter and are encoded, the exact scan, the hits' passages, and how they stand among
random texts. Each lake is searched in a process of its own. The reference is reading the vectors and doing nothing
with them. Prints one JSON object as its last line.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from search import peak_mib, queries_for, scan, unit_vectors

import proponent
from proponent.query.search import find_candidates, search
from proponent.query.session import Session
from proponent.query.standing import standings
from proponent.schema import catalog as models
from proponent.schema.settings import ScanSettings
from proponent.schema.tables import PASSAGES, encodings_schema, encodings_table
from proponent.store.codes import codes_arrays, quantise
from proponent.store.commit import Changes, committing, write_batch
from proponent.store.lake import LakeStore
from proponent.store.runs import recorded_run
from proponent.store.scan import reading

DIM = 64
_MANY = 2_000_000
_FILTER = "ordinal < 8"
"""Which half of the passages pass."""


def write_lake(path: Path, n: int) -> None:
    """Make a lake of n passages, as many texts, and their encodings by an encoder `e`."""
    with proponent.init(path) as lake:
        store = lake.store
        _add_encoder(store)
        draw, start = np.random.default_rng(3), 0
        for unit in unit_vectors(n, DIM):
            numbers = range(start, start + len(unit))
            start = numbers.stop
            _publish(store, [f"{number * 0x9E3779B97F4A7C15 % (1 << 64):026x}" for number in numbers], unit, draw)


def _add_encoder(store: LakeStore) -> None:
    same = {"path": "x", "architecture": "x", "weights_hash": "x", "tokenizer_hash": "x"}
    model = models.Model(model_id="m", name="m", n_parameters=1, n_layers=1, context_length=8, **same)
    encoder = models.Encoder(
        name="e",
        encoder_id="e",
        model_id="m",
        dim=DIM,
        codes="int8",
        moments="none",
        settings={},
        projection_hash="x",
        coverage=1.0,
        uncovered=[],
        artifact="x",
    )
    with store.catalog.write() as session:
        session.add(model)
        session.flush()
        session.add(encoder)


def _publish(store: LakeStore, texts: list[str], unit: np.ndarray, draw: np.random.Generator) -> None:
    n = len(texts)
    order = draw.permutation(n)  # encodings lie in another order than passages
    passages = {
        "passage_id": [f"p{text[1:]}" for text in texts],
        "doc_id": [f"d{text[1:]}" for text in texts],
        "ordinal": draw.integers(0, 16, n).astype(np.int32),
        "char_start": np.zeros(n, np.int64),
        "char_end": np.ones(n, np.int64),
        "n_tokens": np.ones(n, np.int32),
        "text": [text[:16] for text in texts],
        "text_hash": texts,
    }
    encodings = {
        "text_hash": [texts[place] for place in order],
        "norm": np.ones(n, np.float32),
        "loss": np.ones(n, np.float32),
        "n_tokens": np.ones(n, np.int32),
    }
    rows = {
        "passages": pa.table(passages, schema=PASSAGES),
        encodings_table("e"): pa.table(
            encodings | codes_arrays(quantise(unit, "int8")), schema=encodings_schema(DIM, "int8")
        ),
    }
    with recorded_run(store.catalog, "benchmark", {}) as run, committing(store) as committer:
        changes = Changes()
        for table, some in rows.items():
            store.create_table(table)
            changes.append(write_batch(store, table, some))
        committer.publish(run.run_id, changes.take())


def search_alone(path: Path) -> dict[str, float]:
    """Search a lake, in this process alone."""
    with proponent.open(path) as lake:
        store, at = lake.store, lake.snapshot
        encodings = store.table(encodings_table("e"), at=at)
        seconds: dict[str, list[float]] = {}

        def timed(name: str, task: Callable[[], Any]) -> Any:
            began = time.perf_counter()
            done = task()
            seconds.setdefault(name, []).append(time.perf_counter() - began)
            return done

        def searched(session: Session, n: int, where: str | None) -> None:
            among = find_candidates(store, session, at, encoder="e", where=where)
            how: dict[str, Any] = {"encoder": "e", "unit_norm": True, "norms": None}
            search(store, session, at, queries=queries_for(DIM, n), candidates=among, k=10, **how)
            standings(store, session, at, queries_for(DIM, n), **how)

        scan(encodings, **reading(encodings, ScanSettings()))  # whose memory is Lance's own
        before = peak_mib()
        for _ in range(3 if encodings.count_rows() <= _MANY else 1):
            with Session(store, at) as session:  # which has kept nothing
                timed("first", lambda: searched(session, 1, None))
                timed("again_1", lambda: searched(session, 1, None))
                timed("again_16", lambda: searched(session, 16, None))
                timed("filtered", lambda: searched(session, 1, _FILTER))
            timed("scan", lambda: scan(encodings, **reading(encodings, ScanSettings())))
    return {name: median(values) for name, values in seconds.items()} | {"peak_mib": peak_mib(), "before_mib": before}


def searching(folder: Path, rows: list[int]) -> dict[str, Any]:
    """Measure searches among more and more rows."""
    print(f"\nwhole searches, {DIM} components in int8, each lake in a process of its own; read: the vectors alone")
    found: dict[str, Any] = {}
    for n in rows:
        path = folder / f"{n}"
        write_lake(path, n)
        one = json.loads(subprocess.check_output([sys.executable, __file__, "--alone", str(path)]).splitlines()[-1])
        found[f"{n}x{DIM}"] = {name: round(value, 4) for name, value in one.items()}
        print(
            f"  {n:11,} rows: peak {one['peak_mib']:6,.0f} MiB, before the first search {one['before_mib']:6,.0f} MiB"
        )
        for name, value in one.items():
            if not name.endswith("mib"):
                print(f"    {name:10} {value:8.3f} s  {value / one['scan']:7.2f} of reading the vectors")
        shutil.rmtree(path)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--folder", type=Path, help="where to put lakes; by default a temporary folder")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.alone:
        print(json.dumps(search_alone(chosen.alone)))
        return
    with tempfile.TemporaryDirectory(dir=chosen.folder) as parent:
        print(json.dumps(searching(Path(parent), chosen.rows)))


if __name__ == "__main__":
    main()
