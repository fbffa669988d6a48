"""Runs of values that are read one by one: from a file, by any process, or from memory.

Files are read, not mapped: touching a page of a mapped file that somebody has truncated kills the
process, and mapped pages count towards its memory.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from sparsity_report.errors import SparsityReportError

# Values of a slice, some tens of milliseconds of counting, and of what is in a buffer at a time,
# which fits the L2 cache.
_SLICE = 2**24
_BUFFER = 2**18


class Slice(ABC):
    """A run of consecutive values of one tensor."""

    @property
    @abstractmethod
    def total(self) -> int:
        """Number of values."""

    @abstractmethod
    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield the values in order, in one-dimensional tensors on the CPU."""


@dataclass(frozen=True, eq=False)
class HeldSlice(Slice):
    """Values in memory, on any device."""

    values: torch.Tensor

    @property
    def total(self) -> int:
        """Number of values."""
        return self.values.numel()

    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield the values, without a copy where they are on the CPU."""
        yield self.values.cpu()


@dataclass(frozen=True)
class Stamp:
    """What tells a file from a later state of it."""

    size: int
    modified_ns: int

    @classmethod
    def of(cls, file: Path | BinaryIO) -> Stamp:
        """Look at a file, by path or open."""
        found = file.stat() if isinstance(file, Path) else os.fstat(file.fileno())
        return cls(found.st_size, found.st_mtime_ns)


@dataclass(frozen=True)
class FileSlice(Slice):
    """Values in a file; small and picklable, so that another process can read them.

    Attributes
    ----------
    file : pathlib.Path
    stamp : Stamp
        Of the file when it was opened; a file that has changed since is refused.
    offset : int
        First byte.
    count : int
        Number of values.
    row : int
        Values that stay together in a piece, if they are fewer than a buffer holds.
    dtype : str
        Name of the torch dtype of the values.
    quantisation : str
        GGUF's name of the blocks the values are packed in; empty where they are plain.
    """

    file: Path
    stamp: Stamp
    offset: int
    count: int
    row: int
    dtype: str
    quantisation: str = ""

    @property
    def total(self) -> int:
        """Number of values."""
        return self.count

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self._bytes(self.count)

    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield the values as they are read.

        Raises
        ------
        SparsityReportError
            The file is gone, shorter, or no longer the one that was opened.
        """
        step = whole_rows(_BUFFER, self.row)
        try:
            with self.file.open("rb", buffering=0) as file:
                self._check(file)
                for start in range(0, self.count, step):
                    size = self._bytes(min(step, self.count - start))
                    yield self._decode(read_at(file, self.offset + self._bytes(start), size))
                # A writer that kept the length has left its mark in the time of change.
                self._check(file)
        except (OSError, EOFError) as error:
            raise SparsityReportError(
                f"{self.file} cannot be read: {getattr(error, 'strerror', None) or error}; "
                "is it still complete?"
            ) from error

    def cut(self) -> Iterator[FileSlice]:
        """Yield the same values as slices that are counted one by one."""
        step = whole_rows(_SLICE, self.row)
        for start in range(0, self.count, step):
            yield FileSlice(
                self.file,
                self.stamp,
                self.offset + self._bytes(start),
                min(step, self.count - start),
                self.row,
                self.dtype,
                self.quantisation,
            )

    def _bytes(self, count: int) -> int:
        if not self.quantisation:
            return count * getattr(torch, self.dtype).itemsize  # type: ignore[no-any-return]
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        values, size = GGML_QUANT_SIZES[GGMLQuantizationType[self.quantisation]]
        return int(count // values * size)

    def _decode(self, raw: npt.NDArray[np.uint8]) -> torch.Tensor:
        if not self.quantisation:
            return torch.from_numpy(raw).view(getattr(torch, self.dtype))
        from gguf import GGMLQuantizationType, dequantize

        try:
            values = dequantize(raw, GGMLQuantizationType[self.quantisation])
        except (NotImplementedError, ValueError) as error:
            raise SparsityReportError(
                f"{self.file}: blocks of type {self.quantisation} cannot be dequantised: {error}"
            ) from error
        return torch.from_numpy(values)

    def _check(self, file: BinaryIO) -> None:
        if Stamp.of(file) != self.stamp:
            raise SparsityReportError(
                f"{self.file} changed after it was opened; load it again and count anew"
            )


def held(tensor: torch.Tensor) -> Iterator[HeldSlice]:
    """Yield the values of a tensor in memory as slices."""
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), _SLICE):
        yield HeldSlice(flat[start : start + _SLICE])


def joined(slices: Sequence[Slice], dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Read slices into one tensor, the only copy in memory."""
    whole = torch.empty(sum(part.total for part in slices), dtype=getattr(torch, dtype))
    done = 0
    for part in slices:
        for piece in part.pieces():
            whole[done : done + piece.numel()] = piece
            done += piece.numel()
    return whole.reshape(shape)


def read_at(file: BinaryIO, offset: int, size: int) -> npt.NDArray[np.uint8]:
    """Read exactly `size` bytes, or raise EOFError."""
    raw = np.empty(size, dtype=np.uint8)
    view = memoryview(raw)
    file.seek(offset)
    while view:
        if not (got := file.readinto(view)):  # type: ignore[attr-defined]
            raise EOFError(f"it ends {len(view):,} bytes too early")
        view = view[got:]
    return raw


def whole_rows(limit: int, row: int) -> int:
    """Return the largest multiple of `row` up to `limit`, or a single row.

    Examples
    --------
    >>> whole_rows(1000, 300), whole_rows(1000, 3000)
    (900, 3000)
    """
    return max(limit // max(row, 1), 1) * max(row, 1)
