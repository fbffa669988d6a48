"""Tensors read slice by slice, from files by any process or from memory.

Files are not mapped into memory: access to a mapped page of a truncated file kills the process,
and mapped pages count as its memory.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from sparsity_report.errors import SparsityReportError, explained
from sparsity_report.sparse.cost import value_bytes
from sparsity_report.untrusted.gates import check_regular, open_file
from sparsity_report.weights.array_dtypes import Array, array_dtype, dtype_name

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Shape = tuple[int, ...]

#: Dtypes of scales.
FLOATS = ("float32", "bfloat16", "float16")
#: Floats of 8 bits.
FP8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
#: Names in safetensors of dtypes that older torch lacks. FP4 is E2M1, two per byte, low nibble
#: first. E8M0 is the exponent of a power of two, used for scales only.
FP4, E8M0 = "F4", "F8_E8M0"
#: Dtypes by their names in safetensors.
DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "BOOL": "bool", "C64": "complex64",
}  # fmt: skip

# Values of a slice, some tens of milliseconds of counting, and of a buffer.
_SLICE = 2**24
_BUFFER = 2**19


@dataclass(frozen=True)
class Rounding:
    """Range of weights that are rounded to zero, in steps of a block's scale.

    Attributes
    ----------
    below, above : float
        Weights from ``-below`` to ``above`` steps are nearest to zero.
    has_zero : bool
        Whether zero is a level of every block. Otherwise these weights become small or zero.
    """

    below: float = 0.5
    above: float = 0.5
    has_zero: bool = True


@dataclass(frozen=True, eq=False)
class Slice(ABC):
    """A run of consecutive values of one tensor, at least one.

    Its `repr` identifies the values together with the content of their sources.

    Attributes
    ----------
    total : int
        Number of values.
    dtype : str
        Name of the dtype of the values, such as ``"bfloat16"``.
    """

    total: int
    dtype: str

    @abstractmethod
    def pieces(self) -> Iterator[Array]:
        """Yield the values in order, as one-dimensional arrays."""

    def within(self, first: int, last: int) -> Iterator[Array]:
        """Yield the values from `first` to before `last`; values before them may be read."""
        start = 0
        for piece in self.pieces():
            if start >= last:
                return
            yield piece[max(first - start, 0) : last - start]
            start += piece.size

    @property
    def rounding(self) -> Rounding | None:
        """Rounding of a packed format; None where it is unknown."""
        return None

    def rounded(self) -> Iterator[tuple[Array, Floats]]:
        """Yield :meth:`pieces`, each with its rounding steps, which are not negative.

        Each step covers equally many values; consecutive ones where zero is not a level.
        """
        yield from ()

    def sources(self) -> Sequence[FileSlice]:
        """Return the slices of files that the values come from; none for values in memory."""
        return ()


class Divisible(Slice):
    """Values of which any run can be read alone."""

    @abstractmethod
    def part(self, start: int, total: int) -> Divisible:
        """Return a run of the values; packed ones start and end at whole blocks."""

    def within(self, first: int, last: int) -> Iterator[Array]:
        """Yield the values from `first` to before `last` and read no others."""
        return self.part(first, last - first).pieces()

    def cut(self, shape: Shape) -> Iterator[Divisible]:
        """Yield the values of a tensor of `shape` as slices, of whole rows if at least one fits."""
        row = shape[-1] if len(shape) > 1 else 1
        step = _SLICE // row * row if 0 < row <= _SLICE else _SLICE
        if 0 < self.total <= step:
            yield self
            return
        for start in range(0, self.total, step):
            yield self.part(start, min(step, self.total - start))


@dataclass(frozen=True, eq=False)
class HeldSlice(Divisible):
    """Values in memory.

    Attributes
    ----------
    values : numpy.ndarray
        One-dimensional; a tensor in the subclass for live models.
    nbytes : int or None
        Bytes in the file; None for values in no file.
    """

    values: Any
    nbytes: int | None = None

    packing: ClassVar[str] = ""

    @classmethod
    def from_array(cls, array: Array) -> HeldSlice:
        """Return the values of an array."""
        return cls(array.size, dtype_name(array.dtype), array.reshape(-1))

    def part(self, start: int, total: int) -> HeldSlice:
        """Return a run of the values, without a copy, with its share of the bytes."""
        share = self.nbytes and self.nbytes * total // self.total
        return replace(self, total=total, values=self.values[start : start + total], nbytes=share)

    def pieces(self) -> Iterator[Array]:
        """Yield the values, without a copy if they are contiguous."""
        yield np.ascontiguousarray(self.values)


class Origin(ABC):
    """A source of bytes; small and picklable, so that another process can read it.

    Its `repr` identifies its content without reading it, its `str` is its path.

    Attributes
    ----------
    size : int
        Size in bytes.
    """

    size: int
    #: True for a file on the Hub.
    is_remote: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Name without the folder."""
        return Path(str(self)).name

    @abstractmethod
    def read(self, start: int, size: int) -> Bytes:
        """Return `size` bytes from an offset.

        Raises
        ------
        SparsityReportError
            The file is missing, shorter, or has changed.
        """


