"""Interface of decoders: a packed tensor, its parts and its slices."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from sparsity_report.deferred import torch
from sparsity_report.weights.tensor_slices import (
    Entry,
    FileSlice,
    Floats,
    Origin,
    Reader,
    Rounding,
    Slice,
)

# Values of a slice, and values decoded at a time.
_SLICE, _BUFFER = 2**24, 2**20
# Largest read of a part on the Hub that is kept, so that a slice is not read twice.
_REMEMBERED = 2**22


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
    #: True if each slice needs bytes from everywhere in the parts.
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

    def loaded(self, first: int, last: int) -> Packed | None:  # noqa: ARG002
        """Return a decoder of a range of rows with its parts in memory, if that saves reads.

        Returns
        -------
        Packed or None
            None where a piece of a part is read as fast alone.
        """
        return None

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
        step = max(1, _SLICE // self.unit) * self.unit
        if self.crosswise and is_remote(self.parts):
            step = max(1, self.total)  # so that no part is read twice
        for start in range(0, self.total, step):
            yield PackedSlice(min(step, self.total - start), self.dtype, self, start)


@dataclass(frozen=True, eq=False)
class PackedSlice(Slice):
    """A range of a packed tensor; small and picklable if its parts are in files."""

    packed: Packed
    start: int

    def sources(self) -> Sequence[FileSlice]:
        """Return all parts of the tensor, if each is in a file."""
        parts = [part.values for part in self.packed.parts]
        files = [part for part in parts if isinstance(part, FileSlice)]
        return files if len(files) == len(parts) else ()

    @property
    def rounding(self) -> Rounding | None:
        """Rounding levels of the whole tensor."""
        return self.packed.rounding

    def rounded(self) -> Iterator[tuple[torch.Tensor, Floats]]:
        """Yield each piece with the steps of its groups."""
        for packed, first, last in self._runs():
            with np.errstate(all="ignore"):
                steps = packed.steps(first, last)
            yield _decoded(packed, first, last), steps

    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield the decoded values."""
        return (_decoded(*run) for run in self._runs())

    def _runs(self) -> Iterator[tuple[Packed, int, int]]:
        row, step = self.packed.row, max(1, _BUFFER // self.packed.unit) * self.packed.aligned
        first, last = self.start // row, (self.start + self.total) // row
        with self._connected() as packed:
            if loaded := packed.loaded(first, last):
                packed, first, last = loaded, 0, last - first
            for start in range(first, last, step):
                yield packed, start, min(start + step, last)

    @contextmanager
    def _connected(self) -> Iterator[Packed]:
        """Yield the decoder, each of its parts on the Hub read over one connection."""
        packed = self.packed
        if not is_remote(packed.parts):
            yield packed
            return
        readers: dict[tuple[Origin, int, int], Reader] = {}
        span = self.start, self.start + self.total
        with ExitStack() as stack:

            def connect(entry: Entry) -> Entry:
                values = entry.values
                if not isinstance(values, FileSlice):
                    return entry
                key = values.file, values.offset, values.nbytes
                if key not in readers:
                    # The bytes of the part that correspond to the span of values.
                    begin, end = (-(-values.nbytes * place // packed.total) for place in span)
                    if values.total == 1:
                        begin, end = 0, values.nbytes
                    file = values.file.opened(values.offset + begin, values.offset + end)
                    readers[key] = _Repeating(stack.enter_context(file))
                held = values.total, values.dtype, values.file, values.offset
                return replace(entry, values=_ConnectedSlice(*held, readers[key]))

            yield _changed(replace(packed, parts=()), connect)


@dataclass(frozen=True, eq=False)
class _ConnectedSlice(FileSlice):
    """Values of a file whose reader stays open."""

    reader: Reader

    def opened(self) -> AbstractContextManager[Reader]:
        return nullcontext(self.reader)


class _Repeating:
    """Reader that keeps its last read: scales are read again for rounding steps."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._at = reader, 0
        self._last = 0, b""

    def seek(self, offset: int, /) -> None:
        self._at = offset

    def readinto(self, buffer: memoryview, /) -> int:
        begin, held = self._last
        if (begin, len(held)) == (self._at, len(buffer)):
            buffer[:] = held
        else:
            self._reader.seek(self._at)
            self._reader.readinto(buffer)
            if len(buffer) <= _REMEMBERED:
                self._last = self._at, bytes(buffer)
        return len(buffer)


def _decoded(packed: Packed, first: int, last: int) -> torch.Tensor:
    # Products of extreme scales may overflow, which is not an error here.
    with np.errstate(all="ignore"):
        return torch.from_numpy(packed.values(first, last)).reshape(-1)


def grouped(width: int, shape: tuple[int, int]) -> str:
    """Return the group size as part of a name, empty if a scale serves a whole row."""
    return f"-g{width}" if width < shape[1] else ""


def is_remote(parts: Sequence[Entry]) -> bool:
    """Return whether a part is on the Hub."""
    values = [part.values for part in parts]
    return any(isinstance(v, FileSlice) and v.file.is_remote for v in values)


def _changed(value: Any, change: Callable[[Entry], Entry]) -> Any:
    """Return a copy of a decoder with a function applied to each of its entries."""
    if isinstance(value, Entry):
        return change(value)
    if isinstance(value, tuple):
        return tuple(map(partial(_changed, change=change), value))
    if not is_dataclass(value) or isinstance(value, type):
        return value
    inside = {f.name: _changed(getattr(value, f.name), change) for f in fields(value)}
    return replace(value, **inside)
