"""Arrays in ``.npz`` files, which are untrusted zip archives."""

import io
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from weakref import finalize

import numpy as np
import numpy.typing as npt

from sparsity_report.errors import SparsityReportError, explained, printable
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_name, open_file

Values = npt.NDArray[Any]
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0,
}  # fmt: skip
# More than the longest header that NumPy reads.
_HEADER_BYTES = 2**14


class Array(NamedTuple):
    """An array by name and shape, with a function that reads its values."""

    name: str
    shape: tuple[int, ...]
    values: Callable[[], Iterable[Values]]


def read_npz(path: Path) -> Iterator[Array]:
    """Yield the arrays of an ``.npz`` file; their values are read on demand.

    Raises
    ------
    SparsityReportError
        The file cannot be read, or holds something other than arrays of numbers.
    """
    archive = _open_archive(path)
    for info in archive.filelist:
        if not info.filename.endswith(".npy"):
            raise SparsityReportError(
                f"{path}: {info.filename!r} is not an array; give an .npz file of numpy.savez"
            )
        with _one_line(path):
            shape = _read_shape(archive, info)
        values = partial(_read_values, path, archive, info)
        yield Array(info.filename.removesuffix(".npy"), shape, values)


def _one_line(path: Path) -> AbstractContextManager[None]:
    """Turn the many exceptions that damaged archives raise into one line."""

    def explain(error: Exception) -> str:
        reason = printable(" ".join(str(error).split()) or type(error).__name__, 200)
        return f"{path} cannot be read as .npz: {reason}; save it again"

    return explained(explain, Exception)


def _open_archive(path: Path) -> zipfile.ZipFile:
    """Open an archive once, as its directory may be long; it is closed when no array needs it."""
    with _one_line(path), ExitStack() as files:
        archive = zipfile.ZipFile(files.enter_context(open_file(path)))
        if len(archive.filelist) > limits.TENSORS:
            raise ValueError(f"it holds more than {limits.TENSORS:,} arrays")
        finalize(archive, files.pop_all().close)
    return archive


def _read_shape(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, ...]:
    """Return the shape of an array whose header agrees with the size of its file."""
    check_name(info.filename)
    with archive.open(info) as file:
        head = io.BytesIO(file.read(_HEADER_BYTES))  # as a header may claim gigabytes
        version = np.lib.format.read_magic(head)
        if version not in _HEADERS:
            raise ValueError(f"{info.filename} is of version {version}")
        shape, _, dtype = _HEADERS[version](head)
        if dtype.kind not in "biufc" or dtype.hasobject:
            raise ValueError(f"{info.filename} is not an array of numbers")
        if info.file_size != head.tell() + math.prod(shape) * dtype.itemsize:
            raise ValueError(f"the size of {info.filename} does not fit its shape")
        return tuple(shape)


def _read_values(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> list[Values]:
    with _one_line(path), archive.open(info) as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise ValueError(f"{info.filename} is longer than its shape")
        return [values]
