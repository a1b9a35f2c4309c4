"""Code formats of stored vectors: float16, or int8 and int4 with one float16 scale for every block of components.

Notable: unit vectors are multiplied by sqrt(d) first, so that components are of order one, and neither a scale nor a
float16 component falls into float16's subnormal range, where it would lose precision at large d.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from proponent.schema.errors import EncodingError
from proponent.schema.settings import CODE_BLOCK
from proponent.schema.tables import codes_of


class Codes(NamedTuple):
    """Unit vectors as they are stored in an encodings table."""

    format: str
    codes: np.ndarray
    """(n, d) float16 or int8, for int4 (n, d / 2) int8."""
    scales: np.ndarray | None
    """(n, d / CODE_BLOCK) float16; float16 codes have none."""


class _Format(Protocol):
    """Turns blocks of components (n, blocks, CODE_BLOCK) float32, of order one, into codes and back."""

    def encode(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]: ...

    def decode(self, codes: np.ndarray, scales: np.ndarray | None) -> np.ndarray: ...


class _Float16:
    """Components as they are, in float16."""

    def encode(self, blocks: np.ndarray) -> tuple[np.ndarray, None]:
        return blocks.reshape(len(blocks), blocks.shape[1] * CODE_BLOCK).astype(np.float16), None

    def decode(self, codes: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
        return codes.reshape(len(codes), codes.shape[1] // CODE_BLOCK, CODE_BLOCK).astype(np.float32)


@dataclass(frozen=True)
class _Levels:
    """Components as multiples, -levels to levels, of their block's scale."""

    levels: int
    reach: float
    """Steps that a block's largest component is away from zero; half a step above `levels` errs by half a step, too."""
    packed: bool = False
    """Whether a byte holds two components: the i-th of a block's first half in its low bits, of its second above."""

    def encode(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scales = (np.abs(blocks).max(2) / np.float32(self.reach)).astype(np.float16)
        steps = np.where(scales == 0, np.float16(1), scales).astype(np.float32)
        codes = np.rint(blocks / steps[:, :, None]).clip(-self.levels, self.levels).astype(np.int8)
        if self.packed:
            low, high = np.split(codes, 2, axis=2)
            codes = (high << 4) | (low & 0x0F)
        return codes.reshape(len(codes), codes.shape[1] * codes.shape[2]), scales

    def decode(self, codes: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
        assert scales is not None
        codes = codes.reshape(*scales.shape, CODE_BLOCK // 2 if self.packed else CODE_BLOCK)
        blocks = np.empty((*scales.shape, CODE_BLOCK), np.float32)
        if self.packed:
            # Shifts of int8 keep the sign.
            blocks[:, :, : CODE_BLOCK // 2] = (codes << 4) >> 4
            blocks[:, :, CODE_BLOCK // 2 :] = codes >> 4
        else:
            blocks[:] = codes
        blocks *= scales.astype(np.float32)[:, :, None]
        return blocks


_FORMATS: Final[Mapping[str, _Format]] = {
    "float16": _Float16(),
    "int8": _Levels(127, reach=127),
    # Measured on normal and heavy-tailed blocks, 7.5 errs 5 to 9 % less (mean square) than 7; a search for each
    # block's best scale would gain 2 to 5 % more.
    "int4": _Levels(7, reach=7.5, packed=True),
}


def quantise(unit: np.ndarray, codes: str) -> Codes:
    """Return unit vectors (n, d) float32 in a format of `CODES`.

    Raises EncodingError when a component is not finite.
    """
    if not np.isfinite(unit).all():
        raise EncodingError("a vector with components that are not finite cannot be stored")
    n, d = unit.shape
    blocks = (unit * np.float32(np.sqrt(d))).reshape(n, d // CODE_BLOCK, CODE_BLOCK)
    return Codes(codes, *_FORMATS[codes].encode(blocks))


def dequantise(stored: Codes) -> np.ndarray:
    """Return unit vectors (n, d) float32 from their codes."""
    blocks = _FORMATS[stored.format].decode(stored.codes, stored.scales)
    n, d = len(blocks), blocks.shape[1] * CODE_BLOCK
    blocks *= np.float32(1 / np.sqrt(d))
    return blocks.reshape(n, d)


def dot(stored: Codes, queries: np.ndarray) -> np.ndarray:
    """Return dot products (n, q) float32 of stored vectors with queries (q, d) float32."""
    import torch

    return (torch.from_numpy(dequantise(stored)) @ torch.from_numpy(queries).T).numpy()


def read_codes(rows: pa.Table | pa.RecordBatch) -> Codes:
    """Return the stored vectors of rows of an encodings table, in the format that the rows' schema says."""
    scales = fixed_size_rows(rows.column("scales")) if "scales" in rows.schema.names else None
    return Codes(codes_of(rows.schema), fixed_size_rows(rows.column("codes")), scales)


def codes_arrays(stored: Codes) -> dict[str, pa.Array]:
    """Return stored vectors as the columns of an encodings table."""
    columns = {"codes": fixed_size_column(stored.codes)}
    return columns if stored.scales is None else columns | {"scales": fixed_size_column(stored.scales)}


def fixed_size_rows(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return a fixed-size-list column as an array (n, width), without a copy where the column is in one piece."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    values: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), column.type.list_size)


def fixed_size_column(rows: np.ndarray) -> pa.FixedSizeListArray:
    """Return an array (n, width) as a fixed-size-list column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), rows.shape[1])
