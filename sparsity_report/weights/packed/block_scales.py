"""Scales and zero points: numbers of which each stands for a block of a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsity_report.weights.packed.packed_integers import Floats, looked_up, plain
from sparsity_report.weights.packed.part_slices import finite, integers, numbers, rows, whole
from sparsity_report.weights.tensor_slices import Entry

#: Rows that packed zero points can be read by.
ALIGNED = 32


@dataclass(frozen=True, eq=False)
class Blocks:
    """Numbers of a matrix of blocks.

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
        """Return the numbers of some rows of the matrix, (rows, blocks across)."""
        first, last = start // self.height, -(-stop // self.height)
        if self.bits:
            words = rows(self.part, first * self.bits // 32, -(-last * self.bits // 32))
            down = np.ascontiguousarray(words.view(np.uint32).T).view(np.uint8)
            across = looked_up(down, self.bits, plain(self.bits, self.offset), high_first=False)
            told = across.T[: last - first]
        elif self.exponent:
            powers = rows(self.part, first, last).astype(np.int32)
            told = np.ldexp(np.float32(1), np.minimum(powers, 254) - 127)
            # 255 is what is no number.
            told[powers == 255] = np.nan
        else:
            told = numbers(self.part, rows(self.part, first, last)) - np.float32(self.offset)
        told = finite(self.part, told.astype(np.float32, copy=False))
        if self.height == 1:
            return told
        return told.repeat(self.height, axis=0)[start - first * self.height :][: stop - start]

    def spread(self, start: int, stop: int, columns: int) -> Floats:
        """Return a number per weight of some rows, to be broadcast: (rows, blocks, 1 or width)."""
        told = self.of_rows(start, stop)
        if self.order is not None:
            return told[:, integers(self.order), None]
        if told.shape[1] * self.width == columns:
            return told[:, :, None]
        return told.repeat(self.width, axis=1)[:, :columns, None]


@dataclass(frozen=True, eq=False)
class NestedBlocks(Blocks):
    """Scales, one below the other, that bitsandbytes has packed again.

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

    table: Entry | None = None
    nested: Entry | None = None
    size: int = 256
    more: float = 0

    def of_rows(self, start: int, stop: int) -> Floats:
        """Return the scales of some blocks, (blocks, 1)."""
        assert self.table is not None
        assert self.nested is not None
        codes = rows(self.part, start, stop).reshape(-1)
        scales = whole(self.nested)[np.arange(start, stop) // self.size]
        told = whole(self.table)[codes] * scales + np.float32(self.more)
        return finite(self.part, told)[:, None]


def combined(values: Floats, numbers: Floats, how: np.ufunc) -> None:
    """Combine weights, (rows, columns), with numbers from :meth:`Blocks.spread`, in place."""
    parted = values.reshape(len(values), numbers.shape[1], -1)
    how(parted, numbers, out=parted)
