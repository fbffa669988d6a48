"""Decoder of matrices whose outputs are stored side by side: GPTQ and AWQ.

The file has the inputs of a layer down and its outputs across; the model has them turned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from sparsity_report.weights.anatomy.rounding_levels import Rounding
from sparsity_report.weights.packed.block_scales import ALIGNED
from sparsity_report.weights.packed.packed_integers import (
    Bytes,
    Floats,
    decode_codes,
    integer_values,
)
from sparsity_report.weights.packed.packed_tensor import Packed
from sparsity_report.weights.packed.part_slices import (
    columns,
    finite,
    held_columns,
    integers,
    numbers,
)
from sparsity_report.weights.tensor_slices import Entry

# Position of each of the eight outputs in a word of AWQ.
_INTERLEAVED = [0, 4, 1, 5, 2, 6, 3, 7]


@dataclass(frozen=True, eq=False)
class Columnwise(Packed):
    """``(code − zero) · scale``, in groups of inputs.

    Attributes
    ----------
    codes : Entry
        GPTQ: (words of the inputs, outputs). AWQ: (inputs, words of the outputs).
    scales : Entry
        (groups, outputs).
    zeros : Entry
        (groups, words of the outputs).
    bits : int
    interleaved : bool
        AWQ.
    shift : int
        By how much the file writes zero points too small: GPTQ's first version by 1.
    order : Entry or None
        The group of each input; None: as many inputs to each, in order.
    """

    codes: Entry
    scales: Entry
    zeros: Entry
    bits: int
    interleaved: bool = False
    shift: int = 0
    order: Entry | None = None

    crosswise: ClassVar[bool] = True

    @property
    def unit(self) -> int:
        """Values of the outputs that fill whole words for every code width."""
        return ALIGNED * self.shape[1]

    def loaded(self, start: int, stop: int) -> Columnwise:
        """Return a decoder whose columns are in memory: reading shift needs as many reads."""
        first, last = start // self.shape[1], stop // self.shape[1]
        words = first * self.bits // 32, -(-last * self.bits // 32)
        # Refuse here, where the file is known.
        self._scales(first, last)
        return replace(
            self,
            shape=(last - first, self.shape[1]),
            codes=held_columns(self.codes, *(words if self.interleaved else (first, last))),
            scales=held_columns(self.scales, first, last),
            zeros=held_columns(self.zeros, *words),
        )

    @property
    def rounding(self) -> Rounding | None:
        """Half a step to both sides: codes and zero points are whole numbers."""
        return Rounding()

    def steps(self, start: int, stop: int) -> Floats:
        """Return the scales of whole outputs, one per input if inputs are ordered."""
        first, last = start // self.shape[1], stop // self.shape[1]
        scale = np.abs(self._scales(first, last))
        return scale if self.order is None else scale[integers(self.order)]

    def values(self, start: int, stop: int) -> Floats:
        """Return values of whole outputs."""
        inputs = self.shape[1]
        first, last = start // inputs, stop // inputs
        if self.interleaved:
            values = self._across(self.codes, first, last).T
        else:
            words = columns(self.codes, first, last).view("<u4")
            down = np.ascontiguousarray(words.T).view(np.uint8)
            values = decode_codes(down, self.bits, integer_values(self.bits), high_first=False)[
                :, :inputs
            ]
        scale = self._scales(first, last)
        zero = self._across(self.zeros, first, last) + np.float32(self.shift)
        if self.shift:
            # Version 1 adds one modulo the code width.
            zero %= 2**self.bits
        if self.order is not None:
            groups = integers(self.order)
            return (values - zero[groups].T) * scale[groups].T
        parted = np.ascontiguousarray(values).reshape(last - first, len(scale), -1)
        parted -= zero.T[:, :, None]
        parted *= scale.T[:, :, None]
        return parted

    def _scales(self, first: int, last: int) -> Floats:
        """Return the scales of a range of outputs, (groups, outputs)."""
        return finite(self.scales, numbers(self.scales, columns(self.scales, first, last)))

    def _across(self, part: Entry, first: int, last: int) -> Floats:
        """Return codes packed along the outputs, (rows of the part, outputs)."""
        words = first * self.bits // 32, -(-last * self.bits // 32)
        raw: Bytes = columns(part, *words)
        codes = decode_codes(raw, self.bits, integer_values(self.bits), high_first=False)
        if self.interleaved:
            codes = codes.reshape(len(codes), -1, 8)[:, :, _INTERLEAVED].reshape(len(codes), -1)
        return codes[:, : last - first]
