"""Values compared one by one, in loops that numba compiles: each is looked at once.

NumPy would pass over them some twenty times, in steps of microseconds for which threads would
mostly wait; these loops let other threads run from their beginning to their end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import types
from numba.extending import overload

from sparsity_report.counting.n_m_patterns import KNOWN
from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.tally import NO_GROUPS, Tally

# Values that are compared at a time, whole groups, and those that are made floats at a time.
_BLOCK, _MADE = 2**12, 2**16
# What float32 holds all values of.
_SINGLE = {
    torch.int8, torch.uint8, torch.int16, torch.bool,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
}  # fmt: skip
# Of eight weights, a bit each, how many groups comply with each N:M.
_EIGHTS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
_COMPLYING = np.array([(_EIGHTS.reshape(256, -1, m).sum(2) <= n).sum(1) for n, m in KNOWN])
# Gathers the lowest bits of eight bytes in the highest byte.
_GATHER = np.uint64(0x0102040810204080)
# Halves that NumPy or numba lacks, as integers by which they are told apart.
_HALVES = {torch.bfloat16: np.int16, torch.float16: np.uint16}
_READ = {torch.float32, torch.float64, *_HALVES}
Values = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]
Patterns = npt.NDArray[np.int64]
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

    Raises
    ------
    ValueError
        They are of different lengths, or not one-dimensional.
    SparsityReportError
        Nothing may be compiled.

    Examples
    --------
    >>> found = tally(torch.tensor([0.0, 0.0, 3.0, 4.0]), torch.tensor([0.0, 1.0, 0.0, 5.0]))
    >>> found.kept, found.revived, found.new, found.changed, found.relative_change, found.iou
    (1, 1, 1, 1, 0.25, 0.3333333333333333)
    """
    patterns = np.zeros((2 * grouped, 256), dtype=np.int64)
    rows = [_compare(one, other, patterns) for one, other in _readable(before, after)]
    if not rows:
        return Tally()
    nonzero, left, surviving, changed, *sums = map(sum, zip(*rows, strict=True))
    square, change, product, square_before, square_after = sums
    groups = [_complying(side) for side in patterns] or [NO_GROUPS, NO_GROUPS]
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
    """Count weights that stand in one of the models only; it raises what :func:`tally` does.

    Examples
    --------
    >>> alone(torch.tensor([0.0, 2.0]), before=True).zeros_before
    1
    """
    patterns = np.zeros((int(grouped), 256), dtype=np.int64)
    n = values.numel()
    zeros = n - sum(_count(some, patterns) for (some,) in _readable(values))
    groups = _complying(patterns[0]) if grouped else NO_GROUPS
    if before:
        return Tally(
            total_before=n, zeros_before=zeros, groups_before=groups, grouped_before=n * grouped
        )
    return Tally(total_after=n, zeros_after=zeros, groups_after=groups, grouped_after=n * grouped)


@cache
def make_ready(*dtypes: torch.dtype) -> None:
    """Compile what compares values of two dtypes, or counts those of one.

    Where threads and processes share the work it is called before either is given any: a process
    that is forked while a thread compiles waits for ever.
    """
    first, *second = (torch.empty(1, dtype=dtype) for dtype in dtypes)
    if second:
        tally(first, second[0])
    else:
        alone(first, before=True)


def _complying(patterns: Patterns) -> tuple[int, ...]:
    return tuple((_COMPLYING @ patterns).tolist())


def _readable(*sides: torch.Tensor) -> Iterator[list[Values]]:
    """Yield values as what :func:`_number` reads, of other dtypes some at a time."""
    if len({side.shape for side in sides}) > 1 or sides[0].dim() != 1:
        shapes = " and ".join(str(tuple(side.shape)) for side in sides)
        raise ValueError(f"values of {shapes} are no two rows of one length")
    size = len(sides[0])
    step = size if all(side.dtype in _READ for side in sides) else _MADE
    for start in range(0, size, step):
        yield [_read(side.detach()[start : start + step]) for side in sides]


def _read(side: torch.Tensor) -> Values:
    """Return singles, doubles, or the bits of halves."""
    values = side.resolve_neg().contiguous()
    if values.dtype in _HALVES:
        bits: Values = values.view(torch.int16).numpy().view(_HALVES[values.dtype])
        return bits
    if values.dtype not in _READ:
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
def _compare(
    before: Values, after: Values, patterns: Patterns
) -> tuple[int, int, int, int, float, float, float, float, float]:
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
            differs = both & (one != other)
            there[place], still[place] = one != 0, other != 0
            nonzero += one != 0
            left += other != 0
            surviving += both
            # NaN alone is not equal to itself.
            changed += differs & ((one == one) | (other == other))
            square_before += one * one
            square_after += other * other
            if both:
                square += one * one
                product += one * other
            if differs:
                change += (other - one) * (other - one)
        for side in range(len(patterns)):
            _add_patterns(flags[side], old.size // 8, patterns[side])
    return (
        nonzero, left, surviving, changed,
        square, change, product, square_before, square_after,
    )  # fmt: skip


@_compiled
def _count(values: Values, patterns: Patterns) -> int:
    """Return nonzeros; add to `patterns`, of shape (1, 256) or (0, 256), as :func:`_compare`."""
    flags = np.empty(_BLOCK, np.uint8)
    nonzero = 0
    for start in range(0, values.size, _BLOCK):
        some = values[start : start + _BLOCK]
        for place in range(some.size):
            there = _number(some[place]) != 0
            flags[place] = there
            nonzero += there
        if len(patterns):
            _add_patterns(flags, some.size // 8, patterns[0])
    return nonzero


@_compiled
def _add_patterns(flags: npt.NDArray[np.uint8], groups: int, patterns: Patterns) -> None:
    eights = flags.view(np.uint64)
    for place in range(groups):
        patterns[np.int64((eights[place] * _GATHER) >> np.uint64(56))] += 1
