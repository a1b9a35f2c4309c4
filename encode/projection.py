"""Random projections made from a seed, the same on every machine and device.

Notable: entries come from the raw output of the counter-based Philox generator, keyed by seed and name, and from the
Box-Muller transform in float64. Nothing depends on the order in which layers are visited or on a library's way of
drawing normal numbers.
"""

import hashlib

import numpy as np
import torch


def gaussian(name: str, rows: int, columns: int, *, seed: int) -> torch.Tensor:
    """Return a (rows, columns) float32 matrix of independent normal entries with variance 1 / rows.

    The variance makes projected dot products unbiased: E[(P a)^T (P b)] = a^T b.
    """
    key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    philox = np.random.Philox(key=np.frombuffer(key, dtype="<u8"))
    half = (rows * columns + 1) // 2
    uniform = (philox.random_raw(2 * half) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log1p(-uniform[:half]))
    angle = 2.0 * np.pi * uniform[half:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: rows * columns]
    return torch.from_numpy((normal / np.sqrt(rows)).astype(np.float32).reshape(rows, columns))
