"""Make the lake: passages, checkpoints, encoders of the methods that are compared, task curvatures, full-text index."""

import shutil
import time
from typing import Final

import torch
from work import MAIN, MODELS, SMALL, Work, read_rows

import proponent
from proponent.schema.settings import EncoderSettings

ENCODERS: Final = {
    MAIN: (MAIN, "file"),
    "main_none": (MAIN, "none"),
    "main_adam": (MAIN, "adam"),
    "quarter": ("quarter", "file"),
    "half": ("half", "file"),
    SMALL: (SMALL, "file"),
}
"""Checkpoint and second moments of every encoder."""
TASK: Final = "task"
"""Curvature of the queries that are not evaluated; the name of its encoder follows, but for the studied one's."""


def run(work: Work) -> None:
    """Make the lake anew, and tell what encoding took."""
    torch.set_num_threads(work.threads)
    shutil.rmtree(work.lake, ignore_errors=True)
    seconds = {}
    tasks = [(row["prompt"], row["target"]) for row in read_rows(work.task)]
    with proponent.init(work.lake) as lake:
        lake.ingest(work.corpus, corpus="trex")
        for name in MODELS:
            lake.add_model(work.model(name), name=name, moments=work.model(name) / "optimizer.pt")
        for encoder, (model, moments) in ENCODERS.items():
            began = time.monotonic()
            lake.encode(model, encoder=encoder, settings=EncoderSettings(moments=moments, side=work.size.side))
            seconds[encoder] = time.monotonic() - began
            lake.fit_curvature(tasks, name=task_of(encoder), encoder=encoder)
            print(f"{encoder}: encoded in {seconds[encoder]:.0f} s", flush=True)
        lake.index_text()
        curvatures = lake.sql("SELECT * FROM curvatures").to_arrow().to_pylist()
        work.write("fill_lake", {"seconds": seconds, "curvatures": [dict(row) for row in curvatures]})


def task_of(encoder: str) -> str:
    """Return the name of an encoder's curvature of the task."""
    return TASK if encoder == MAIN else f"{TASK}_{encoder}"
