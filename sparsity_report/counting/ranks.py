"""Where a rank falls: exact thresholds and ties of several tensors from their histograms alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from sparsity_report.counting.histogram import (
    Floats,
    Integers,
    Magnitudes,
    bucket_of,
    refine_slices,
    smallest_of,
)
from sparsity_report.weights.tensors import Slice

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, eq=False)
class Level:
    """What the smallest `target` magnitudes of several tensors are.

    Attributes
    ----------
    target : int
        How many magnitudes are meant.
    bucket : int
        Number of the bucket that holds the last of them.
    threshold : float
        Magnitude of the last of them; where not `exact`, the smallest its bucket can hold.
    below, ties : numpy.ndarray of int64
        Per tensor: how many lie below the threshold (below its bucket, where not `exact`), and
        how many on it (in it), the first by order of tensors and position.
    slack : numpy.ndarray of int64
        By how much ``below + ties`` of a tensor may be off; their sum is always `target`.
    exact : bool
        Whether the threshold is a magnitude, not a bucket.
    """

    target: int
    bucket: int
    threshold: float
    below: Integers
    ties: Integers
    slack: Integers
    exact: bool


def select(counts: Mapping[str, Magnitudes], targets: Iterable[int]) -> Iterator[Level]:
    """Find the smallest magnitudes of all tensors together, for ascending targets.

    Parameters
    ----------
    counts : mapping of str to Magnitudes
        In the order that breaks ties.
    targets : iterable of int
        How many magnitudes are meant, each from 1 to all.

    Examples
    --------
    >>> from sparsity_report.counting.histogram import count
    >>> import torch
    >>> half = torch.tensor([1.0, 2.0, 2.0, 3.0], dtype=torch.float16)
    >>> (level,) = select({"a": count(half), "b": count(half)}, [5])
    >>> level.threshold, level.below.tolist(), level.ties.tolist()
    (2.0, [1, 1], [2, 1])
    """
    tensors = list(counts.values())
    owner, value, many = _flat([(tensor.values, tensor.counts) for tensor in tensors])
    number = bucket_of(value)
    order = np.argsort(number.astype(np.uint16), kind="stable")
    owner, value, many, number = owner[order], value[order], many[order], number[order]
    coarse = ~np.array([tensor.exact for tensor in tensors])
    zeros = np.array([tensor.total - tensor.nonzero for tensor in tensors], dtype=np.int64)
    reached = np.cumsum(many)
    before = np.zeros(len(tensors), dtype=np.int64)
    done = 0
    for target in sorted(targets):
        bucket = int(number[np.searchsorted(reached, target)])
        start, stop = (int(i) for i in np.searchsorted(number, [bucket, bucket + 1]))
        before = before + _sums(owner[done:start], many[done:start], len(tensors))
        done = start
        inside = slice(start, stop)
        if not coarse[owner[inside]].any():
            yield _exactly(target, bucket, before, owner[inside], value[inside], many[inside])
            continue
        # Zeros, which only the first bucket holds, are known and go first.
        sure = zeros if bucket == 0 else np.zeros_like(zeros)
        on = _sums(owner[inside], many[inside], len(tensors)) - sure
        rank = target - int(before.sum()) - int(sure.sum())
        if rank <= 0:
            first = _first(zeros, target)
            yield Level(target, bucket, 0.0, before, first, np.zeros_like(zeros), exact=True)
            continue
        ties = share_out(on, rank)
        least, most = np.maximum(rank - (on.sum() - on), 0), np.minimum(on, rank)
        slack = np.maximum(ties - least, most - ties)
        yield Level(target, bucket, float(value[start]), before, sure + ties, slack, exact=False)


def share_out(on: Integers, rank: int) -> Integers:
    """Say how many of each tensor are among the first `rank` of a bucket, by how many are in it.

    As if every tensor's stood evenly in the bucket: of `on`, ``⌊on·x + offset⌋`` lie in its first
    part x. So no tensor's share falls as the rank rises, which rounding shares does not promise.
    The offsets, of the golden ratio, keep tensors with few from all standing at one place.

    Returns
    -------
    numpy.ndarray of int64
        From 0 to `on`; their sum is `rank`.

    Examples
    --------
    >>> [share_out(np.array([1, 1, 6]), rank).tolist() for rank in (2, 4, 6, 8)]
    [[0, 0, 2], [0, 1, 3], [0, 1, 5], [1, 1, 6]]
    """
    there = np.flatnonzero(on)
    many, total = on[there], int(on.sum())
    offsets = there * _GOLDEN % 1

    def shares(place: int) -> Integers:
        return np.floor(many * (place / total) + offsets).astype(np.int64)

    # The sum at a place is off by less than one per tensor.
    least, most = max(rank - there.size, 0), min(rank + there.size, total)
    place = bisect_left(range(most), rank, least, key=lambda place: int(shares(place).sum()))
    before, after = shares(place - 1), shares(place)
    ties = np.zeros_like(on)
    ties[there] = before + _first(after - before, rank - int(before.sum()))
    return ties


def settle(level: Level, magnitudes: Sequence[tuple[Floats, Integers]]) -> Level:
    """Make a level exact by the magnitudes that :func:`look_into` returned."""
    owner, value, many = _flat(magnitudes)
    inside = bucket_of(value) == level.bucket
    return _exactly(
        level.target, level.bucket, level.below, owner[inside], value[inside], many[inside]
    )


def look_into(
    counts: Mapping[str, Magnitudes],
    slices: Callable[[str], Iterable[Slice]],
    first: int,
    last: int,
    executor: Executor | None = None,
) -> list[tuple[Floats, Integers]]:
    """Return the magnitudes in the buckets `first` … `last` and their counts, tensor by tensor.

    Those of wide tensors are read once more.
    """
    pairs = {}
    inexact = {}
    # The values of a histogram are float32 numbers, so the edges of buckets can be compared.
    edges = smallest_of(np.array([first, last + 1]))
    for name, magnitudes in counts.items():
        start, stop = np.searchsorted(magnitudes.values, edges)
        pairs[name] = (magnitudes.values[start:stop], magnitudes.counts[start:stop])
        if not magnitudes.exact and start < stop:
            inexact[name] = slices(name)
    pairs |= refine_slices(inexact, first, last, executor)
    return list(pairs.values())


def _exactly(
    target: int, bucket: int, before: Integers, owner: Integers, value: Floats, many: Integers
) -> Level:
    """Find the threshold among the magnitudes of one bucket."""
    ascending = np.argsort(value)
    rank = target - int(before.sum())
    last = ascending[np.searchsorted(np.cumsum(many[ascending]), rank)]
    threshold = float(value[last])
    smaller, equal = value < threshold, value == threshold
    below = before + _sums(owner[smaller], many[smaller], before.size)
    on = _sums(owner[equal], many[equal], before.size)
    ties = _first(on, target - int(below.sum()))
    return Level(target, bucket, threshold, below, ties, np.zeros_like(on), exact=True)


def _first(many: Integers, rank: int) -> Integers:
    """Say how many of each tensor are among the first `rank`, one tensor after the other."""
    first: Integers = np.clip(rank - (np.cumsum(many) - many), 0, many)
    return first


def _flat(pairs: Sequence[tuple[Floats, Integers]]) -> tuple[Integers, Floats, Integers]:
    """Put the values and counts of tensors into one array each, led by whose they are."""
    owner = np.repeat(np.arange(len(pairs)), [values.size for values, _ in pairs])
    values, counts = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return owner, values, counts


def _sums(owner: Integers, many: Integers, tensors: int) -> Integers:
    # Integers up to 2⁵³ are exact in the float64 that NumPy adds weights in.
    return np.bincount(owner, many, tensors).astype(np.int64)
