"""Make the lake: passages, checkpoints, encoders of the methods that are compared, task curvatures, full-text index.

What is there already is left as it is, unless the models were trained since.
"""

import shutil
import time
from dataclasses import replace
from typing import Final

import torch
from work import MAIN, MODELS, SMALL, Work, read_rows

import proponent

ENCODERS: Final = {
    MAIN: (MAIN, "file"),
    "main_none": (MAIN, "none"),
    "quarter": ("quarter", "file"),
    "half": ("half", "file"),
    SMALL: (SMALL, "file"),
}
"""Checkpoint and second moments of every encoder."""
TASK: Final = "task"
"""Curvature of the queries that are not evaluated; the name of its encoder follows, but for the studied one's."""


def run(work: Work) -> None:
    """Make what is missing, and tell what encoding took."""
    torch.set_num_threads(work.threads)
    if not work.is_current(work.lake / "proponent.toml", MAIN):
        shutil.rmtree(work.lake, ignore_errors=True)
        with proponent.init(work.lake) as lake:
            lake.ingest(work.corpus, corpus="trex")
    seconds = work.read("fill_lake")["seconds"] if work.is_current(work.found("fill_lake"), MAIN) else {}
    tasks = [(row["prompt"], row["target"]) for row in read_rows(work.task)]
    with proponent.open(work.lake) as lake:
        for name in MODELS:
            lake.add_model(work.model(name), name=name, moments=work.model(name) / "optimizer.pt")
        for encoder, (model, moments) in ENCODERS.items():
            began = time.monotonic()
            lake.encode(model, encoder=encoder, settings=replace(work.size.encoder, moments=moments))
            took = time.monotonic() - began
            seconds.setdefault(encoder, took)  # of one that was there, it is nothing
            lake.fit_curvature(tasks, name=task_of(encoder), encoder=encoder)
            print(f"{encoder}: encoded in {took:.0f} s", flush=True)
        lake.index_text()
        curvatures = lake.sql("SELECT * FROM curvatures").to_arrow().to_pylist()
        work.write("fill_lake", {"seconds": seconds, "curvatures": [dict(row) for row in curvatures]})


def task_of(encoder: str) -> str:
    """Return the name of an encoder's curvature of the task."""
    return TASK if encoder == MAIN else f"{TASK}_{encoder}"
