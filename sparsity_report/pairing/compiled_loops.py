"""Comparison of values in a loop that numba compiles, each value read once.

The loop releases Python's lock. It is that of :mod:`value_loops` where numba is installed.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import overload

Values = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]
Patterns = npt.NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., object])

# Values compared at a time, a multiple of eight.
_BLOCK = 2**12
# Gathers the lowest bits of eight bytes in the highest byte.
_GATHER = np.uint64(0x0102040810204080)

# Compiles a function on its first call with each dtype. Sums may be reordered; NaN and infinity
# keep their meaning.
_compiled: Callable[[F], F] = numba.njit(nogil=True, fastmath={"contract", "nsz", "reassoc"})


def _number(element: Any) -> Any:
    """Return the value of an element; compiled, it is one of the next three functions."""
    return element


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
def compare(
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
def _add_patterns(flags: npt.NDArray[np.uint8], groups: int, patterns: Patterns) -> None:
    eights = flags.view(np.uint64)
    for place in range(groups):
        patterns[np.int64((eights[place] * _GATHER) >> np.uint64(56))] += 1
