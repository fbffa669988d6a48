"""Slices of stored parts as arrays: ranges of rows or columns."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.packed.packed_integers import Bytes, Floats
from sparsity_report.weights.tensor_slices import Entry, FileSlice, read_at

#: Dtypes of scales.
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
#: Floats of 8 bits.
FP8 = tuple(getattr(torch, f"float8_{name}") for name in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz"))

#: Names in safetensors of dtypes that older torch lacks. FP4 is E2M1, two per byte, low nibble
#: first. E8M0 is the exponent of a power of two, used for scales only.
FP4, E8M0 = "F4", "F8_E8M0"


def rows(part: Entry, start: int, stop: int) -> Bytes:
    """Return the bytes of a range of rows of a part.

    Returns
    -------
    numpy.ndarray
        uint8, (rows, bytes of a row).
    """
    size = math.prod(part.shape[1:]) * _itemsize(part)
    values = part.values
    if isinstance(values, FileSlice):
        with values.opened() as file:
            raw = read_at(file, values.offset + start * size, (stop - start) * size)
    else:
        held = _held(part).reshape(part.shape[0] if part.shape else 1, -1)
        raw = held[start:stop].contiguous().view(torch.uint8).numpy()
    return raw.reshape(stop - start, size)


def columns(part: Entry, start: int, stop: int) -> Bytes:
    """Return the bytes of a range of columns of a matrix, row by row.

    Returns
    -------
    numpy.ndarray
        uint8, (rows of the part, columns · bytes of a number).
    """
    down, across = part.shape
    size, values = _itemsize(part), part.values
    if not isinstance(values, FileSlice):
        return _held(part)[:, start:stop].contiguous().view(torch.uint8).numpy()
    width = (stop - start) * size
    if width == across * size:
        return rows(part, 0, down)
    block = np.empty((down, width), np.uint8)
    with values.opened() as file:
        for row in range(down):
            block[row] = read_at(file, values.offset + (row * across + start) * size, width)
    return block


def held_columns(part: Entry, start: int, stop: int) -> Entry:
    """Return a range of columns of a matrix, read into memory."""
    held = torch.from_numpy(columns(part, start, stop)).view(part.values.dtype)
    return Entry(part.key, tuple(held.shape), held)


def numbers(part: Entry, raw: Bytes) -> Floats:
    """Return bytes of a part as float32 numbers."""
    dtype = part.values.dtype
    if dtype == torch.float32:
        return raw.view(np.float32)
    return torch.from_numpy(raw).view(dtype).float().numpy()


def flattened(part: Entry) -> Floats:
    """Return all numbers of a small part, flattened."""
    return numbers(part, rows(part, 0, part.shape[0] if part.shape else 1)).reshape(-1)


def integers(part: Entry) -> npt.NDArray[np.int64]:
    """Return all numbers of a small integer part, flattened; refuse other dtypes."""
    dtype = part.values.dtype
    if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        raise SparsityReportError(
            f"{origin(part)}: {part.key!r} looks packed and cannot be unpacked: it holds "
            f"{part.dtype}, not integers; fetch the checkpoint again, or give one not packed"
        )
    raw = rows(part, 0, part.shape[0] if part.shape else 1)
    return torch.from_numpy(raw).view(dtype).reshape(-1).long().numpy()


def seen_as(part: Entry, *shape: int) -> Entry:
    """Return a part in another shape."""
    return Entry(part.key, shape, part.values)


def as_dtype(part: Entry, dtype: torch.dtype) -> Entry:
    """Return a part with its bytes reinterpreted as another dtype."""
    if isinstance(part.values, torch.Tensor):
        return Entry(part.key, part.shape, part.values.view(dtype))
    assert isinstance(part.values, FileSlice)
    return Entry(part.key, part.shape, replace(part.values, dtype=dtype))


def finite(part: Entry, values: Floats) -> Floats:
    """Return scales; refuse NaN and infinity."""
    if not np.isfinite(values).all():
        raise SparsityReportError(
            f"{origin(part)}: {part.key!r} holds a scale that is not a number, so what it scales "
            "is unknown; fetch the file again"
        )
    return values


def origin(part: Entry) -> str:
    """Return the file of a part."""
    return str(part.values.file) if isinstance(part.values, FileSlice) else "the checkpoint"


def _held(part: Entry) -> torch.Tensor:
    assert isinstance(part.values, torch.Tensor)
    return part.values.detach().cpu()


def _itemsize(part: Entry) -> int:
    return part.values.dtype.itemsize
