"""Tensors read slice by slice: from a file, by any process, or from memory.

Files are read, not mapped: touching a page of a mapped file that somebody has truncated kills the
process, and mapped pages count towards its memory.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.untrusted.gates import check_regular, open_file
from sparsity_report.weights.anatomy.rounding_levels import Rounding

# Values of a slice, some tens of milliseconds of counting, and of what is in a buffer at a time.
_SLICE = 2**24
_BUFFER = 2**19


@dataclass(frozen=True, eq=False)
class Slice(ABC):
    """A run of consecutive values of one tensor, at least one.

    Attributes
    ----------
    total : int
        Number of values.
    dtype : torch.dtype
        Of the values.
    """

    total: int
    dtype: torch.dtype

    @abstractmethod
    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield the values in order, in one-dimensional tensors on the CPU."""

    def within(self, first: int, last: int) -> Iterator[torch.Tensor]:
        """Yield the values from `first` to before `last`; what stands before them may be read."""
        start = 0
        for piece in self.pieces():
            if start >= last:
                return
            yield piece[max(first - start, 0) : last - start]
            start += piece.numel()

    @property
    def rounding(self) -> Rounding | None:
        """What a packed format rounded to zero; None where that is not known."""
        return None

    def rounded(self) -> Iterator[tuple[torch.Tensor, npt.NDArray[np.float32]]]:
        """Yield :meth:`pieces`, each with the steps of its rounding, none of them negative.

        A step stands for equally many values of the piece; where zero is no level, for those that
        follow each other.
        """
        yield from ()

    def sources(self) -> Sequence[FileSlice]:
        """Return the stretches of files that the values come from; none of those in memory."""
        return ()

    def identity(self) -> str:
        """Return what tells the values from others, with what stands in their sources."""
        return repr(self)


@dataclass(frozen=True, eq=False)
class HeldSlice(Slice):
    """Values in memory, on any device."""

    values: torch.Tensor

    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield the values, without a copy where they lie side by side on the CPU."""
        yield self.values.cpu().contiguous()

    def within(self, first: int, last: int) -> Iterator[torch.Tensor]:
        """Yield some of the values."""
        yield self.values[first:last].cpu().contiguous()


class Reader(Protocol):
    """An open file, read from anywhere in it."""

    def seek(self, offset: int, /) -> object:
        """Go to a byte."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a buffer; return how many bytes there were before the end of the file."""


class Origin(ABC):
    """A file that bytes come from; small and picklable, so that another process can read it.

    Its `repr` tells its content from any other, as far as that can be known without reading it.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Name without the folder."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes."""

    @abstractmethod
    def opened(self, start: int, stop: int) -> AbstractContextManager[Reader]:
        """Open it to read bytes from `start` to `stop`, in that order if it may be.

        Raises
        ------
        SparsityReportError
            The file is gone, shorter, or no longer the one that was opened.
        """


@dataclass(frozen=True)
class Stamp:
    """What tells a file from a later state of it."""

    size: int
    modified_ns: int

    @classmethod
    def of(cls, file: Path | BinaryIO) -> Stamp:
        """Look at a file, by path or open."""
        state = file.stat() if isinstance(file, Path) else os.fstat(file.fileno())
        return cls(state.st_size, state.st_mtime_ns)


@dataclass(frozen=True)
class LocalFile(Origin):
    """A file on this machine, as it was when it was opened.

    Attributes
    ----------
    path : pathlib.Path
        Absolute, as workers have working directories of their own.
    stamp : Stamp
        A file that has changed since is refused.
    """

    # Not told from its content: a copy that keeps its time is the same.
    path: Path = field(repr=False)
    stamp: Stamp

    @classmethod
    def of(cls, path: Path) -> LocalFile:
        """Look at a file.

        Raises
        ------
        ValueError
            It is no regular file.
        OSError
            It is not there.
        """
        check_regular(path.stat())
        return cls(path.absolute(), Stamp.of(path))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Name without the folder."""
        return self.path.name

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stamp.size

    @contextmanager
    def opened(self, start: int, stop: int) -> Iterator[Reader]:  # noqa: ARG002
        """Open it to read from anywhere in it."""
        try:
            with self._open() as file:
                self._check(file)
                yield file
                # A writer that kept the length has left its mark in the time of change.
                self._check(file)
        except (OSError, EOFError) as error:
            raise SparsityReportError(
                f"{self.path} cannot be read: {getattr(error, 'strerror', None) or error}; "
                "is it still complete?"
            ) from error

    def _open(self) -> BufferedReader:
        try:
            return open_file(self.path)
        except ValueError as error:
            raise SparsityReportError(f"{self.path} cannot be read: {error}") from error

    def _check(self, file: BinaryIO) -> None:
        if Stamp.of(file) != self.stamp:
            raise SparsityReportError(
                f"{self.path} changed after it was opened; load it again and count anew"
            )


@dataclass(frozen=True, eq=False)
class FileSlice(Slice):
    """Values in a file; small and picklable, so that another process can read them.

    Values that are packed are those of a subclass with its own `bytes_of` and `decode`.

    Attributes
    ----------
    file : Origin
    offset : int
        First byte.
    """

    file: Origin
    offset: int

    @property
    def packing(self) -> str:
        """How the values are packed; not at all."""
        return ""

    def bytes_of(self, count: int) -> int:
        """Bytes that so many values take in the file."""
        return count * self.dtype.itemsize

    def decode(self, raw: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Return the values that bytes of the file stand for."""
        return torch.from_numpy(raw).view(self.dtype)

    def sources(self) -> Sequence[FileSlice]:
        """Return itself."""
        return (self,)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.bytes_of(self.total)

    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield the values as they are read."""
        return map(self.decode, self.raw())

    def within(self, first: int, last: int) -> Iterator[torch.Tensor]:
        """Yield some of the values, of packed ones whole blocks, and read no others."""
        offset = self.offset + self.bytes_of(first)
        yield from replace(self, offset=offset, total=last - first).pieces()

    def raw(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the bytes of each piece as they are read."""
        with self.opened() as file:
            for start in range(0, self.total, _BUFFER):
                size = self.bytes_of(min(_BUFFER, self.total - start))
                yield read_at(file, self.offset + self.bytes_of(start), size)

    def opened(self) -> AbstractContextManager[Reader]:
        """Open the file to read the values from it, see :meth:`Origin.opened`."""
        return self.file.opened(self.offset, self.offset + self.nbytes)

    def cut(self, shape: tuple[int, ...]) -> Iterator[FileSlice]:
        """Yield the values, a tensor of `shape`, as slices of whole rows."""
        step = _step(shape)
        for start in range(0, self.total, step):
            offset = self.offset + self.bytes_of(start)
            yield replace(self, offset=offset, total=min(step, self.total - start))


