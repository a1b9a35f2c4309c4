"""Run bergson's TrackStar in its own environment: `bergson_run.py FOLDER MODEL THREADS`; called by `peer.py`.

FOLDER has passages.jsonl and queries.jsonl of token ids and labels. For each setting it gets NAME.npy, scores (queries,
passages), and NAME.json, what it was and took. Notable: bergson refuses batches longer than the model's context, so it
works on a copy of the model whose configuration claims a longer one, which changes nothing for shorter texts; its
batches are then as large as it likes.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from bergson.build import build
from bergson.cli.trackstar import trackstar
from bergson.config import DataConfig, IndexConfig, PreprocessConfig, QuerySetConfig, TrackstarConfig
from bergson.config.config import InversionConfig
from bergson.data import load_scores
from datasets import Dataset

_LONG = 8192
_TOKENS = 8192 if torch.cuda.is_available() else 2048
"""Tokens of a batch."""


def settings() -> dict:
    """Return the settings that are tried, by name: the defaults, and what its documentation offers to improve them."""
    found = {}
    for side, damping in ((24, 0.1), (16, 0.1), (16, 1.0)):  # the best so far first, if time should run out
        found[f"unit, Adam, side {side}, damping {damping:g}"] = {
            "side": side, "unit": True, "adam": True, "mix": False, "damping": damping,
        }  # fmt: skip
    return found | {"defaults": {}}


def main() -> None:
    """Run every setting that has no scores yet."""
    folder, model, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    model = _longer(model, folder / "model")
    for name in ("passages", "queries"):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        Dataset.from_list([row | {"length": len(row["input_ids"])} for row in rows]).save_to_disk(folder / name)
    for number, (name, chosen) in enumerate(settings().items()):
        target = folder / f"setting-{number}.npy"
        if target.exists():
            continue
        began = time.monotonic(), _cpu_seconds()
        scores = _scores(folder, model, **chosen)
        wall, seconds = time.monotonic() - began[0], _cpu_seconds() - began[1]
        told = {"name": name, "wall": wall, "seconds": seconds, "d": _dimensions(folder / "run")}
        target.with_suffix(".json").write_text(json.dumps(told))
        np.save(target, scores)
        told |= _index(folder, model, chosen)
        target.with_suffix(".json").write_text(json.dumps(told))
        print(f"bergson, {name}: {wall:.0f} s, {seconds:.0f} CPU seconds", flush=True)


def _cpu_seconds() -> float:
    """Return what this process and its children have computed: a busy machine changes little of it."""
    return sum(os.times()[:4])


def _longer(model: Path, copy: Path) -> Path:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(model, copy)
    for name, key in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        told = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps(told | {key: _LONG}))
    return copy


def _index_config(folder: Path, model: Path, run: Path, side: int, *, adam: bool) -> IndexConfig:
    return IndexConfig(
        run_path=str(run),
        overwrite=True,
        model=str(model),
        data=DataConfig(dataset=str(folder / "passages")),
        projection_dim=side,
        token_batch_size=_TOKENS,
        optimizer_state=str(model / "optimizer.pt") if adam else "",
    )


def _scores(
    folder: Path,
    model: Path,
    *,
    side: int = 16,
    unit: bool = False,
    adam: bool = False,
    mix: bool = True,
    damping: float = 0.1,
) -> np.ndarray:
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    index = _index_config(folder, model, run, side, adam=adam)
    preprocess = PreprocessConfig(unit_normalize=unit, inversion_cfg=InversionConfig(damping_factor=damping))
    query = QuerySetConfig(dataset=str(folder / "queries"))
    trackstar(index, TrackstarConfig(query=query, preprocess_cfg=preprocess, mix_hessians=mix))
    return np.asarray(load_scores(run / "scores")[:], np.float32).T


def _dimensions(run: Path) -> int:
    sizes = json.loads((run / "query" / "info.json").read_text())["grad_sizes"]
    return int(sum(sizes.values()))


def _index(folder: Path, model: Path, chosen: dict) -> dict:
    """Build the store of gradients that later queries would be scored against; return its seconds and bytes."""
    run = folder / "index"
    shutil.rmtree(run, ignore_errors=True)
    began = _cpu_seconds()
    config = _index_config(folder, model, run, chosen.get("side", 16), adam=chosen.get("adam", False))
    build(config, PreprocessConfig())
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    return {"index_seconds": _cpu_seconds() - began, "index_bytes": size}


if __name__ == "__main__":
    main()
