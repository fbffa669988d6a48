"""Thresholds and ties at a rank among the magnitudes of several tensors, from histograms."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from sparsity_report.counting import histogram
from sparsity_report.counting.histogram import Floats, Integers, Magnitudes, bucket_of
from sparsity_report.weights.tensor_slices import Slice

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, eq=False)
class Level:
    """The smallest `target` magnitudes of several tensors.

    Attributes
    ----------
    target : int
        Number of magnitudes.
    bucket : int
        Number of the bucket that holds the last of them.
    threshold : float
        Magnitude of the last of them; if not `exact`, the lower edge of its bucket.
    below, ties : numpy.ndarray of int64
        Per tensor: magnitudes below the threshold (below its bucket, if not `exact`), and
        magnitudes on it (in it), the first by order of tensors and position.
    on : numpy.ndarray of int64
        Per tensor: all magnitudes on the threshold (in its bucket, if not `exact`).
    slack : numpy.ndarray of int64
        Possible error of ``below + ties`` per tensor; their sum is always `target`.
    exact : bool
        True if the threshold is a magnitude, False if it is the edge of a bucket.
    """

    target: int
    bucket: int
    threshold: float
    below: Integers
    ties: Integers
    on: Integers
    slack: Integers
    exact: bool


def find_levels(counts: Mapping[str, Magnitudes], targets: Iterable[int]) -> Iterator[Level]:
    """Find the smallest magnitudes of all tensors together, for ascending targets.

    Parameters
    ----------
    counts : mapping of str to Magnitudes
        In the order that breaks ties.
    targets : iterable of int
        Numbers of magnitudes, each from 1 to all.

    Examples
    --------
    >>> half = Magnitudes(4, 4, 0, np.array([1.0, 2.0, 3.0]), np.array([1, 2, 1]))
    >>> (level,) = find_levels({"a": half, "b": half}, [5])
    >>> level.threshold, level.below.tolist(), level.ties.tolist()
    (2.0, [1, 1], [2, 1])
    """
    tensors = list(counts.values())
    owner, value, many = _flat([(tensor.values, tensor.counts) for tensor in tensors])
    order = np.argsort(bucket_of(value).astype(np.uint16), kind="stable")
    owner, value, many = owner[order], value[order], many[order]
    number, reached = bucket_of(value), np.cumsum(many)
    edges = histogram.smallest_of(number)
    coarse = ~np.array([tensor.exact for tensor in tensors])
    zeros = np.array([tensor.total - tensor.nonzero for tensor in tensors], dtype=np.int64)
    before, done = np.zeros_like(zeros), 0
    for target in sorted(targets):
        bucket = int(number[np.searchsorted(reached, target)])
        start, stop = (int(i) for i in np.searchsorted(number, [bucket, bucket + 1]))
        before = before + _sums(owner[done:start], many[done:start], zeros.size)
        done = start
        inside = owner[start:stop], value[start:stop], many[start:stop]
        if coarse[inside[0]].any():
            on = _sums(inside[0], inside[2], zeros.size)
            yield _roughly(target, bucket, float(edges[start]), before, zeros, on)
        else:
            yield _exactly(target, bucket, before, *inside)


def _roughly(
    target: int, bucket: int, edge: float, before: Integers, zeros: Integers, on: Integers
) -> Level:
    """Return the level in a bucket from `edge` on that holds `on` magnitudes of each tensor."""
    # The zeros in the first bucket are known and come first.
    sure = zeros if bucket == 0 else np.zeros_like(zeros)
    on = on - sure
    rank = target - int(before.sum()) - int(sure.sum())
    if rank <= 0:
        first = _first(zeros, target)
        return Level(target, bucket, 0.0, before, first, zeros, np.zeros_like(zeros), exact=True)
    ties = apportion(on, rank)
    least, most = np.maximum(rank - (on.sum() - on), 0), np.minimum(on, rank)
    slack = np.maximum(ties - least, most - ties)
    return Level(target, bucket, edge, before, sure + ties, sure + on, slack, exact=False)


def apportion(on: Integers, rank: int) -> Integers:
    """Estimate the magnitudes of each tensor among the first `rank` of a bucket.

    The estimate assumes that the magnitudes of a tensor are evenly spread in the bucket: of `on`,
    ``⌊on·x + offset⌋`` are in its first part x. No estimate falls as the rank rises. Offsets by
    the golden ratio keep the magnitudes of small tensors apart.

    Parameters
    ----------
    on : numpy.ndarray of int64
        Magnitudes of each tensor in the bucket.
    rank : int

    Returns
    -------
    numpy.ndarray of int64
        From 0 to `on`; their sum is `rank`.

    Examples
    --------
    >>> [apportion(np.array([1, 1, 6]), rank).tolist() for rank in (2, 4, 6, 8)]
    [[0, 0, 2], [0, 1, 3], [0, 1, 5], [1, 1, 6]]
    """
    there = np.flatnonzero(on)
    many, total = on[there], int(on.sum())
    offsets = there * _GOLDEN % 1

    def shares(place: int) -> Integers:
        return np.floor(many * (place / total) + offsets).astype(np.int64)

    # The sum at a place differs from it by less than one per tensor.
    least, most = max(rank - there.size, 0), min(rank + there.size, total)
    place = bisect_left(range(most), rank, least, key=lambda place: int(shares(place).sum()))
    before, after = shares(place - 1), shares(place)
    ties = np.zeros_like(on)
    ties[there] = before + _first(after - before, rank - int(before.sum()))
    return ties


def refine_level(
    level: Level,
    counts: Mapping[str, Magnitudes],
    slices: Callable[[str], Iterable[Slice]],
    executor: Executor | None = None,
) -> Level:
    """Return the exact level; tensors of wide dtypes are read once more."""
    pairs, inexact = {}, {}
    # The values of a histogram are float32 numbers, so the edges of buckets can be compared.
    edges = histogram.smallest_of(np.array([level.bucket, level.bucket + 1]))
    for name, magnitudes in counts.items():
        start, stop = magnitudes.values.searchsorted(edges)
        pairs[name] = magnitudes.values[start:stop], magnitudes.counts[start:stop]
        if not magnitudes.exact and start < stop:
            inexact[name] = slices(name)
    pairs |= histogram.refine_slices(inexact, level.bucket, executor)
    return _exactly(level.target, level.bucket, level.below, *_flat([*pairs.values()]))


def _exactly(
    target: int, bucket: int, before: Integers, owner: Integers, value: Floats, many: Integers
) -> Level:
    """Return the level among the exact magnitudes of one bucket."""
    ascending = np.argsort(value)
    rank = target - int(before.sum())
    last = ascending[np.searchsorted(np.cumsum(many[ascending]), rank)]
    threshold = float(value[last])
    smaller, equal = value < threshold, value == threshold
    below = before + _sums(owner[smaller], many[smaller], before.size)
    on = _sums(owner[equal], many[equal], before.size)
    ties = _first(on, target - int(below.sum()))
    return Level(target, bucket, threshold, below, ties, on, np.zeros_like(on), exact=True)


def _first(many: Integers, rank: int) -> Integers:
    """Return the number from each tensor among the first `rank`, tensor after tensor."""
    first: Integers = np.clip(rank - (np.cumsum(many) - many), 0, many)
    return first


def _flat(pairs: Sequence[tuple[Floats, Integers]]) -> tuple[Integers, Floats, Integers]:
    """Concatenate the values and counts of tensors; return tensor numbers, values and counts."""
    owner = np.repeat(np.arange(len(pairs)), [values.size for values, _ in pairs])
    values, counts = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return owner, values, counts


def _sums(owner: Integers, many: Integers, tensors: int) -> Integers:
    # Integers up to 2⁵³ are exact in the float64 that NumPy adds weights in.
    return np.bincount(owner, many, tensors).astype(np.int64)
