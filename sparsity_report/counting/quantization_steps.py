"""Quantization steps of packed tensors, and the zeros that rounding creates.

A weight of a centered Gaussian with deviation σ, rounded to levels a step s apart, becomes zero
with probability ``erf(s / (2·σ·√2))``. Rounding to few bits therefore creates zeros without
pruning. A format without a zero level keeps no zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparsity_report.deferred import torch
from sparsity_report.weights.tensor_slices import Rounding, Slice

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Steps:
    """Quantization steps of a packed tensor, in buckets of their top 16 bits.

    Attributes
    ----------
    rounding : Rounding
    values : numpy.ndarray of float64
        Middles of the buckets, which are 0.8 % wide.
    counts : numpy.ndarray of int64
        Values of the tensor with each step.
    near : int
        Values within half a step of zero; counted only if zero is not a level.
    """

    rounding: Rounding
    values: Floats
    counts: Integers
    near: int = 0

    def expected_zeros(self, deviation: float) -> float:
        """Return the expected number of values of a centered Gaussian that are rounded to zero.

        If zero is not a level, return those within half a step of it.

        Examples
        --------
        With levels two deviations apart, 68 % of the values are within one deviation:

        >>> steps = Steps(Rounding(), np.array([2.0]), np.array([100]))
        >>> round(steps.expected_zeros(1.0), 1)
        68.3
        """
        scaled = torch.from_numpy(self.values) / (deviation * math.sqrt(2))
        near = torch.erf(self.rounding.below * scaled) + torch.erf(self.rounding.above * scaled)
        return float(near / 2 @ torch.from_numpy(self.counts).double())

    def merged(self, other: Steps | None) -> Steps | None:
        """Return the steps of both tensors; None if one is unknown or their roundings differ."""
        if other is None or self.rounding != other.rounding:
            return None
        sums = merge_counts([(self.values, self.counts), (other.values, other.counts)])
        return Steps(self.rounding, *sums, self.near + other.near)


def merge_counts(pairs: Sequence[tuple[Floats, Integers]]) -> tuple[Floats, Integers]:
    """Add up counts per value, given values and their counts."""
    pairs = [pair for pair in pairs if pair[0].size] or [(np.empty(0), np.empty(0, dtype=np.int64))]
    if len(pairs) == 1:
        return pairs[0]
    values, which = np.unique(np.concatenate([v for v, _ in pairs]), return_inverse=True)
    # Counts up to 2⁵³ are exact in the float64 that NumPy adds weights in.
    counts = np.bincount(which, np.concatenate([c for _, c in pairs])).astype(np.int64)
    return values, counts


class StepCounter(Slice):
    """A slice that tallies its quantization steps while its values are read."""

    def __init__(self, part: Slice, rounding: Rounding) -> None:
        super().__init__(part.total, part.dtype)
        self._part, self._rounding = part, rounding
        self._tally, self._near = np.zeros(2**15, dtype=np.int64), 0

    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield the values and tally their steps; iterate once only."""
        for values, steps in self._part.rounded():
            codes = steps.reshape(-1).view(np.uint32) >> np.uint32(16)
            each = values.numel() // steps.size
            self._tally += each * np.bincount(codes, minlength=self._tally.size)
            if not self._rounding.has_zero:
                blocks = np.abs(values.numpy()).reshape(steps.size, each)
                self._near += int(np.count_nonzero(blocks <= steps.reshape(-1, 1) / 2))
            yield values

    def steps(self) -> Steps:
        """Return the steps of the values read so far."""
        present = np.flatnonzero(self._tally)
        # The bucket of infinity has no middle.
        middle = np.minimum((present << 16) + 2**15, 0xFF << 23).astype(np.uint32)
        middles = middle.view(np.float32).astype(np.float64)
        return Steps(self._rounding, middles, self._tally[present], self._near)