@dataclass(frozen=True)
class LocalFile(Origin):
    """A local file, as it was on look-up; a file that has changed since is refused.

    Attributes
    ----------
    path : pathlib.Path
        Absolute path, because worker processes have other working directories.
    size, modified_ns : int
        Size in bytes, and time of the last change.
    """

    # Absent from the identity: a copy with the same time has the same content.
    path: Path = field(repr=False)
    size: int
    modified_ns: int

    @classmethod
    def look_up(cls, path: Path) -> LocalFile:
        """Return a file with its size and time of change.

        Raises
        ------
        ValueError
            The path is not a regular file.
        OSError
            The file does not exist.
        """
        state = path.stat()
        check_regular(state)
        return cls(path.absolute(), state.st_size, state.st_mtime_ns)

    def __str__(self) -> str:
        return str(self.path)

    def read(self, start: int, size: int) -> Bytes:
        """Return `size` bytes from an offset."""

        def explain(error: Exception) -> str:
            reason = getattr(error, "strerror", None) or error
            return f"{self.path} cannot be read: {reason}; is it still complete?"

        with explained(explain, OSError, EOFError, ValueError), open_file(self.path) as file:
            self._check(file)
            raw, filled = np.empty(size, dtype=np.uint8), 0
            for offset, count in self.spans(start, start + size):
                file.seek(offset)
                if missing := count - file.readinto(raw[filled : filled + count].data):
                    raise EOFError(f"it ends {missing:,} bytes too early")
                filled += count
            # A writer that kept the size has changed the time.
            self._check(file)
            return raw

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield offset and size in the file on disk of each run of bytes."""
        yield start, stop - start

    def _check(self, file: BufferedReader) -> None:
        state = os.fstat(file.fileno())
        if (state.st_size, state.st_mtime_ns) != (self.size, self.modified_ns):
            raise SparsityReportError(
                f"{self.path} changed after it was opened; load it and count again"
            )


@dataclass(frozen=True)
class JoinedRuns(LocalFile):
    """Runs of bytes of a local file, read as if they followed each other in a file.

    Attributes
    ----------
    runs : tuple of (int, int)
        Offset and size of each run in the file on disk.
    """

    runs: tuple[tuple[int, int], ...]

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield offset and size in the file on disk of each run of joined bytes."""
        for offset, size in self.runs:
            first, last = max(start, 0), min(stop, size)
            if first < last:
                yield offset + first, last - first
            start, stop = start - size, stop - size


