"""One pass over the weights: how many are nonzero, and how their magnitudes are distributed.

A bucket is the top 16 bits of a magnitude as float32, which is a bfloat16 number. The histogram
of a tensor of 8 or 16 bits is therefore lossless; for wider ones a bucket is 2⁻⁷ (0.8 %) wide and
:func:`refine` looks into a single bucket exactly.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparsity_report.weights import Weights

Progress = Callable[[int, int, str], None]
"""Called with bytes done, bytes in all, and what is being read."""

# Chunks that fit the L2 cache with their bin counts; pieces bound what leaves an accelerator.
_CHUNK = 2**18
_PIECE = 2**24
_TOP_HALF = 1 if sys.byteorder == "little" else 0
_NARROW = {1: torch.uint8, 2: torch.int16}
_NO_VALUES: npt.NDArray[np.float64] = np.empty(0)
_NO_COUNTS: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Magnitudes:
    """Counts of one tensor.

    Attributes
    ----------
    total, nonzero : int
        Elements, and elements other than +0 and −0 (NaN is not zero).
    nan : int
        Elements that are NaN; they stand in no bucket.
    values : numpy.ndarray of float64
        Smallest magnitude of each bucket that is not empty, ascending.
    counts : numpy.ndarray of int64
        Elements of each bucket.
    exact : bool
        Whether a bucket holds a single magnitude, so that `values` are the magnitudes.
    """

    total: int
    nonzero: int
    nan: int = 0
    values: npt.NDArray[np.float64] = field(default_factory=lambda: _NO_VALUES, repr=False)
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: _NO_COUNTS, repr=False)
    exact: bool = True


def count_nonzero(tensor: torch.Tensor) -> int:
    """Count the elements other than +0 and −0, for any dtype.

    Examples
    --------
    >>> count_nonzero(torch.tensor([0.0, -0.0, 1e-45, float("nan")]))
    2
    """
    if tensor.dtype.is_complex:
        return int(torch.count_nonzero(tensor))
    if tensor.dtype.itemsize == 1 and tensor.dtype.is_floating_point:
        return count(tensor).nonzero
    return sum(
        int(np.count_nonzero(bits[start : start + _CHUNK]))
        for bits in _unsigned(tensor)
        for start in range(0, bits.size, _CHUNK)
    )


def count(tensor: torch.Tensor) -> Magnitudes:
    """Count the nonzeros of a tensor and tally its magnitudes.

    Examples
    --------
    >>> seen = count(torch.tensor([0.5, -0.5, 0.0, 2.0], dtype=torch.bfloat16))
    >>> seen.nonzero, seen.values.tolist(), seen.counts.tolist()
    (3, [0.0, 0.5, 2.0], [1, 2, 1])
    """
    if tensor.dtype.itemsize <= 2:
        return _count_narrow(tensor)
    tally = np.zeros(2**16, dtype=np.int64)
    nonzero = nan = 0
    for piece, single in _floats(tensor):
        for start in range(0, single.size, _CHUNK):
            chunk = single[start : start + _CHUNK]
            codes = np.bincount(_top_half(chunk), minlength=2**16)
            tally += codes
            nonzero += chunk.size
            if codes[0] or codes[0x8000]:
                nonzero -= int(np.count_nonzero(piece[start : start + _CHUNK] == 0))
            if codes[0x7F80:0x8000].any() or codes[0xFF80:].any():
                nan += int(np.count_nonzero(np.isnan(chunk)))
    values, counts, _ = _by_magnitude(torch.bfloat16, tally)
    # A NaN whose mark is in the low half looks like infinity from its top half alone.
    finite = values < np.inf
    infinite = tensor.numel() - int(counts[finite].sum()) - nan
    values, counts = values[finite], counts[finite]
    if infinite:
        values, counts = np.append(values, np.inf), np.append(counts, infinite)
    return Magnitudes(tensor.numel(), nonzero, nan, values, counts, exact=False)


def refine(
    tensor: torch.Tensor, bucket: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the distinct magnitudes inside one bucket of a wide tensor and their counts."""
    code = int(_top_half(np.array([bucket], dtype=np.float32))[0])
    found = [_NO_VALUES]
    for piece, single in _floats(tensor):
        for start in range(0, single.size, _CHUNK):
            inside = (_top_half(single[start : start + _CHUNK]) & 0x7FFF) == code
            if inside.any():
                found.append(np.abs(piece[start : start + _CHUNK][inside].astype(np.float64)))
    values, counts = np.unique(np.concatenate(found), return_counts=True)
    return values, counts.astype(np.int64)