def memory_slices(tensor: torch.Tensor) -> Iterator[HeldSlice]:
    """Yield the values of a tensor in memory as slices of whole rows."""
    flat, step = tensor.detach().reshape(-1), _step(tuple(tensor.shape))
    for start in range(0, flat.numel(), step):
        values = flat[start : start + step]
        yield HeldSlice(values.numel(), values.dtype, values)


def pieces(slices: Iterable[Slice]) -> Iterator[torch.Tensor]:
    """Yield the values of slices in order, in one-dimensional tensors on the CPU."""
    return (piece for part in slices for piece in part.pieces())


def join_slices(
    slices: Sequence[Slice], dtype: torch.dtype, shape: tuple[int, ...]
) -> torch.Tensor:
    """Read slices into one tensor, the only copy in memory."""
    whole = torch.empty(sum(part.total for part in slices), dtype=dtype)
    done = 0
    for part in slices:
        for piece in part.pieces():
            whole[done : done + piece.numel()] = piece
            done += piece.numel()
    return whole.reshape(shape)


def read_at(file: Reader, offset: int, size: int) -> npt.NDArray[np.uint8]:
    """Read exactly `size` bytes, or raise EOFError."""
    raw = np.empty(size, dtype=np.uint8)
    file.seek(offset)
    if missing := size - file.readinto(raw.data):
        raise EOFError(f"it ends {missing:,} bytes too early")
    return raw


def _step(shape: tuple[int, ...]) -> int:
    """Values of a slice: whole rows where a slice holds at least one."""
    row = shape[-1] if len(shape) > 1 else 1
    return _SLICE // row * row if 0 < row <= _SLICE else _SLICE


class Stored(Protocol):
    """Values that are somewhere else, and can be had slice by slice."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""

    @property
    def nbytes(self) -> int | None:
        """Bytes in the file; None where they are in none."""

    @property
    def packing(self) -> str:
        """How the values are packed, such as ``"Q4_1"``; empty where they are not."""

    def cut(self, shape: tuple[int, ...]) -> Iterator[Slice]:
        """Yield the values, a tensor of `shape`, as slices."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A tensor of a checkpoint.

    Attributes
    ----------
    key : str
        Its name on disk.
    shape : tuple of int
    values : Stored or torch.Tensor
        Where they all are, or they themselves.
    kind : str
        What the file calls their dtype where it is none of torch's: they are its bytes then.
    """

    key: str
    shape: tuple[int, ...]
    values: Stored | torch.Tensor
    kind: str = ""

    @property
    def total(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> str:
        """Name of the torch dtype, or what the file calls it."""
        return self.kind or dtype_name(self.values.dtype)

    @property
    def file_bytes(self) -> int | None:
        """Bytes in the file; None in memory."""
        return None if isinstance(self.values, torch.Tensor) else self.values.nbytes

    @property
    def packing(self) -> str:
        """How its values are packed, such as ``"Q4_1"``; empty where they are not."""
        return "" if isinstance(self.values, torch.Tensor) else self.values.packing

    def slices(self) -> Iterator[Slice]:
        """Yield the values in order."""
        if isinstance(self.values, torch.Tensor):
            yield from memory_slices(self.values)
        else:
            yield from self.values.cut(self.shape)


@lru_cache(maxsize=64)
def dtype_name(dtype: torch.dtype) -> str:
    """Name of a torch dtype, e.g. ``"bfloat16"``."""
    return str(dtype).removeprefix("torch.")
