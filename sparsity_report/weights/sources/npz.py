"""Arrays in ``.npz`` files, which are untrusted zip archives."""

import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sparsity_report.errors import SparsityReportError, explained, printable
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_name, open_file

Values = npt.NDArray[Any]
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0,
}  # fmt: skip


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
    for info in _with_archive(path, lambda archive: archive.infolist()):
        if not info.filename.endswith(".npy"):
            raise SparsityReportError(
                f"{path}: {info.filename!r} is not an array; give an .npz file of numpy.savez"
            )
        shape = _with_archive(path, partial(_read_shape, info=info))
        values = partial(_with_archive, path, partial(_read_values, info=info))
        yield Array(info.filename.removesuffix(".npy"), shape, values)


def _with_archive(path: Path, read: Callable[[zipfile.ZipFile], Any]) -> Any:
    """Return what a function reads from an archive; refuse a damaged one."""

    def explain(error: Exception) -> str:
        reason = printable(str(error) or type(error).__name__, 200)
        return f"{path} cannot be read as .npz: {reason}; save it again"

    # Damaged archives raise many exceptions.
    with explained(explain, Exception), open_file(path) as file, zipfile.ZipFile(file) as archive:
        if len(archive.filelist) > limits.TENSORS:
            raise ValueError(f"it holds more than {limits.TENSORS:,} arrays")
        return read(archive)


def _read_shape(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, ...]:
    """Return the shape of an array whose header agrees with the size of its file."""
    check_name(info.filename)
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{info.filename} is of version {version}")
        shape, _, dtype = _HEADERS[version](file)
        if dtype.kind not in "biufc" or dtype.hasobject:
            raise ValueError(f"{info.filename} is not an array of numbers")
        if info.file_size != file.tell() + math.prod(shape) * dtype.itemsize:
            raise ValueError(f"the size of {info.filename} does not fit its shape")
        return tuple(shape)


def _read_values(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> list[Values]:
    _read_shape(archive, info)
    with archive.open(info) as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise ValueError(f"{info.filename} is longer than its shape")
        return [values]
