"""Scales and zero points, one number per block of a matrix."""

from dataclasses import dataclass

import numpy as np

from sparsity_report.weights.packed.packed_integers import decode_codes, integer_values
from sparsity_report.weights.tensor_slices import Entry, Floats


@dataclass(frozen=True, eq=False)
class Blocks:
    """One number per block of a matrix.

    Attributes
    ----------
    part : Entry
    height, width : int
        Of a block, in weights; the last may be smaller.
    bits : int
        Of integers packed downwards, 32 bits at a time; 0: plain numbers, one by one.
    offset : float
        Taken off each number.
    exponent : bool
        The numbers are powers of two, of which only the exponent plus 127 is written.
    order : Entry or None
        For each column of the matrix the column of its block, where they do not follow in order.
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
        elif self.exponent:
            powers = self.part.rows(first, last).astype(np.int32)
            values = np.ldexp(np.float32(1), np.minimum(powers, 254) - 127)
            # 255 stands for NaN.
            values[powers == 255] = np.nan
        else:
            values = self.part.numbers(self.part.rows(first, last)) - np.float32(self.offset)
        values = self.part.finite(values.astype(np.float32, copy=False))
        if self.height == 1:
            return values
        return values.repeat(self.height, axis=0)[start - first * self.height :][: stop - start]

    def spread(self, start: int, stop: int, columns: int) -> Floats:
        """Return broadcastable numbers of a range of rows, (rows, blocks, 1 or width)."""
        values = self.of_rows(start, stop)
        if self.order is not None:
            return values[:, self.order.integers(), None]
        if values.shape[1] * self.width == columns:
            return values[:, :, None]
        return values.repeat(self.width, axis=1)[:, :columns, None]


@dataclass(frozen=True, eq=False, kw_only=True)
class NestedBlocks(Blocks):
    """Nested scales of bitsandbytes: scales that are quantized themselves.

    Attributes
    ----------
    table : Entry
        What the 256 codes of `part` stand for.
    nested : Entry
        Scale of so many codes each.
    size : int
        How many.
    more : float
        Added to each scale.
    """

    table: Entry
    nested: Entry
    size: int
    more: float

    def of_rows(self, start: int, stop: int) -> Floats:
        """Return the scales of a range of blocks, (blocks, 1)."""
        codes = self.part.rows(start, stop).reshape(-1)
        scales = self.nested.numbers()[np.arange(start, stop) // self.size]
        values = self.table.numbers()[codes] * scales + np.float32(self.more)
        return self.part.finite(values)[:, None]


def combined(values: Floats, numbers: Floats, how: np.ufunc) -> None:
    """Combine weights, (rows, columns), with numbers from :meth:`Blocks.spread`, in place."""
    parted = values.reshape(len(values), numbers.shape[1], -1)
    how(parted, numbers, out=parted)
