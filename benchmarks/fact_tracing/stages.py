"""Checkpoints on the way and the smaller model: each encoded, and evaluated with its own encoder."""

import torch
from fill_lake import encode
from measure import evaluate
from work import SMALL, STAGES, Work

import proponent


def run(work: Work) -> None:
    """Evaluate; each evaluation has a folder of its own, and goes on where it was."""
    torch.set_num_threads(work.threads)
    with proponent.open(work.lake) as lake:
        for name in (*STAGES[:-1], SMALL):
            encode(lake, work, name, encoder=name)
            evaluate(lake, work, name, [f"{name}:trackstar", "bm25", "random"], work.size.tail_patch // 2)
