"""Make the lake: passages, the studied model, its encoders with and without V, task curvatures, full-text index.

What is there already is left as it is, unless the models were trained since. Encoders of other checkpoints are made
where those are evaluated.
"""

import shutil
import time
from dataclasses import replace
from typing import Final

import torch
from work import MAIN, Work, read_rows

import proponent

ENCODERS: Final = {MAIN: "file", "main_none": "none"}
"""Second moments of every encoder of the studied model."""
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
        for encoder, moments in ENCODERS.items():
            took = encode(lake, work, MAIN, encoder=encoder, moments=moments)
            seconds.setdefault(encoder, took)  # of one that was there, it is nothing
            lake.fit_curvature(tasks, name=task_of(encoder), encoder=encoder)
        lake.index_text()
        curvatures = lake.sql("SELECT * FROM curvatures").to_arrow().to_pylist()
        runs = lake.sql(
            "SELECT kind, settings, counts, epoch(finished_at - started_at) AS seconds FROM runs ORDER BY started_at"
        )
        rows = [dict(row) for row in runs.to_arrow().to_pylist()]
        work.write("fill_lake", {"seconds": seconds, "curvatures": [dict(row) for row in curvatures], "runs": rows})


def encode(lake: proponent.Lake, work: Work, model: str, *, encoder: str, moments: str = "file") -> float:
    """Register a checkpoint and encode everything with it; return the seconds that encoding took."""
    lake.add_model(work.model(model), name=model, moments=work.model(model) / "optimizer.pt")
    began = time.monotonic()
    lake.encode(model, encoder=encoder, settings=replace(work.size.encoder, moments=moments))
    print(f"{encoder}: encoded in {time.monotonic() - began:.0f} s", flush=True)
    return time.monotonic() - began


def task_of(encoder: str) -> str:
    """Return the name of an encoder's curvature of the task."""
    return TASK if encoder == MAIN else f"{TASK}_{encoder}"
