"""Decoder of matrices stored row by row: codes of a few bits, and scales of blocks of weights."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sparsity_report.weights.array_dtypes import array_dtype
from sparsity_report.weights.packed.packed_tensor import Packed
from sparsity_report.weights.tensor_slices import Bytes, Entry, Floats, Rounding

#: Values of the sixteen codes of a 4-bit float: a sign, two exponent bits, one fraction bit.
#: OCP Microscaling Formats (MX) Specification 1.0, table 5: E2M1.
E2M1 = tuple(sign * value for sign in (1.0, -1.0) for value in (0, 0.5, 1, 1.5, 2, 3, 4, 6))
#: Values of the 6-bit float E2M3, three fraction bits, table 4.
E2M3 = tuple(
    sign * 2.0 ** max(0, code // 8 - 1) * (code % 8 / 8 + (code > 7))
    for sign in (1.0, -1.0)
    for code in range(32)
)

#: Weights per scale in microscaling formats and in NVIDIA's.
MX_GROUP, NV_GROUP = 32, 16
#: Rows and columns of a tile of scales.
#: https://docs.nvidia.com/cuda/cublas/index.html#d-block-scaling-factors-layout
TILE_ROWS, TILE_COLUMNS = 128, 4


@dataclass(frozen=True, eq=False)
class Blocks:
    """One number per block of a matrix.

    Attributes
    ----------
    part : Entry
    height, width : int
        Rows and columns of a block; the last may be smaller.
    bits : int
        Width of integers packed downwards, 32 bits at a time; 0 for plain numbers.
    offset : float
        Subtracted from each number.
    exponent : bool
        True if the numbers are powers of two, stored as their exponent plus 127.
    order : Entry or None
        Block column of each column of the matrix; None if they follow in order.
    """

    part: Entry
    height: int
    width: int
    bits: int = 0
    offset: float = 0
    exponent: bool = False
    order: Entry | None = None

    def of_rows(self, start: int, stop: int) -> Floats:
        """Return the numbers of a range of rows, (rows, blocks per row)."""
        first, last = start // self.height, -(-stop // self.height)
        if self.bits:
            words = self.part.rows(first * self.bits // 32, -(-last * self.bits // 32))
            down = np.ascontiguousarray(words.view(np.uint32).T).view(np.uint8)
            values = decode_codes(down, self.bits, integer_values(self.bits, self.offset))
            values = values.T[: last - first]
        else:
            values = self.numbers(first, last) - np.float32(self.offset)
        values = self.part.finite(values.astype(np.float32, copy=False))
        if self.height == 1:
            return values
        return values.repeat(self.height, axis=0)[start - first * self.height :][: stop - start]

    def numbers(self, first: int, last: int) -> Floats:
        """Return the numbers in a range of rows of the part."""
        raw = self.part.rows(first, last)
        if not self.exponent:
            return self.part.numbers(raw)
        powers = raw.astype(np.int32)
        values: Floats = np.ldexp(np.float32(1), np.minimum(powers, 254) - 127)
        # 255 stands for NaN.
        values[powers == 255] = np.nan
        return values

    def spread(self, start: int, stop: int, columns: int) -> Floats:
        """Return broadcastable numbers of a range of rows, (rows, blocks, 1 or width)."""
        values = self.of_rows(start, stop)
        if self.order is not None:
            return values[:, self.order.integers(), None]
        if values.shape[1] * self.width == columns:
            return values[:, :, None]
        return values.repeat(self.width, axis=1)[:, :columns, None]

    def combine_(self, values: Floats, how: np.ufunc, start: int) -> None:
        """Combine a range of rows with their numbers, in place."""
        numbers = self.spread(start, start + len(values), values.shape[1])
        parted = values.reshape(len(values), numbers.shape[1], -1)
        how(parted, numbers, out=parted)


@dataclass(frozen=True, eq=False, kw_only=True)
class NestedBlocks(Blocks):
    """Nested scales of bitsandbytes: scales that are quantized themselves.

    Attributes
    ----------
    table : Entry
        Values of the 256 codes of `part`.
    nested : Entry
        Scales of the codes.
    size : int
        Number of codes that share a scale.
    more : float
        Added to each scale.
    """

    table: Entry
    nested: Entry
    size: int
    more: float

    def of_rows(self, start: int, stop: int) -> Floats:
        """Return the scales of a range of rows, (rows, blocks per row)."""
        codes = self.part.rows(start, stop)
        places = np.arange(codes.size).reshape(codes.shape) + start * codes.shape[1]
        scales = self.nested.numbers()[places // self.size]
        return self.part.finite(self.table.numbers()[codes] * scales + np.float32(self.more))


@dataclass(frozen=True, eq=False, kw_only=True)
class TiledBlocks(Blocks):
    """Scales in the tiles of a GPU kernel: a row of the part is a row of tiles.

    Attributes
    ----------
    across : int
        Blocks per row of the matrix; the last tile may be wider.
    """

    across: int

    def of_rows(self, start: int, stop: int) -> Floats:
        """Return the scales of a range of rows, (rows, blocks per row)."""
        first, last = start // TILE_ROWS, -(-stop // TILE_ROWS)
        # A tile holds every 32nd row side by side.
        tiles = self.numbers(first, last).reshape(
            last - first, -1, 32, TILE_ROWS // 32, TILE_COLUMNS
        )
        rows = tiles.transpose(0, 3, 2, 1, 4).reshape((last - first) * TILE_ROWS, -1)
        return self.part.finite(rows[start - first * TILE_ROWS :][: stop - start, : self.across])


@dataclass(frozen=True, eq=False)
class Rowwise(Packed):
    """``(code − zero) · scale … + bias``, block by block.

    Attributes
    ----------
    codes : Entry
        (rows, bytes or words of a row).
    bits : int
        Width of a code; 0 for numbers of the part's own dtype.
    table : tuple of float
        Values of the codes; empty for integers.
    high_first : bool
        True if the high half of a byte comes first.
    zero, bias : Blocks or None
    scales : tuple of Blocks
    factor : float
        Scale of all values.
    columns : int
        Weights of a row if rows are blocks of the model's matrix; 0 if they are its own.
    offset : float
        Subtracted from each code that is an integer.
    """

    codes: Entry
    bits: int = 0
    table: tuple[float, ...] = ()
    high_first: bool = False
    zero: Blocks | None = None
    scales: tuple[Blocks, ...] = ()
    bias: Blocks | None = None
    factor: float = 1.0
    columns: int = 0
    offset: float = 0

    @property
    def row(self) -> int:
        """Values of one row."""
        return self.columns or self.shape[-1]

    @property
    def rounding(self) -> Rounding | None:
        """Rounding interval: half a quantization step on either side of zero for integers."""
        if self.zero or self.bias:
            return Rounding(has_zero=self.bias is None)
        return nearest_to_zero(self.levels if self.bits else _levels(self.codes.values.dtype))

    @property
    def levels(self) -> tuple[float, ...]:
        """Values of the codes."""
        return self.table or integer_values(self.bits, self.offset)

    def steps(self, first: int, last: int) -> Floats:
        """Return the products of all scales."""
        steps = np.full((1, 1, 1), self.factor, np.float32)
        for scale in self.scales:
            steps = steps * scale.spread(first, last, self.row)
        return np.abs(steps)

    def values(self, first: int, last: int) -> Floats:
        """Return values of whole rows."""
        values = self._codes(first, last)
        if self.zero:
            self.zero.combine_(values, np.subtract, first)
        for scale in self.scales:
            scale.combine_(values, np.multiply, first)
        if self.factor != 1:
            values *= np.float32(self.factor)
        if self.bias:
            self.bias.combine_(values, np.add, first)
        return values

    def _codes(self, first: int, last: int) -> Floats:
        raw = self.codes.rows(first, last)
        if not self.bits:
            return self.codes.numbers(raw)
        looked = decode_codes(raw, self.bits, self.levels, self.high_first)
        return looked if looked.shape[1] == self.row else looked[:, : self.row].copy()


@lru_cache
def _levels(dtype: str) -> tuple[float, ...]:
    """Return the numbers that an 8-bit dtype represents."""
    return tuple(np.arange(256).astype(np.uint8).view(array_dtype(dtype)).astype(float).tolist())


def nearest_to_zero(levels: Iterable[float]) -> Rounding | None:
    """Return the range that a set of levels rounds to zero; None if zero is not a level.

    Examples
    --------
    >>> nearest_to_zero([-2.0, -1.0, 0.0, 0.5])
    Rounding(below=0.5, above=0.25, has_zero=True)
    """
    ordered = sorted({level for level in levels if level == level})
    place = bisect_left(ordered, 0.0)
    if not 0 < place < len(ordered) - 1 or ordered[place] != 0:
        return None
    return Rounding(-ordered[place - 1] / 2, ordered[place + 1] / 2)


def integer_values(bits: int, offset: float = 0) -> tuple[float, ...]:
    """Return the values of integer codes of a width, from -`offset`."""
    return tuple(code - offset for code in range(2**bits))


def decode_codes(
    packed: Bytes, bits: int, values: tuple[float, ...] = (), high_first: bool = False
) -> Floats:
    """Return the value of each code in rows of bytes.

    Parameters
    ----------
    packed : numpy.ndarray
        uint8, (rows, bytes), codes side by side from the lowest bit of the first byte.
    bits : int
        Width of a code, 1 to 8.
    values : tuple of float
        Values of the ``2**bits`` codes; by default their integers.
    high_first : bool
        True if the high half of a byte of 4-bit codes comes first.

    Returns
    -------
    numpy.ndarray
        float32, (rows, codes).

    Examples
    --------
    >>> decode_codes(np.array([[0x21, 0x43]], np.uint8), 4)
    array([[1., 2., 3., 4.]], dtype=float32)
    """
    rows, values = len(packed), values or integer_values(bits)
    if 8 % bits == 0:
        # Decode two bytes at a time: their table of values fits a core's cache.
        table = _table(bits, values, high_first)
        if bits < 8 and packed.shape[1] % 2 == 0 and packed.flags.c_contiguous:
            wide = _wide_table(bits, values, high_first)
            return wide.take(packed.view("<u2"), axis=0).reshape(rows, -1)
        return table.take(packed, axis=0).reshape(rows, -1)
    return np.array(values, np.float32)[unpack_codes(packed, bits)]


def unpack_codes(packed: Bytes, bits: int) -> Bytes:
    """Return the codes in rows of bytes, also those that straddle bytes.

    Examples
    --------
    >>> unpack_codes(np.array([[0b11_010_001, 0b0, 0b111_00000]], np.uint8), 3).tolist()
    [[1, 2, 3, 0, 0, 0, 0, 7]]
    """
    rows, size = packed.shape
    # Eight codes of b bits fill b bytes.
    eights = -(-size // bits)
    padded = np.zeros((rows, eights * bits), np.uint8)
    padded[:, :size] = packed
    word = np.zeros((rows, eights), np.uint64)
    for place in range(bits):
        word |= padded[:, place::bits].astype(np.uint64) << np.uint64(8 * place)
    parted = np.empty((rows, eights, 8), np.uint8)
    for place in range(8):
        parted[:, :, place] = (word >> np.uint64(bits * place)) & np.uint64(2**bits - 1)
    return parted.reshape(rows, -1)[:, : size * 8 // bits]


@lru_cache(maxsize=64)
def _table(bits: int, values: tuple[float, ...], high_first: bool) -> Floats:
    every = np.arange(256, dtype=np.uint8)
    places = np.arange(0, 8, bits)
    parted = every[:, None] >> places[:: -1 if high_first else 1] & (2**bits - 1)
    table: Floats = np.array(values, np.float32)[parted]
    return table


@lru_cache(maxsize=16)
def _wide_table(bits: int, values: tuple[float, ...], high_first: bool) -> Floats:
    table = _table(bits, values, high_first)
    first, second = np.meshgrid(np.arange(256), np.arange(256))
    return np.concatenate([table[first.ravel()], table[second.ravel()]], axis=1)
