"""Values compared one by one, in loops that numba compiles: each is looked at once.

NumPy would pass over them some twenty times, in steps of microseconds for which threads would
mostly wait; these loops let other threads run from their beginning to their end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import types
from numba.extending import overload

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.tally import NO_GROUPS, Tally
from sparsity_report.sparse.shares import N_M

# Values that are compared at a time, whole groups.
_BLOCK = 2**12
# What float32 holds all values of.
_SINGLE = {
    torch.int8, torch.uint8, torch.int16, torch.bool,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
}  # fmt: skip
# Of eight weights, a bit each, how many groups comply with each N:M.
_EIGHTS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
_COMPLYING = np.array([(_EIGHTS.reshape(256, -1, m).sum(2) <= n).sum(1) for n, m in N_M])
# Gathers the lowest bits of eight bytes in the highest byte.
_GATHER = np.uint64(0x0102040810204080)
# Halves that NumPy or numba lacks, as integers by which they are told apart.
_HALVES = {torch.bfloat16: np.int16, torch.float16: np.uint16}
Values = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]
Found = tuple[int, int, int, int, float, float, float, float, float]
F = TypeVar("F", bound=Callable[..., object])


def _compiled(function: F) -> F:
    """Compile a function for each kind of array when it is first given that."""
    # Sums in any order, as those of any library are; NaN and infinity stay what they are.
    compiled: F = numba.njit(nogil=True, fastmath={"contract", "nsz", "reassoc"})(function)
    return compiled


def tally(before: torch.Tensor, after: torch.Tensor, grouped: bool = False) -> Tally:
    """Compare values one by one.

    Parameters
    ----------
    before, after : torch.Tensor
        One-dimensional, of one length, of any dtype; NaN is no zero, and equal to NaN.
    grouped : bool
        Whether the values are whole groups of eight along the input, to be looked at for N:M.

    Examples
    --------
    >>> found = tally(torch.tensor([0.0, 0.0, 3.0, 4.0]), torch.tensor([0.0, 1.0, 0.0, 5.0]))
    >>> found.kept, found.revived, found.new, found.changed, found.relative_change, found.iou
    (1, 1, 1, 1, 0.25, 0.3333333333333333)
    """
    patterns = np.zeros((2 * grouped, 256), dtype=np.int64)
    nonzero, left, surviving, changed, *sums = _compare(
        _readable(before), _readable(after), patterns
    )
    square, change, product, square_before, square_after = sums
    groups = [tuple((_COMPLYING @ side).tolist()) for side in patterns] or [NO_GROUPS, NO_GROUPS]
    total = before.numel()
    return Tally(
        total, total, total - nonzero, total - left, total,
        kept=total - nonzero - left + surviving,
        revived=left - surviving,
        new=nonzero - surviving,
        changed=changed,
        square=square,
        change=change,
        product=product,
        square_before=square_before,
        square_after=square_after,
        groups_before=groups[0],
        groups_after=groups[1],
        grouped_before=total * grouped,
        grouped_after=total * grouped,
    )  # fmt: skip


def alone(values: torch.Tensor, *, before: bool, grouped: bool = False) -> Tally:
    """Count weights that stand in one of the models only.

    Examples
    --------
    >>> alone(torch.tensor([0.0, 2.0]), before=True).zeros_before
    1
    """
    found = tally(values, values, grouped)
    total, zeros, groups = found.total_before, found.zeros_before, found.groups_before
    seen = found.grouped_before
    if before:
        return Tally(
            total_before=total, zeros_before=zeros, groups_before=groups, grouped_before=seen
        )
    return Tally(total_after=total, zeros_after=zeros, groups_after=groups, grouped_after=seen)


def _readable(side: torch.Tensor) -> Values:
    """Return values as what :func:`_number` reads: singles, doubles, or the bits of halves."""
    values = side.contiguous()
    if values.dtype in _HALVES:
        bits: Values = values.view(torch.int16).numpy().view(_HALVES[values.dtype])
        return bits
    if values.dtype not in (torch.float32, torch.float64):
        values = values.to(torch.float32 if values.dtype in _SINGLE else torch.float64)
    return values.numpy()


def _number(element: Any) -> Any:  # noqa: ARG001
    """Return what an element stands for; compiled it is one of the three that follow."""
    raise SparsityReportError(
        "two models are compared by compiled loops, which numba is told not to compile; unset "
        "NUMBA_DISABLE_JIT"
    )


def _itself(element: Any) -> Any:
    return element


def _of_bfloat16(element: Any) -> Any:
    # The upper half of a float32.
    return np.int32(np.int32(element) << 16).view(np.float32)


def _of_float16(element: Any) -> Any:
    # An exponent of 5 bits, not 8, is less by 112.
    magnitude = np.int32((np.int32(element) & 0x7FFF) << 13)
    if magnitude >= 0x0F800000:  # infinity and NaN
        magnitude |= 0x7F800000
    number = np.int32(magnitude).view(np.float32) * np.float32(2.0**112)
    return -number if element & 0x8000 else number


def _reader(element: Any) -> Any:
    return {types.int16: _of_bfloat16, types.uint16: _of_float16}.get(element, _itself)


overload(_number)(_reader)


@_compiled
def _compare(before: Values, after: Values, patterns: npt.NDArray[np.int64]) -> Found:
    """Return nonzeros of each and of both, changes, and the five sums of :class:`Tally`.

    Adds to `patterns`, of shape (2, 256), how often each pattern of nonzeros of eight weights is
    seen on each side, a bit each; of shape (0, 256) nothing.
    """
    flags = np.empty((2, _BLOCK), np.uint8)
    there, still = flags[0], flags[1]
    nonzero = left = surviving = changed = 0
    square = change = product = square_before = square_after = 0.0
    for start in range(0, before.size, _BLOCK):
        old, new = before[start : start + _BLOCK], after[start : start + _BLOCK]
        for place in range(old.size):
            one = np.float64(_number(old[place]))
            other = np.float64(_number(new[place]))
            both = (one != 0) & (other != 0)
            there[place], still[place] = one != 0, other != 0
            nonzero += one != 0
            left += other != 0
            surviving += both
            # NaN alone is not equal to itself.
            changed += both & (one != other) & ((one == one) | (other == other))
            square_before += one * one
            square_after += other * other
            if both:
                square += one * one
                change += (other - one) * (other - one)
                product += one * other
        for side in range(len(patterns)):
            eights = flags[side].view(np.uint64)
            for place in range(old.size // 8):
                patterns[side, np.int64((eights[place] * _GATHER) >> np.uint64(56))] += 1
    return (
        nonzero, left, surviving, changed,
        square, change, product, square_before, square_after,
    )  # fmt: skip
