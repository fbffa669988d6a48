"""Decoder of sparse matrices: nonzero values and a bitmask of their positions."""

from dataclasses import dataclass

import numpy as np

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.packed.block_scales import ALIGNED, Blocks, combined
from sparsity_report.weights.packed.packed_integers import Floats
from sparsity_report.weights.packed.packed_tensor import Packed
from sparsity_report.weights.packed.part_slices import integers, numbers, origin, rows
from sparsity_report.weights.tensor_slices import Entry


@dataclass(frozen=True, eq=False)
class Bitmasked(Packed):
    """The next stored value for each set bit, zero for the others.

    Attributes
    ----------
    kept : Entry
        In order of the rows: all in one row, or so many to each row.
    mask : Entry
        uint8, (rows, bytes), the lowest bit first.
    starts : Entry or None
        The place of each row's first value; None: as many values to each row.
    scales : tuple of Blocks
    """

    kept: Entry
    mask: Entry
    starts: Entry | None
    scales: tuple[Blocks, ...] = ()

    @property
    def unit(self) -> int:
        """Values of one row."""
        return ALIGNED * self.shape[-1]

    def values(self, start: int, stop: int) -> Floats:
        """Return values of whole rows."""
        columns = self.shape[-1]
        first, last = start // columns, stop // columns
        bits = np.unpackbits(rows(self.mask, first, last), axis=1, bitorder="little")
        there = bits[:, :columns].astype(bool)
        begin, end = self._places(first, last)
        if there.sum() != end - begin or bits[:, columns:].any():
            raise SparsityReportError(
                f"{origin(self.mask)}: {self.mask.key!r} and {self.kept.key!r} disagree on "
                f"how many weights rows {first} to {last - 1} keep; fetch the file again"
            )
        values = np.zeros((last - first, columns), np.float32)
        values[there] = numbers(self.kept, _flat(self.kept, begin, end)).reshape(-1)
        for scale in self.scales:
            combined(values, scale.spread(first, last, columns), np.multiply)
        return values

    def _places(self, first: int, last: int) -> tuple[int, int]:
        """Return the range of stored values of a range of rows."""
        if self.starts is None:
            each = self.kept.total // self.shape[0]
            return first * each, last * each
        starts = [*integers(self.starts).tolist(), self.kept.total]
        begin, end = starts[first], starts[last]
        if not 0 <= begin <= end <= self.kept.total:
            raise SparsityReportError(
                f"{origin(self.starts)}: {self.starts.key!r} points outside of {self.kept.key!r}; "
                "fetch the file again"
            )
        return begin, end


def _flat(part: Entry, begin: int, end: int) -> np.ndarray:
    """Return the bytes of a range of values, across rows."""
    return rows(Entry(part.key, (part.total,), part.values), begin, end)
