"""A tensor that a file keeps packed, in parts, and slices of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.anatomy.rounding_levels import Rounding
from sparsity_report.weights.packed.packed_integers import Floats
from sparsity_report.weights.packed.part_slices import origin
from sparsity_report.weights.packed.remote_parts import Span, connected, is_remote
from sparsity_report.weights.tensor_slices import Entry, FileSlice, Slice

# Values of a slice, and of what is decoded at a time.
_SLICE, _BUFFER = 2**24, 2**20


@dataclass(frozen=True, eq=False)
class Packed(ABC):
    """A tensor whose values come out of several that the file holds.

    Attributes
    ----------
    shape : tuple of int
        Of the tensor in the model.
    packing : str
        How it is packed, such as ``"gptq-4bit-g128"``.
    parts : tuple of Entry
        All that it is made of.
    """

    shape: tuple[int, ...]
    packing: str
    parts: tuple[Entry, ...]

    #: Of the values that come out.
    dtype: ClassVar[torch.dtype] = torch.float32
    #: Whether the values of any slice come from all over the parts.
    crosswise: ClassVar[bool] = False

    @property
    @abstractmethod
    def unit(self) -> int:
        """Values that come out together: a slice holds whole units."""

    @abstractmethod
    def values(self, start: int, stop: int) -> Floats:
        """Return values by their place in the model's tensor, whole units of them.

        Returns
        -------
        numpy.ndarray
            float32, of any shape, in order.
        """

    def loaded(self, start: int, stop: int) -> Packed | None:  # noqa: ARG002
        """Return some values, counted from 0, with their parts in memory if that saves reading.

        Returns
        -------
        Packed or None
            None where a piece of a part is read as fast by itself.
        """
        return None

    @property
    def rounding(self) -> Rounding | None:
        """What was rounded to zero; None where values are as they were, or it is not known."""
        return None

    def steps(self, start: int, stop: int) -> Floats:  # noqa: ARG002
        """Return the steps of the rounding of values, each standing for equally many of them."""
        return np.empty(0, np.float32)

    @property
    def total(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int | None:
        """Bytes of all parts in the file; None where one is in none."""
        sizes = [part.file_bytes for part in self.parts]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def cut(self, shape: tuple[int, ...]) -> Iterator[PackedSlice]:  # noqa: ARG002
        """Yield the values as slices of whole units."""
        step = max(1, _SLICE // self.unit) * self.unit
        if self.crosswise and is_remote(self.parts):
            step = max(1, self.total)  # so that no part is read twice
        for start in range(0, self.total, step):
            yield PackedSlice(min(step, self.total - start), self.dtype, self, start)


@dataclass(frozen=True, eq=False)
class Undecoded(Packed):
    """A tensor of which no more than the shape is known.

    Attributes
    ----------
    why : str
        Its values are not.
    """

    why: str

    @property
    def unit(self) -> int:
        """A value."""
        return 1

    def values(self, start: int, stop: int) -> Floats:  # noqa: ARG002
        """Refuse."""
        key = self.parts[0].key
        raise SparsityReportError(
            f"{origin(self.parts[0])}: {key!r} cannot be unpacked: {self.why}"
        )


@dataclass(frozen=True, eq=False)
class PackedSlice(Slice):
    """Some values of a packed tensor; small and picklable where its parts lie in files."""

    packed: Packed
    start: int

    def sources(self) -> Sequence[FileSlice]:
        """Return all parts of the tensor, if each lies in a file."""
        parts = [part.values for part in self.packed.parts]
        files = [part for part in parts if isinstance(part, FileSlice)]
        return files if len(files) == len(parts) else ()

    @property
    def rounding(self) -> Rounding | None:
        """That of the whole tensor."""
        return self.packed.rounding

    def rounded(self) -> Iterator[tuple[torch.Tensor, Floats]]:
        """Yield each piece with the steps of its groups."""
        for packed, start, stop in self._runs():
            with np.errstate(all="ignore"):
                steps = packed.steps(start, stop)
            yield _decoded(packed, start, stop), steps

    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield the values as they are decoded."""
        return (_decoded(*run) for run in self._runs())

    def _runs(self) -> Iterator[tuple[Packed, int, int]]:
        step = max(1, _BUFFER // self.packed.unit) * self.packed.unit
        first, stop = self.start, self.start + self.total
        with self._connected() as packed:
            if loaded := packed.loaded(first, stop):
                packed, first, stop = loaded, 0, stop - first
            for start in range(first, stop, step):
                yield packed, start, min(start + step, stop)

    def _connected(self) -> AbstractContextManager[Packed]:
        packed = self.packed
        if not is_remote(packed.parts):
            return nullcontext(packed)
        span = Span(self.start, self.start + self.total, packed.total)
        return connected(replace(packed, parts=()), span)


def _decoded(packed: Packed, start: int, stop: int) -> torch.Tensor:
    # Scales may be too large or too small for their products; that is no mistake here.
    with np.errstate(all="ignore"):
        return torch.from_numpy(packed.values(start, stop)).reshape(-1)


def grouped(width: int, shape: tuple[int, int]) -> str:
    """Name the weights that share a scale where they are fewer than a row."""
    return f"-g{width}" if width < shape[1] else ""
