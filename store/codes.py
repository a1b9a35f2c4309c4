"""Code formats of stored vectors: float16, or int8 and int4 with one float16 scale for every block of components.

Notable: unit vectors are multiplied by sqrt(d) first, so that components are of order one, and neither a scale nor a
float16 component falls into float16's subnormal range, where it would lose precision at large d.

Products with queries are float32 throughout: a tile of codes that fits the cache is decoded, and multiplied with all
queries. Measured on one thread for 100,000 x 4,096 int8 codes and 1, 16 and 256 queries, this took 0.07, 0.11 and
0.88 s; int8 products of each block with the queries in three int8 digits, as exact, 0.11, 0.15 and 1.5 s, in two, to
2^-15, 0.10, 0.13 and 1.0; bfloat16 was no faster at 16.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from proponent.schema.errors import EncodingError
from proponent.schema.settings import CODE_BLOCK
from proponent.schema.tables import codes_of

if TYPE_CHECKING:
    import torch

TILE_ROWS: Final = 256
"""Least rows of a tile."""
_TILE_COLUMNS: Final = 4096
"""Most components of a tile: 4 MiB of float32 with TILE_ROWS."""
_NARROW: Final = 4
"""Tiles of short vectors have up to so many times TILE_ROWS: at d = 1,024 and 16 queries a quarter less time."""
_ON_A_GPU: Final = 16
"""Tiles of a GPU have so many times TILE_ROWS: to be told of a small one takes it longer than to multiply it."""


class Codes(NamedTuple):
    """Unit vectors as they are stored in an encodings table."""

    format: str
    codes: np.ndarray
    """(n, d) float16 or int8, for int4 (n, d / 2) int8."""
    scales: np.ndarray | None
    """(n, d / CODE_BLOCK) float16; float16 codes have none."""


class _Format(Protocol):
    """Turns blocks of components (n, blocks, CODE_BLOCK) float32, of order one, into codes and back."""

    @property
    def block_codes(self) -> int:
        """Codes that hold a block."""

    def encode(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]: ...

    def decode(self, codes: "torch.Tensor", scales: "torch.Tensor", into: "torch.Tensor") -> None: ...


class _Float16:
    """Components as they are, in float16."""

    block_codes = CODE_BLOCK

    def encode(self, blocks: np.ndarray) -> tuple[np.ndarray, None]:
        return blocks.reshape(len(blocks), blocks.shape[1] * CODE_BLOCK).astype(np.float16), None

    def decode(self, codes: "torch.Tensor", scales: "torch.Tensor", into: "torch.Tensor") -> None:
        into.copy_(codes.view(into.shape))


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

    @property
    def block_codes(self) -> int:
        return CODE_BLOCK // 2 if self.packed else CODE_BLOCK

    def decode(self, codes: "torch.Tensor", scales: "torch.Tensor", into: "torch.Tensor") -> None:
        codes, steps = codes.view(*scales.shape, self.block_codes), scales.float()
        if self.packed:
            # Both halves sixteenfold, as signed bytes: one operation on bytes each.
            into[:, :, : CODE_BLOCK // 2] = codes << 4
            into[:, :, CODE_BLOCK // 2 :] = codes & -16
            steps /= 16
        else:
            into.copy_(codes)
        into.mul_(steps[:, :, None])


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
    import torch

    codes, scales = _tensors(stored)
    form = _FORMATS[stored.format]
    blocks = torch.empty(len(codes), codes.shape[1] // form.block_codes, CODE_BLOCK)
    form.decode(codes, scales, blocks)
    blocks *= 1 / math.sqrt(blocks.shape[1] * CODE_BLOCK)
    unit: np.ndarray = blocks.view(len(codes), blocks.shape[1] * CODE_BLOCK).numpy()
    return unit


class Products:
    """Dot products of stored vectors with queries, for several threads, each with a tile of its own.

    On the CPU a row's products are the same bits whatever rows are given with it, as long as a thread of torch's makes
    them alone.
    """

    def __init__(self, queries: np.ndarray, *, device: str = "cpu") -> None:
        """Take queries (q, d) float32."""
        import torch

        self._n, self._d = queries.shape
        self._rows = TILE_ROWS * (max(1, min(_NARROW, _TILE_COLUMNS // self._d)) if device == "cpu" else _ON_A_GPU)
        parts = np.split(queries, range(_TILE_COLUMNS, self._d, _TILE_COLUMNS), axis=1)
        # A slice of a wider matrix would be copied at every product.
        self._queries = [torch.from_numpy(np.ascontiguousarray(part, np.float32)).to(device) for part in parts]

    def tile(self) -> "torch.Tensor":
        """Return memory for one thread to decode vectors into."""
        import torch

        return torch.zeros(self._rows * min(self._d, _TILE_COLUMNS), device=self._queries[0].device)

    def of(self, stored: Codes, tile: "torch.Tensor") -> np.ndarray:
        """Return the dot products (n, q) float32 of stored vectors with the queries."""
        import torch

        form, products = _FORMATS[stored.format], torch.zeros(len(stored.codes), self._n, device=tile.device)
        codes, scales = (part.to(tile.device) for part in _tensors(stored))
        first = 0
        for queries in self._queries:
            end = first + queries.shape[1] // CODE_BLOCK
            some_codes, some_scales = codes[:, first * form.block_codes : end * form.block_codes], scales[:, first:end]
            blocks = tile[: self._rows * queries.shape[1]].view(self._rows, end - first, CODE_BLOCK)
            for start in range(0, len(codes), self._rows):
                rows = slice(start, start + self._rows)
                product = products[rows]
                form.decode(some_codes[rows], some_scales[rows], blocks[: len(product)])
                # All of the tile, what is left of other rows too: a product of another shape may round otherwise.
                product += _matmul(blocks.flatten(1), queries)[: len(product)]
            first = end
        products *= 1 / math.sqrt(self._d)
        found: np.ndarray = products.cpu().numpy()
        return found


def _matmul(rows: "torch.Tensor", queries: "torch.Tensor") -> "torch.Tensor":
    """Return the product (n, q) of rows (n, d) and queries (q, d), float32."""
    import torch

    if rows.device.type == "cpu" and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        # This is oneDNN. MKL, which `rows @ queries.T` calls, took 2.2 times as long on an AMD processor with AVX-512.
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, queries, None, "none", [], "")
        return product
    return rows @ queries.T


def _tensors(stored: Codes) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return codes and scales as tensors of the same memory, which may be a table's and is only read."""
    from torch.utils.dlpack import from_dlpack

    return from_dlpack(stored.codes), from_dlpack(stored.codes[:, :0] if stored.scales is None else stored.scales)


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
