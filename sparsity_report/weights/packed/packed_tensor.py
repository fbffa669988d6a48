"""Interface of decoders: a packed tensor, its parts and its slices."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsity_report.weights.array_dtypes import Array
from sparsity_report.weights.tensor_slices import Entry, FileSlice, Floats, Rounding, Slice

# Values of a slice, and values decoded at a time.
_SLICE, _BUFFER = 2**24, 2**20


@dataclass(frozen=True, eq=False)
class Packed(ABC):
    """A tensor whose values are decoded from several stored tensors.

    Attributes
    ----------
    shape : tuple of int
        Of the tensor in the model.
    packing : str
        Name of its layout, such as ``"gptq-4bit-g128"``.
    parts : tuple of Entry
        Stored tensors.
    """

    shape: tuple[int, ...]
    packing: str
    parts: tuple[Entry, ...]

    #: Name of the dtype of the decoded values.
    dtype: ClassVar[str] = "float32"
    #: True if each row needs bytes from everywhere in the parts, which are then read whole.
    crosswise: ClassVar[bool] = False
    #: True if its writers add a bias of zeros to layers without one.
    pads_bias: ClassVar[bool] = False
    #: Rows decoded together: those that share words of packed zero points.
    aligned: ClassVar[int] = 32

    @property
    def exact_dtype(self) -> str:
        """Name of the smallest dtype known to hold every decoded value exactly."""
        return self.dtype

    @property
    def row(self) -> int:
        """Number of values of a row, the smallest part that is decoded alone."""
        return self.shape[-1]

    @property
    def unit(self) -> int:
        """Number of values decoded together; a slice holds whole units."""
        return self.aligned * self.row

    @abstractmethod
    def values(self, first: int, last: int) -> Floats:
        """Return the values of a range of rows.

        Returns
        -------
        numpy.ndarray
            float32, of any shape, in order.
        """

    def loaded(self) -> Packed:
        """Return the decoder, with its parts in memory if each row needs bytes from everywhere."""
        return self

    @property
    def rounding(self) -> Rounding | None:
        """Rounding levels near zero; None if they are unknown."""
        return None

    def steps(self, first: int, last: int) -> Floats:  # noqa: ARG002
        """Return the rounding steps of a range of rows, each for equally many values."""
        return np.empty(0, np.float32)

    @property
    def total(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int | None:
        """Bytes of all parts in the file; None if a part is in no file."""
        return Entry.file_bytes(self.parts)

    def cut(self, shape: tuple[int, ...]) -> Iterator[PackedSlice]:  # noqa: ARG002
        """Yield the values as slices of whole units."""
        step = max(1, self.total if self.crosswise else _SLICE // self.unit * self.unit, self.unit)
        for start in range(0, self.total, step):
            yield PackedSlice(min(step, self.total - start), self.dtype, self, start)


@dataclass(frozen=True, eq=False)
class PackedSlice(Slice):
    """A range of a packed tensor; small and picklable if its parts are in files."""

    packed: Packed
    start: int

    def sources(self) -> Sequence[FileSlice]:
        """Return all parts of the tensor, if each is in a file."""
        return Entry.in_files(self.packed.parts)

    @property
    def rounding(self) -> Rounding | None:
        """Rounding levels of the whole tensor."""
        return self.packed.rounding

    def rounded(self) -> Iterator[tuple[Array, Floats]]:
        """Yield each piece with the steps of its groups."""
        for packed, first, last in self._runs():
            with np.errstate(all="ignore"):
                steps = packed.steps(first, last)
            yield _decoded(packed, first, last), steps

    def pieces(self) -> Iterator[Array]:
        """Yield the decoded values."""
        return (_decoded(*run) for run in self._runs())

    def _runs(self) -> Iterator[tuple[Packed, int, int]]:
        packed, row = self.packed.loaded(), self.packed.row
        first, last = self.start // row, (self.start + self.total) // row
        step = max(1, _BUFFER // packed.unit) * packed.aligned
        if is_remote(packed.parts) and not packed.crosswise:
            step = max(1, last - first)  # one request for each part
        for start in range(first, last, step):
            yield packed, start, min(start + step, last)


def _decoded(packed: Packed, first: int, last: int) -> Array:
    # Products of extreme scales may overflow, which is not an error here.
    with np.errstate(all="ignore"):
        return packed.values(first, last).reshape(-1)


def grouped(width: int, shape: tuple[int, int]) -> str:
    """Return the group size as part of a name, empty if a scale serves a whole row."""
    return f"-g{width}" if width < shape[1] else ""


def is_remote(parts: Sequence[Entry]) -> bool:
    """Return whether a part is on the Hub."""
    values = [part.values for part in parts]
    return any(isinstance(v, FileSlice) and v.file.is_remote for v in values)
