"""Decoder of matrices stored row by row, as in most formats."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from sparsity_report.weights.packed.block_scales import Blocks, combined
from sparsity_report.weights.packed.packed_integers import decode_codes
from sparsity_report.weights.packed.packed_tensor import Packed
from sparsity_report.weights.tensor_slices import Entry, Floats, Rounding


@dataclass(frozen=True, eq=False)
class Rowwise(Packed):
    """``(code − zero) · scale … + bias``, block by block.

    Attributes
    ----------
    codes : Entry
        (rows, bytes or words of a row).
    columns : int
        Weights of a row. The rows are those of the model's matrix, or blocks of it one by one.
    bits : int
        Of a code; 0: numbers of the part's own dtype.
    table : tuple of float
        What codes stand for.
    high_first : bool
        The high half of a byte comes first.
    wasted : bool
        A word of 32 bits holds whole codes only, as older files have them.
    zero, bias : Blocks or None
    scales : tuple of Blocks
    factor : float
        Further scale of all.
    """

    codes: Entry
    columns: int
    bits: int = 0
    table: tuple[float, ...] = ()
    high_first: bool = False
    wasted: bool = False
    zero: Blocks | None = None
    scales: tuple[Blocks, ...] = ()
    bias: Blocks | None = None
    factor: float = 1.0

    @property
    def row(self) -> int:
        """Values of one row."""
        return self.columns

    @property
    def rounding(self) -> Rounding | None:
        """Half a step to both sides if codes are integers."""
        if self.zero or self.bias:
            return Rounding(has_zero=self.bias is None)
        return nearest_to_zero(self.table or _levels(self.codes.values.dtype))

    def steps(self, first: int, last: int) -> Floats:
        """Return the products of all scales."""
        steps = np.full((1, 1, 1), self.factor, np.float32)
        for scale in self.scales:
            steps = steps * scale.spread(first, last, self.columns)
        return np.abs(steps)

    def values(self, first: int, last: int) -> Floats:
        """Return values of whole rows."""
        values = self._codes(first, last)
        if self.zero:
            combined(values, self.zero.spread(first, last, self.columns), np.subtract)
        for scale in self.scales:
            combined(values, scale.spread(first, last, self.columns), np.multiply)
        if self.factor != 1:
            values *= np.float32(self.factor)
        if self.bias:
            combined(values, self.bias.spread(first, last, self.columns), np.add)
        return values

    def _codes(self, first: int, last: int) -> Floats:
        raw = self.codes.rows(first, last)
        if not self.bits:
            return self.codes.numbers(raw)
        if self.wasted:
            words, held = raw.view("<u4"), 32 // self.bits
            places = np.arange(held, dtype=np.uint32) * np.uint32(self.bits)
            parted = words[:, :, None] >> places & np.uint32(2**self.bits - 1)
            looked: Floats = np.array(self.table, np.float32)[parted.reshape(len(raw), -1)]
        else:
            looked = decode_codes(raw, self.bits, self.table, self.high_first)
        return looked if looked.shape[1] == self.columns else looked[:, : self.columns].copy()


@dataclass(frozen=True, eq=False)
class Experts(Packed):
    """Matrices of experts, transposed in the model: (experts, inputs, outputs).

    Attributes
    ----------
    matrices : Rowwise
        All of them, (experts · outputs, inputs).
    """

    matrices: Rowwise

    aligned = 1

    @property
    def row(self) -> int:
        """Values of one expert."""
        return self.shape[1] * self.shape[2]

    @property
    def rounding(self) -> Rounding | None:
        """Rounding levels of the matrices."""
        return self.matrices.rounding

    def steps(self, first: int, last: int) -> Floats:
        """Return the steps of whole experts, in the order of the matrices."""
        return self.matrices.steps(first * self.shape[2], last * self.shape[2])

    def values(self, first: int, last: int) -> Floats:
        """Return values of whole experts."""
        values = self.matrices.values(first * self.shape[2], last * self.shape[2])
        turned: Floats = values.reshape(-1, self.shape[2], self.shape[1]).transpose(0, 2, 1)
        return turned.copy()


@lru_cache
def _levels(dtype: torch.dtype) -> tuple[float, ...]:
    """Return the numbers that an 8-bit dtype represents."""
    return tuple(torch.arange(256).to(torch.uint8).view(dtype).float().tolist())


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