@dataclass(frozen=True, eq=False)
class FileSlice(Divisible):
    """Values in a file; small and picklable, so that another process can read them.

    Subclasses for packed values override `bytes_of` and `unpack`.

    Attributes
    ----------
    file : Origin
    offset : int
        Offset of the first byte.
    packing : str
        Name of the packing; empty for plain values.
    """

    file: Origin
    offset: int
    packing: str = ""

    def bytes_of(self, count: int) -> int:
        """Return the bytes of `count` values in the file."""
        return count * value_bytes(self.dtype)

    def unpack(self, raw: Bytes) -> Bytes | Floats:
        """Return the values of bytes of the file, as an array whose bytes are theirs."""
        return raw

    def decode(self, raw: Bytes) -> Array:
        """Return the values of bytes of the file."""
        return self.unpack(raw).view(array_dtype(self.dtype))

    def sources(self) -> Sequence[FileSlice]:
        """Return the slice itself."""
        return (self,)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.bytes_of(self.total)

    def pieces(self) -> Iterator[Array]:
        """Yield the values as they are read."""
        return map(self.decode, self.raw())

    def part(self, start: int, total: int) -> FileSlice:
        """Return a run of the values; packed ones start and end at whole blocks."""
        return replace(self, offset=self.offset + self.bytes_of(start), total=total)

    def raw(self) -> Iterator[Bytes]:
        """Yield the bytes of each piece of values."""
        # One request for each slice of a file on the Hub.
        step = _SLICE if self.file.is_remote else _BUFFER
        for start in range(0, self.total, step):
            size = self.bytes_of(min(step, self.total - start))
            yield self.file.read(self.offset + self.bytes_of(start), size)


def memory_slices(array: Array) -> Iterator[Slice]:
    """Yield the values of an array as slices of whole rows."""
    return HeldSlice.from_array(array).cut(array.shape)


def pieces(slices: Iterable[Slice]) -> Iterator[Array]:
    """Yield the values of slices in order, as one-dimensional arrays."""
    return (piece for part in slices for piece in part.pieces())


def join_slices(slices: Iterable[Slice], dtype: str, shape: Shape) -> Array:
    """Read slices into one array, the only copy in memory."""
    array = np.empty(math.prod(shape), array_dtype(dtype))
    start = 0
    for piece in pieces(slices):
        array[start : start + piece.size] = piece
        start += piece.size
    return array.reshape(shape)


class Stored(Protocol):
    """Values of a tensor that can be read slice by slice."""

    @property
    def dtype(self) -> str:
        """Name of the dtype of the values."""

    @property
    def nbytes(self) -> int | None:
        """Bytes in the file; None for values in no file."""

    @property
    def packing(self) -> str:
        """Name of the packing, such as ``"Q4_1"``; empty for plain values."""

    def cut(self, shape: Shape) -> Iterator[Slice]:
        """Yield the values of a tensor of `shape` as slices."""


@dataclass(frozen=True, eq=False)
class LazyValues:
    """Values that a function returns when they are read.

    Attributes
    ----------
    dtype : str
    cut : callable
        Returns the slices of a shape.
    nbytes, packing
        See :class:`Stored`.
    """

    dtype: str
    cut: Callable[[Shape], Iterator[Slice]]
    nbytes: int | None = None
    packing: str = ""


