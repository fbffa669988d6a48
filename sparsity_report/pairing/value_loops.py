"""Counts and sums over the values of two models, in a compiled loop or by NumPy.

A loop that numba compiles reads each value once. NumPy needs about twenty passes over values in the
processor's cache. Both count alike; their sums differ in the last digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.histogram import nonzero_flags
from sparsity_report.counting.n_m_patterns import KNOWN
from sparsity_report.pairing.tally import SideCount, Tally
from sparsity_report.weights.array_dtypes import Array, array_dtype

Values = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]
Patterns = npt.NDArray[np.int64]
Sums = tuple[int, int, int, int, float, float, float, float, float]

# Values that NumPy compares, or that are converted to floats, at a time; a multiple of eight.
_MADE = 2**15
# Complying groups for each N:M pattern and each pattern of nonzeros among eight weights.
_EIGHTS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
_COMPLYING = np.array([(_EIGHTS.reshape(256, -1, m).sum(2) <= n).sum(1) for n, m in KNOWN])
# 16-bit dtypes that NumPy or numba lacks, as distinct integer dtypes.
_HALVES = {"bfloat16": "int16", "float16": "uint16"}
_FLOATS = {"float32", "float64"}


@cache
def compiled_compare() -> Callable[[Values, Values, Patterns], Sums] | None:
    """Return the loop that numba compiles, like :func:`compare`; None where it cannot."""
    try:
        from numba import config

        from sparsity_report.pairing import compiled_loops
    except ImportError:
        return None
    return None if config.DISABLE_JIT else compiled_loops.compare


def tally_values(before: Array, after: Array, grouped: bool = False) -> Tally:
    """Compare values one by one.

    Parameters
    ----------
    before, after : numpy.ndarray
        One-dimensional, of equal length and any dtype. NaN is not zero, and equal to NaN.
    grouped : bool
        True if the values are whole groups of eight along the input, to check N:M patterns.

    Raises
    ------
    ValueError
        The arrays differ in length or are not one-dimensional.

    Examples
    --------
    >>> sums = tally_values(np.array([0.0, 0.0, 3.0, 4.0]), np.array([0.0, 1.0, 0.0, 5.0]))
    >>> sums.kept, sums.revived, sums.new, sums.changed, sums.relative_change, sums.iou
    (1, 1, 1, 1, 0.25, 0.3333333333333333)
    """
    patterns = np.zeros((2 * grouped, 256), dtype=np.int64)
    loop = compiled_compare() or compare
    rows = [loop(one, other, patterns) for one, other in _readable(before, after)]
    if not rows:
        return Tally()
    nonzero, left, surviving, changed, *sums = map(sum, zip(*rows, strict=True))
    total = before.size
    one, other = total - nonzero, total - left
    eights = patterns if grouped else (None, None)
    sides = _side(total, one, eights[0]), _side(total, other, eights[1])
    kept, revived, new = one - left + surviving, left - surviving, nonzero - surviving
    return Tally(*sides, total, kept, revived, new, changed, *sums)


def count_values(values: Array, grouped: bool = False) -> SideCount:
    """Count the weights of one model, see :func:`tally_values`.

    Examples
    --------
    >>> count_values(np.array([0.0, 2.0])).zeros
    1
    """
    flags, total = nonzero_flags(values), values.size
    zeros = total - int(np.count_nonzero(flags))
    return _side(total, zeros, _eights(flags) if grouped else None)


def _side(total: int, zeros: int, eights: Patterns | None) -> SideCount:
    """Return the counts of one side, with N:M groups given its patterns of eight nonzeros."""
    if eights is None:
        return SideCount(total, zeros)
    return SideCount(total, zeros, tuple((_COMPLYING @ eights).tolist()), total)


@cache
def compile_for(before: str, after: str) -> None:
    """Compile the loop that compares values of two dtypes, given by name.

    Call this before threads or processes start: a process that is forked while a thread compiles
    would wait forever.
    """
    tally_values(np.empty(1, array_dtype(before)), np.empty(1, array_dtype(after)))


def _readable(*sides: Array) -> Iterator[list[Values]]:
    """Yield arrays that loops read, in chunks for NumPy and if the dtype must be converted."""
    if len({side.shape for side in sides}) > 1 or sides[0].ndim != 1:
        shapes = " and ".join(str(side.shape) for side in sides)
        raise ValueError(f"shapes {shapes} are not one-dimensional and equal")
    size, is_compiled = len(sides[0]), compiled_compare() is not None
    bits = _HALVES if is_compiled else {}
    readable = all(side.dtype.name in {*_FLOATS, *bits} for side in sides)
    step = size if is_compiled and readable else _MADE
    for start in range(0, size, step):
        yield [_read(side[start : start + step], bits) for side in sides]


def _read(side: Array, bits: Mapping[str, str]) -> Values:
    """Return values as float32 or float64, or the bits of a dtype that `bits` maps."""
    values, name = np.ascontiguousarray(side), side.dtype.name
    if name in bits:
        return values.view(bits[name])
    if name.startswith("float8"):  # ml_dtypes converts one value at a time
        return _float8_numbers(name).take(values.view(np.uint8))
    # float32 represents all values of up to 16 bits exactly.
    return values if name in _FLOATS else values.astype(f"float{32 if side.itemsize < 4 else 64}")


@cache
def _float8_numbers(name: str) -> npt.NDArray[np.float32]:
    """Return the number of each byte."""
    return np.arange(256, dtype=np.uint8).view(array_dtype(name)).astype(np.float32)


@np.errstate(all="ignore")
def compare(before: Values, after: Values, patterns: Patterns) -> Sums:
    """Return nonzeros of each and of both, changes, and the five sums of :class:`Tally`.

    Count the patterns of nonzeros among eight weights, a bit each, in `patterns` of shape (2, 256),
    one row per side; with shape (0, 256), count none.
    """
    there, still = before != 0, after != 0
    both = there & still
    differs = both & (before != after)
    one, other = before.astype(np.float64), after.astype(np.float64)
    square_before, square_after, change = _dot(one, one), _dot(other, other), other - one
    if math.isfinite(square_before + square_after):
        one *= both
        change *= differs
    else:  # infinity or NaN times zero would be NaN
        one, other = np.where(both, one, 0), np.where(both, other, 0)
        change = np.where(differs, change, 0)
        differs &= (before == before) | (after == after)
    sums = _dot(one, one), _dot(change, change), _dot(one, other), square_before, square_after
    for side, row in zip((there, still), patterns, strict=False):
        row += _eights(side)
    flags = there, still, both, differs
    nonzero, left, surviving, changed = (int(np.count_nonzero(each)) for each in flags)
    return (nonzero, left, surviving, changed, *sums)


def _eights(flags: npt.NDArray[np.bool_]) -> Patterns:
    """Return the number of groups of eight flags with each pattern, a bit for each flag."""
    return np.bincount(np.packbits(flags[: flags.size // 8 * 8]), minlength=256)


def _dot(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Return a sum of products without the threads of BLAS, which disturb those of a pool."""
    return float(np.einsum("i,i", one, other))
