"""The project's own evaluation of the checkpoints on the way and of the smaller model, each with its own encoder."""

import torch
from measure import evaluate
from work import SMALL, STAGES, Work

import proponent


def run(work: Work) -> None:
    """Evaluate; each evaluation has a folder of its own, and goes on where it was."""
    torch.set_num_threads(work.threads)
    with proponent.open(work.lake) as lake:
        for name in (*STAGES[:-1], SMALL):
            evaluate(lake, work, name, [f"{name}:trackstar", "bm25", "random"], work.size.tail_patch // 2)