@dataclass(frozen=True, eq=False)
class Entry:
    """A tensor of a checkpoint.

    Attributes
    ----------
    key : str
        Name on disk.
    shape : tuple of int
    values : Stored
    kind : str
        Name of a dtype that is read as bytes, which are `values`.
    """

    key: str
    shape: Shape
    values: Stored
    kind: str = ""

    @property
    def total(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return self.kind or self.values.dtype

    def slices(self) -> Iterator[Slice]:
        """Yield the values in order."""
        return self.values.cut(self.shape)

    @staticmethod
    def file_bytes(entries: Iterable[Entry]) -> int | None:
        """Return the bytes of tensors in files; None if one is in memory."""
        sizes = [entry.values.nbytes for entry in entries]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @staticmethod
    def packings(entries: Iterable[Entry]) -> str:
        """Return the names of the packings of tensors; empty for plain values."""
        return ", ".join(sorted({entry.values.packing for entry in entries} - {""}))

    @staticmethod
    def in_files(entries: Iterable[Entry]) -> Sequence[FileSlice]:
        """Return the values of tensors if all are in files; none otherwise."""
        values = [entry.values for entry in entries]
        files = [each for each in values if isinstance(each, FileSlice)]
        return files if len(files) == len(values) else ()

    def read(self) -> Array:
        """Return the values as one array."""
        return join_slices(self.slices(), self.values.dtype, self.shape)

    @property
    def origin(self) -> str:
        """File of the tensor, or a word for values in memory."""
        return str(self.values.file) if isinstance(self.values, FileSlice) else "the checkpoint"

    def wrong(self, reason: str) -> SparsityReportError:
        """Return the error for a faulty tensor."""
        return SparsityReportError(f"{self.origin}: {self.key!r} {reason}")

    def seen_as(self, *shape: int) -> Entry:
        """Return the tensor in another shape."""
        return Entry(self.key, shape, self.values)

    def as_dtype(self, dtype: str) -> Entry:
        """Return the tensor with its bytes reinterpreted as another dtype."""
        if isinstance(self.values, FileSlice):
            return Entry(self.key, self.shape, replace(self.values, dtype=dtype))
        held = HeldSlice.from_array(self._held().view(array_dtype(dtype)))
        return Entry(self.key, self.shape, held)

    def rows(self, start: int = 0, stop: int | None = None) -> Bytes:
        """Return the bytes of a range of rows, by default of all.

        Returns
        -------
        numpy.ndarray
            uint8, (rows, bytes of a row).
        """
        down = self.shape[0] if self.shape else 1
        stop = down if stop is None else stop
        size = math.prod(self.shape[1:]) * value_bytes(self.values.dtype)
        if isinstance(self.values, FileSlice):
            raw = self.values.file.read(self.values.offset + start * size, (stop - start) * size)
            return raw.reshape(stop - start, size)
        rows = np.ascontiguousarray(self._held().reshape(down, -1)[start:stop])
        return rows.view(np.uint8).reshape(stop - start, size)

    def columns(self, start: int, stop: int) -> Bytes:
        """Return the bytes of a range of columns of a matrix, row by row.

        Returns
        -------
        numpy.ndarray
            uint8, (rows of the matrix, columns · bytes of a number).
        """
        size = value_bytes(self.values.dtype)
        return np.ascontiguousarray(self.rows()[:, start * size : stop * size])

    def loaded(self) -> Entry:
        """Return the tensor with its values in memory."""
        return Entry(self.key, self.shape, HeldSlice.from_array(self._values(self.rows())))

    def numbers(self, raw: Bytes | None = None) -> Floats:
        """Return bytes of the tensor as float32 numbers, by default all, flattened."""
        if raw is None:
            return self.numbers(self.rows()).reshape(-1)
        return self._values(raw).astype(np.float32)

    def integers(self) -> npt.NDArray[np.int64]:
        """Return all numbers of a small integer tensor, flattened; refuse other dtypes."""
        if not is_integer(self.values.dtype):
            raise self.wrong(
                f"looks packed and cannot be unpacked: it holds {self.dtype}, not integers; "
                "fetch the checkpoint again, or give one not packed"
            )
        return self.rows().view(self.values.dtype).reshape(-1).astype(np.int64)

    def finite(self, values: Floats) -> Floats:
        """Return scales of the tensor; refuse NaN and infinity."""
        if not np.isfinite(values).all():
            raise self.wrong(
                "holds a scale that is not a number, so what it scales is unknown; "
                "fetch the file again"
            )
        return values

    def _values(self, raw: Bytes) -> Array:
        return raw.view(array_dtype(self.values.dtype))

    def _held(self) -> Array:
        assert isinstance(self.values, HeldSlice)
        (array,) = self.values.pieces()
        return array


def is_float(dtype: str) -> bool:
    """Return True if a name is that of a real floating-point dtype.

    Examples
    --------
    >>> [is_float(d) for d in ("bfloat16", "float8_e5m2", "int8", "bool")]
    [True, True, False, False]
    """
    return dtype.startswith(("float", "bfloat"))


def is_integer(dtype: str) -> bool:
    """Return True if a name is that of an integer dtype.

    Examples
    --------
    >>> [is_integer(d) for d in ("uint8", "int64", "bool", "float16")]
    [True, True, False, False]
    """
    return dtype.startswith(("int", "uint"))
