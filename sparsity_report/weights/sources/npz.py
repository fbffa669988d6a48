"""Arrays in ``.npz`` files, which are zip archives that anybody may have made."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_name, open_file

Values = npt.NDArray[Any]
# Bytes of a compressed array that are read at a time.
_CHUNK = 2**20


class Array(NamedTuple):
    """An array that may not have been read yet: its name, its shape, its values in order."""

    name: str
    shape: tuple[int, ...]
    values: Callable[[], Iterable[Values]]


def read_npz(path: Path) -> Iterator[Array]:
    """Yield the arrays of an ``.npz`` file; their values are read when they are asked for.

    Raises
    ------
    SparsityReportError
        It cannot be read, or holds something else than arrays of numbers.
    """
    for info in _opened(path, lambda archive: archive.infolist()):
        if not info.filename.endswith(".npy"):
            raise SparsityReportError(f"{path}: {info.filename!r} is no array; is it an .npz file?")
        shape, order, dtype, _ = _opened(path, partial(_head, info=info))

        def values(
            info: zipfile.ZipInfo = info,
            shape: tuple[int, ...] = shape,
            order: str = order,
            dtype: np.dtype[Any] = dtype,
        ) -> list[Values]:
            raw = _opened(path, partial(_body, info=info))
            return [np.frombuffer(raw, dtype=dtype).reshape(shape, order=order)]  # type: ignore[call-overload]

        yield Array(info.filename.removesuffix(".npy"), shape, values)


def _opened(path: Path, look: Callable[[zipfile.ZipFile], Any]) -> Any:
    """Look into an archive that anybody may have made."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            if len(archive.filelist) > limits.TENSORS:
                raise ValueError(f"it holds more than {limits.TENSORS:,} arrays")
            return look(archive)
    except SparsityReportError:
        raise
    except Exception as error:  # damaged archives fail in every way there is
        told = printable(str(error) or type(error).__name__, 200)
        raise SparsityReportError(f"{path} cannot be read as .npz: {told}; save it anew") from error


def _head(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> tuple[tuple[int, ...], str, np.dtype[Any], int]:
    """Return shape, order, type of an array, and where in its file the values begin."""
    check_name(info.filename)
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if reader is None:
            raise ValueError(f"{info.filename} is of version {version}")
        shape, fortran, dtype = reader(file)
        if dtype.kind not in "biufc" or dtype.hasobject:
            raise ValueError(f"{info.filename} is no array of numbers")
        if info.file_size != file.tell() + math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{info.filename} has not as many values as its shape says")
        return tuple(shape), "F" if fortran else "C", dtype, file.tell()


def _body(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytearray:
    """Read the values of an array, no more of them than it says it has."""
    *_, begin = _head(archive, info)
    raw = bytearray()
    with archive.open(info) as file:
        file.read(begin)
        while part := file.read(_CHUNK):
            raw += part
            if len(raw) > info.file_size - begin:
                raise ValueError(f"{info.filename} is longer than it says")
    return raw
