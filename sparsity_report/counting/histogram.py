"""Nonzeros of a tensor, the histogram of its magnitudes, quantization steps and moments.

A bucket is the top 16 bits of a magnitude as float32, which is a bfloat16 number. The histogram
of a tensor of 8 or 16 bits is therefore lossless. For wider dtypes a bucket is 2⁻⁷ (0.8 %)
wide, and :func:`refine_slices` reads the exact magnitudes in one of them.

A weight of a centered Gaussian with deviation σ, rounded to levels a step s apart, becomes zero
with probability ``erf(s / (2·σ·√2))``. Rounding to few bits therefore creates zeros without
pruning. A format without a zero level keeps no zeros.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.matrix_counts import narrow_magnitudes
from sparsity_report.counting.workers import work_through
from sparsity_report.sparse.cost import value_bytes
from sparsity_report.weights.array_dtypes import array_dtype, dtype_name
from sparsity_report.weights.tensor_slices import Rounding, Slice

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Values = npt.NDArray[Any]

BUCKETS = 2**15
# Values per chunk: enough to outweigh the bins and the handover of Python's lock.
_CHUNK = 2**20
# Values converted to double at a time, so that they stay in the processor's cache.
_RUN = 2**15
_TOP_HALF = 1 if sys.byteorder == "little" else 0
_NO_SIGN, _INFINITE = np.int16(0x7FFF), 0x7F80
_LEAST_SQUARE = sys.float_info.min / sys.float_info.epsilon


@dataclass(frozen=True, eq=False, slots=True)
class Steps:
    """Quantization steps of a packed tensor, in buckets of their top 16 bits.

    Attributes
    ----------
    rounding : Rounding
    values : numpy.ndarray of float64
        Middles of the buckets, which are 0.8 % wide.
    counts : numpy.ndarray of int64
        Values of the tensor with each step.
    near : int
        Values within half a step of zero; counted only if zero is not a level.
    """

    rounding: Rounding
    values: Floats
    counts: Integers
    near: int = 0

    def expected_zeros(self, deviation: float) -> float:
        """Return the expected number of values of a centered Gaussian that are rounded to zero.

        If zero is not a level, return those within half a step of it.

        Examples
        --------
        With levels two deviations apart, 68 % of the values are within one deviation:

        >>> steps = Steps(Rounding(), np.array([2.0]), np.array([100]))
        >>> round(steps.expected_zeros(1.0), 1)
        68.3
        """
        scaled = self.values / (deviation * math.sqrt(2))
        sides = (self.rounding.below * scaled, self.rounding.above * scaled)
        near = sum(np.array([math.erf(limit) for limit in side.tolist()]) for side in sides)
        return float(near / 2 @ self.counts)

    def merged(self, other: Steps | None) -> Steps | None:
        """Return the steps of both tensors; None if one is unknown or their roundings differ."""
        if other is None or self.rounding != other.rounding:
            return None
        sums = merge_counts([(self.values, self.counts), (other.values, other.counts)])
        return Steps(self.rounding, *sums, self.near + other.near)


def merge_counts(pairs: Sequence[tuple[Floats, Integers]]) -> tuple[Floats, Integers]:
    """Add up counts per value, given values and their counts."""
    pairs = [pair for pair in pairs if pair[0].size] or [(np.empty(0), np.empty(0, dtype=np.int64))]
    if len(pairs) == 1:
        return pairs[0]
    values, positions = np.unique(np.concatenate([v for v, _ in pairs]), return_inverse=True)
    # Counts up to 2⁵³ are exact in the float64 that NumPy adds weights in.
    counts = np.bincount(positions, np.concatenate([c for _, c in pairs])).astype(np.int64)
    return values, counts


class StepCounter(Slice):
    """A slice that tallies its quantization steps while its values are read."""

    def __init__(self, part: Slice, rounding: Rounding) -> None:
        super().__init__(part.total, part.dtype)
        self._part, self._rounding = part, rounding
        self._tally, self._near = np.zeros(2**15, dtype=np.int64), 0

    def pieces(self) -> Iterator[Values]:
        """Yield the values and tally their steps; iterate once only."""
        for values, steps in self._part.rounded():
            codes = steps.reshape(-1).view(np.uint32) >> np.uint32(16)
            each = values.size // steps.size
            self._tally += each * np.bincount(codes, minlength=self._tally.size)
            if not self._rounding.has_zero:
                blocks = np.abs(values).reshape(steps.size, each)
                self._near += int(np.count_nonzero(blocks <= steps.reshape(-1, 1) / 2))
            yield values

    def steps(self) -> Steps:
        """Return the steps of the values read so far."""
        present = np.flatnonzero(self._tally)
        # The bucket of infinity has no middle.
        middle = np.minimum((present << 16) + 2**15, 0xFF << 23).astype(np.uint32)
        middles = middle.view(np.float32).astype(np.float64)
        return Steps(self._rounding, middles, self._tally[present], self._near)


@dataclass(frozen=True, eq=False, slots=True)
class Magnitudes:
    """Counts of one tensor.

    Attributes
    ----------
    total, nonzero : int
        Elements, and elements other than +0 and −0 (NaN is not zero).
    nan : int
        Elements that are NaN, which are in no bucket.
    values : numpy.ndarray of float64
        Smallest magnitude of each bucket with elements, ascending.
    counts : numpy.ndarray of int64
        Elements of each bucket.
    exact : bool
        True if each bucket holds a single magnitude, which is then its entry in `values`.
    steps : Steps or None
        Quantization steps of packed values, if known.
    """

    total: int
    nonzero: int
    nan: int = 0
    values: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    counts: Integers = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    exact: bool = True
    steps: Steps | None = None

    def __add__(self, other: Magnitudes) -> Magnitudes:
        """Return the sum of both counts."""
        if not self.total:
            return other
        values, counts = merge_counts([(self.values, self.counts), (other.values, other.counts)])
        sums = self.total + other.total, self.nonzero + other.nonzero, self.nan + other.nan
        steps = self.steps and self.steps.merged(other.steps)
        return Magnitudes(*sums, values, counts, self.exact and other.exact, steps)

    @property
    def infinite(self) -> int:
        """Infinite elements, and float64 elements beyond the range of float32."""
        return int(self.counts[-1]) if self.values.size and self.values[-1] == math.inf else 0

    @property
    def root_mean_square(self) -> float:
        """Root mean square of the values at the middles of their buckets."""
        if self.infinite:
            return math.inf
        above = slice(int(self.values.searchsorted(0, side="right")), None)
        middles = self.values[above]
        if not self.exact:
            middles = (middles + smallest_of(bucket_of(middles) + 1)) / 2
        squares = np.square(middles) @ self.counts[above]
        if not squares:  # nonzero values are too small for a bucket
            return math.nan if self.nonzero else 0.0
        return float(np.sqrt(squares / self.total))


def bucket_of(values: Floats) -> Integers:
    """Return the bucket number (top 16 bits as float32) of magnitudes."""
    return _codes(_single(values)).astype(np.int64)


def smallest_of(buckets: Integers) -> Floats:
    """Return the smallest magnitude of each bucket; NaN past the bucket of infinity."""
    with np.errstate(invalid="ignore"):
        return (buckets.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def count_slices(slices: Mapping[str, Iterable[Slice]]) -> dict[str, Magnitudes]:
    """Count several tensors, each given as slices.

    Examples
    --------
    >>> from sparsity_report.weights.tensor_slices import memory_slices
    >>> values = np.array([0.5, -0.5, 0.0, 2.0], dtype=np.float16)
    >>> tally = count_slices({"w": memory_slices(values)})["w"]
    >>> tally.nonzero, tally.values.tolist(), tally.counts.tolist()
    (3, [0.0, 0.5, 2.0], [1, 2, 1])
    """
    counts = work_through(slices, partial(count_slice, histogram=True), None)
    return {name: sum(parts, Magnitudes(0, 0)) for name, parts in counts.items()}


def refine_slices(
    slices: Mapping[str, Iterable[Slice]], bucket: int, executor: Executor | None = None
) -> dict[str, tuple[Floats, Integers]]:
    """Return the distinct magnitudes in a bucket of tensors, with counts.

    Examples
    --------
    >>> from sparsity_report.weights.tensor_slices import memory_slices
    >>> number = int(bucket_of(np.array([1.0]))[0])
    >>> several = {"w": memory_slices(np.array([1.0, -1.0, 1.001, 2.0]))}
    >>> values, counts = refine_slices(several, number)["w"]
    >>> values.round(3).tolist(), counts.tolist()
    ([1.0, 1.001], [2, 1])
    """
    pairs = work_through(slices, partial(_refine_slice, bucket=bucket), executor)
    return {name: merge_counts(several) for name, several in pairs.items()}


def count_slice(part: Slice, histogram: bool) -> Magnitudes:
    """Count one slice, with or without a histogram of its magnitudes."""
    if not histogram:
        nonzero = sum(int(np.count_nonzero(nonzero_flags(chunk))) for chunk in _chunks(part))
        return Magnitudes(part.total, nonzero)
    counter = StepCounter(part, part.rounding) if part.rounding else None
    exact, tally, tiny = is_exact(part), np.zeros(2**16, dtype=np.int64), 0
    for chunk in _chunks(counter or part):
        added = _bincount(_numbers(chunk, exact))
        tally[: added.size] += added
        if not exact and added[0]:  # the first bucket holds tiny values besides zeros
            tiny += int(added[0]) - int(np.count_nonzero(_real(chunk) == 0))
    magnitudes, buckets = _meaning(part.dtype if exact else "")
    counts = np.bincount(buckets, tally[: buckets.size]).astype(np.int64)
    is_nan = np.isnan(magnitudes)
    kept, nan = np.flatnonzero(counts * ~is_nan), int(counts[is_nan].sum())
    steps = counter.steps() if counter else None
    pair = magnitudes[kept], counts[kept]
    zeros = int(counts[0]) - tiny
    return Magnitudes(part.total, part.total - zeros, nan, *pair, exact, steps)


def is_exact(part: Slice) -> bool:
    """Return whether the histogram of a slice is lossless."""
    return part.rounding is None and value_bytes(part.dtype) <= 2


@dataclass(slots=True)
class Moments:
    """Sums in double precision over the values added so far.

    Examples
    --------
    >>> sums = Moments()
    >>> sums.add(np.array([3.0, -3.0]))
    >>> sums.add(np.array([[1.0], [-1.0]]))
    >>> sums.mean_abs, sums.std, sums.least_abs
    (2.0, 2.23606797749979, 1.0)

    Attributes
    ----------
    least_abs : float
        Smallest nonzero magnitude; infinite if there is none.
    pairs, equal : int
        Neighbors in the order of storage that are both nonzero, and those of equal magnitude.
    """

    count: int = 0
    total: float = 0.0
    absolute: float = 0.0
    squares: float = 0.0
    least_abs: float = math.inf
    pairs: int = 0
    equal: int = 0

    def add(self, array: Values) -> None:
        """Add the values of an array."""
        for run in split(array.reshape(-1), _RUN):
            values = run.astype(np.float64)
            self.count += values.size
            with np.errstate(invalid="ignore", over="ignore"):
                self.total += float(values.sum())
                sizes = np.abs(values)
                self.absolute += float(sizes.sum())
                nonzero = sizes > 0
                least = sizes.min(where=nonzero, initial=math.inf)
                self.least_abs = min(self.least_abs, float(least))
                self.squares += float(np.square(values).sum())
            self.pairs += int(np.count_nonzero(nonzero[1:] & nonzero[:-1]))
            self.equal += int(np.count_nonzero((sizes[1:] == sizes[:-1]) & nonzero[1:]))

    @property
    def mean_abs(self) -> float:
        """Mean magnitude; not finite if a value is not."""
        return self.absolute / self.count if self.count else 0.0

    @property
    def std(self) -> float:
        """Population standard deviation; not finite if a value is not, or its square unknown."""
        if not self.absolute:
            return 0.0
        mean, square = self.total / self.count, self.squares / self.count
        # Squares of smaller values lose digits in double precision.
        return math.sqrt(max(square - mean * mean, 0.0)) if square > _LEAST_SQUARE else math.nan


def count_together(arrays: Sequence[Values], histogram: bool) -> Iterator[Magnitudes]:
    """Yield the counts of small arrays of one floating-point dtype, with few calls for all."""
    values, sizes = np.concatenate([a.reshape(-1) for a in arrays]), [a.size for a in arrays]
    starts = np.cumsum([0, *sizes[:-1]])
    nonzeros = np.add.reduceat(nonzero_flags(values), starts, dtype=np.int64).tolist()
    if not histogram:
        yield from map(Magnitudes, sizes, nonzeros)
        return
    exact = values.itemsize <= 2
    magnitudes, buckets = _meaning(dtype_name(values.dtype) if exact else "")
    codes = buckets[_numbers(values, exact)]
    owners = np.repeat(np.arange(len(sizes)) * BUCKETS, sizes)
    present, counts = np.unique(owners + codes, return_counts=True)
    smallest = magnitudes[present % BUCKETS]
    edges = np.searchsorted(present, np.arange(len(sizes) + 1) * BUCKETS).tolist()
    for total, nonzero, start, stop in zip(sizes, nonzeros, edges, edges[1:], strict=False):
        nan = int(counts[stop - 1]) if np.isnan(smallest[stop - 1]) else 0
        inside = slice(start, stop - bool(nan))
        yield Magnitudes(total, nonzero, nan, smallest[inside], counts[inside], exact)


def _bincount(numbers: Values) -> Integers:
    """Count equal numbers; torch's loop, where torch is loaded, releases Python's lock."""
    if bincount := getattr(sys.modules.get("torch"), "bincount", None):
        tally: Integers = bincount(sys.modules["torch"].from_numpy(numbers), minlength=1).numpy()
        return tally
    return np.bincount(numbers, minlength=1)


def _numbers(chunk: Values, exact: bool) -> Values:
    """Return the number of the bit pattern of each value, or of its bucket if not `exact`."""
    if not exact:
        single = _single(_real(chunk))
        codes = _codes(single)
        # The top half of a NaN can equal that of infinity.
        if codes.size and codes.max() >= _INFINITE:
            codes[np.isnan(single)] = _NO_SIGN
        return codes
    if chunk.itemsize == 1:
        return chunk.view(np.uint8)
    if chunk.dtype.kind in "iu":
        return chunk.view(np.uint16).astype(np.int32)
    return chunk.view(np.int16) & _NO_SIGN


def _refine_slice(part: Slice, bucket: int) -> tuple[Floats, Integers]:
    pairs = []
    for chunk in _chunks(part):
        values = _real(chunk)
        inside = np.abs(values[_codes(_single(values)) == bucket].astype(np.float64))
        pairs.append(np.unique(inside[~np.isnan(inside)], return_counts=True))
    return merge_counts(pairs)


@lru_cache(maxsize=16)
def _meaning(dtype: str) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Return the magnitudes of a narrow dtype, NaN last, and the index of each bit pattern.

    Without a dtype, return the smallest magnitudes of buckets, and the index of each bucket.
    """
    if not dtype:
        buckets = np.minimum(np.arange(BUCKETS), _INFINITE + 1)
        return smallest_of(np.arange(_INFINITE + 2)), buckets
    bits = 8 * value_bytes(dtype)
    patterns = np.arange(2**bits, dtype=np.uint8 if bits == 8 else np.uint16)
    numbers = (patterns != 0) if dtype == "bool" else patterns.view(array_dtype(dtype))
    with np.errstate(invalid="ignore"):
        return np.unique(np.abs(numbers.astype(np.float64)), return_inverse=True)


def _chunks(part: Slice) -> Iterator[Values]:
    for piece in part.pieces():
        yield from split(piece, _CHUNK)


def split(array: Values, size: int) -> Iterator[Values]:
    """Yield views of at most `size` rows of an array, in order."""
    return (array[start : start + size] for start in range(0, len(array), size))


def nonzero_flags(values: Values) -> npt.NDArray[np.bool_]:
    """Return whether each value of an array is not zero."""
    numbers = narrow_magnitudes(values) if values.itemsize <= 2 else values
    flags: npt.NDArray[np.bool_] = numbers != 0
    return flags


def _real(chunk: Values) -> Values:
    return np.abs(chunk) if np.iscomplexobj(chunk) else chunk


def _single(values: Values) -> npt.NDArray[np.float32]:
    """Return values as float32; rounding keeps their order."""
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(np.float32, copy=False)


def _codes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Return the top 16 bits without the sign."""
    codes = values.view(np.int16)[_TOP_HALF::2].copy()
    codes &= _NO_SIGN
    return codes
