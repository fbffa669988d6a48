"""Comparison of values in loops that numba compiles, each value read once.

NumPy would need about twenty passes over the values, and its short steps would keep threads waiting
for Python's lock. These loops release the lock.
"""

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

# Values compared at a time, a multiple of eight, and values converted to floats at a time.
_BLOCK, _MADE = 2**12, 2**16
# Dtypes whose values float32 represents exactly.
_SINGLE = {
    torch.int8, torch.uint8, torch.int16, torch.bool,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
}  # fmt: skip
# Complying groups for each N:M pattern and each pattern of nonzeros among eight weights.
_EIGHTS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
_COMPLYING = np.array([(_EIGHTS.reshape(256, -1, m).sum(2) <= n).sum(1) for n, m in KNOWN])
# Gathers the lowest bits of eight bytes in the highest byte.
_GATHER = np.uint64(0x0102040810204080)
# 16-bit dtypes that NumPy or numba lacks, as distinct integer dtypes.
_HALVES = {torch.bfloat16: np.int16, torch.float16: np.uint16}
_READ = {torch.float32, torch.float64, *_HALVES}
Values = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]
Patterns = npt.NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., object])


def _compiled(function: F) -> F:
    """Return a function that is compiled on its first call with each dtype."""
    # Sums may be reordered; NaN and infinity keep their meaning.
    compiled: F = numba.njit(nogil=True, fastmath={"contract", "nsz", "reassoc"})(function)
    return compiled


def tally_values(before: torch.Tensor, after: torch.Tensor, grouped: bool = False) -> Tally:
    """Compare values one by one.

    Parameters
    ----------
    before, after : torch.Tensor
        One-dimensional, of equal length and any dtype. NaN is not zero, and equal to NaN.
    grouped : bool
        True if the values are whole groups of eight along the input, to check N:M patterns.

    Raises
    ------
    ValueError
        The tensors differ in length or are not one-dimensional.
    SparsityReportError
        Compilation is disabled.

    Examples
    --------
    >>> sums = tally_values(torch.tensor([0.0, 0.0, 3.0, 4.0]), torch.tensor([0.0, 1.0, 0.0, 5.0]))
    >>> sums.kept, sums.revived, sums.new, sums.changed, sums.relative_change, sums.iou
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


def count_values(values: torch.Tensor, *, before: bool, grouped: bool = False) -> Tally:
    """Count the weights of one model; raise the errors of :func:`tally_values`.

    Examples
    --------
    >>> count_values(torch.tensor([0.0, 2.0]), before=True).zeros_before
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
def compile_for(*dtypes: torch.dtype) -> None:
    """Compile the loops that compare values of two dtypes, or count values of one.

    Call this before threads or processes start: a process that is forked while a thread compiles
    would wait forever.
    """
    first, *second = (torch.empty(1, dtype=dtype) for dtype in dtypes)
    if second:
        tally_values(first, second[0])
    else:
        count_values(first, before=True)


def _complying(patterns: Patterns) -> tuple[int, ...]:
    return tuple((_COMPLYING @ patterns).tolist())


def _readable(*sides: torch.Tensor) -> Iterator[list[Values]]:
    """Yield arrays that :func:`_number` reads, in chunks if the dtype must be converted."""
    if len({side.shape for side in sides}) > 1 or sides[0].dim() != 1:
        shapes = " and ".join(str(tuple(side.shape)) for side in sides)
        raise ValueError(f"shapes {shapes} are not one-dimensional and equal")
    size = len(sides[0])
    step = size if all(side.dtype in _READ for side in sides) else _MADE
    for start in range(0, size, step):
        yield [_read(side.detach()[start : start + step]) for side in sides]


def _read(side: torch.Tensor) -> Values:
    """Return values as float32 or float64, or the bits of 16-bit floats."""
    values = side.resolve_neg().contiguous()
    if values.dtype in _HALVES:
        bits: Values = values.view(torch.int16).numpy().view(_HALVES[values.dtype])
        return bits
    if values.dtype not in _READ:
        values = values.to(torch.float32 if values.dtype in _SINGLE else torch.float64)
    return values.numpy()


def _number(element: Any) -> Any:  # noqa: ARG001
    """Return the value of an element; compiled, it is one of the next three functions."""
    raise SparsityReportError(
        "comparing models needs compiled loops, and numba may not compile; unset NUMBA_DISABLE_JIT"
    )


def _itself(element: Any) -> Any:
    return element


def _of_bfloat16(element: Any) -> Any:
    # The upper half of a float32.
    return np.int32(np.int32(element) << 16).view(np.float32)


def _of_float16(element: Any) -> Any:
    # The bias of an exponent of 5 bits is smaller by 112 than that of 8 bits.
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

    Count the patterns of nonzeros among eight weights, a bit each, in `patterns` of shape (2, 256),
    one row per side; with shape (0, 256), count none.
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
    """Return nonzeros; count patterns, of shape (1, 256) or (0, 256), like :func:`_compare`."""
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