def bucket_of(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the bucket number (top 16 bits as float32) of magnitudes."""
    return _top_half(_single(values)).astype(np.int64)


def count_weights(weights: Weights, progress: Progress | None = None) -> Mapping[str, Magnitudes]:
    """Count every stored parameter of a model once and remember the result.

    Prunable tensors get a histogram, the others only their nonzeros.

    Parameters
    ----------
    weights : Weights
    progress : callable, optional
        Called with bytes done, bytes in all and the tensor's name.
    """
    stored = list(weights.stored)
    size = sum(p.total * p.itemsize for p in stored)
    done = 0
    for parameter in stored:
        if parameter.name not in weights.counts:
            tensor = weights.tensor(parameter.name)
            weights.counts[parameter.name] = (
                count(tensor)
                if parameter.prunable
                else Magnitudes(tensor.numel(), count_nonzero(tensor))
            )
        done += parameter.total * parameter.itemsize
        if progress:
            progress(done, size, parameter.name)
    return weights.counts


def _count_narrow(tensor: torch.Tensor) -> Magnitudes:
    bins = 2 ** (8 * tensor.dtype.itemsize)
    tally = np.zeros(bins, dtype=np.int64)
    for piece in _pieces(tensor):
        codes = piece.view(_NARROW[tensor.dtype.itemsize]).numpy()
        codes = codes.view(np.uint8 if bins == 2**8 else np.uint16)
        for start in range(0, codes.size, _CHUNK):
            tally += np.bincount(codes[start : start + _CHUNK], minlength=bins)
    values, counts, nan = _by_magnitude(tensor.dtype, tally)
    zero = int(counts[0]) if values.size and values[0] == 0 else 0
    return Magnitudes(tensor.numel(), tensor.numel() - zero, nan, values, counts)


def _by_magnitude(
    dtype: torch.dtype, tally: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], int]:
    """Merge the counts of bit patterns into counts of magnitudes; NaN apart."""
    magnitudes, which, is_nan = _meaning(dtype)
    present = np.flatnonzero(tally)
    nan = int(tally[present[is_nan[present]]].sum())
    present = present[~is_nan[present]]
    merged = np.zeros(magnitudes.size, dtype=np.int64)
    np.add.at(merged, which[present], tally[present])
    kept = np.flatnonzero(merged)
    return magnitudes[kept], merged[kept], nan


@lru_cache(maxsize=16)
def _meaning(
    dtype: torch.dtype,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Distinct magnitudes of a narrow dtype, and which of them each bit pattern means."""
    bits = 8 * dtype.itemsize
    patterns = np.arange(2**bits, dtype=np.uint8 if bits == 8 else np.uint16)
    pattern_type = torch.uint8 if bits == 8 else torch.int16
    raw = torch.from_numpy(patterns.view(np.uint8 if bits == 8 else np.int16)).to(pattern_type)
    numbers = (raw != 0) if dtype == torch.bool else raw.view(dtype)
    values = np.abs(numbers.to(torch.float64).numpy())
    is_nan = np.isnan(values)
    magnitudes, which = np.unique(np.where(is_nan, 0.0, values), return_inverse=True)
    return magnitudes, which.astype(np.intp), is_nan


def _pieces(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), _PIECE):
        yield flat[start : start + _PIECE].cpu().contiguous()


def _floats(tensor: torch.Tensor) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.float32]]]:
    """Yield values, and the same as float32 for bucketing (rounding keeps their order)."""
    for piece in _pieces(tensor):
        values = (piece.abs() if piece.dtype.is_complex else piece).numpy()
        yield values, _single(values)


def _unsigned(tensor: torch.Tensor) -> Iterator[npt.NDArray[Any]]:
    """Yield the bits of each piece with the sign of zero taken off."""
    for piece in _pieces(tensor):
        if not piece.dtype.is_floating_point:
            yield piece.numpy()
        else:
            width = 8 * piece.dtype.itemsize
            bits = piece.view(getattr(torch, f"int{width}")).numpy().view(f"u{width // 8}")
            yield bits << bits.dtype.type(1)


def _single(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(np.float32, copy=False)


def _top_half(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    return values.view(np.uint16)[_TOP_HALF::2]
