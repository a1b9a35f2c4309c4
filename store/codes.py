"""Code formats of stored vectors: int8 with one float16 scale for every block of components.

Notable: unit vectors are multiplied by sqrt(d) first, so that components are of order one and a scale never falls into
float16's subnormal range, where it would lose precision at large d.
"""

import numpy as np
import pyarrow as pa

from proponent.schema.errors import EncodingError
from proponent.schema.settings import CODE_BLOCK

_LEVELS = 127.0


def quantise(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return codes (n, d) int8 and scales (n, d / CODE_BLOCK) float16 of unit vectors (n, d) float32.

    Raises EncodingError when a component is not finite.
    """
    if not np.isfinite(unit).all():
        raise EncodingError("a vector with components that are not finite cannot be stored")
    n, d = unit.shape
    blocks = (unit * np.float32(np.sqrt(d))).reshape(n, d // CODE_BLOCK, CODE_BLOCK)
    scales = (np.abs(blocks).max(2) / _LEVELS).astype(np.float16)
    steps = np.where(scales == 0, np.float16(1), scales).astype(np.float32)
    codes = np.rint(blocks / steps[:, :, None]).clip(-_LEVELS, _LEVELS).astype(np.int8)
    return codes.reshape(n, d), scales


def dequantise(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return unit vectors (n, d) float32 from codes (n, d) int8 and scales (n, d / CODE_BLOCK) float16."""
    n, d = codes.shape
    blocks = codes.reshape(n, d // CODE_BLOCK, CODE_BLOCK).astype(np.float32)
    blocks *= scales.astype(np.float32)[:, :, None]
    blocks *= np.float32(1 / np.sqrt(d))
    return blocks.reshape(n, d)


def dot(codes: np.ndarray, scales: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return dot products (n, q) float32 of stored vectors with queries (q, d) float32."""
    import torch

    return (torch.from_numpy(dequantise(codes, scales)) @ torch.from_numpy(queries).T).numpy()


def fixed_size_rows(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return a fixed-size-list column as an array (n, width), without a copy where the column is in one piece."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    values: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), column.type.list_size)


def fixed_size_column(rows: np.ndarray) -> pa.FixedSizeListArray:
    """Return an array (n, width) as a fixed-size-list column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), rows.shape[1])
