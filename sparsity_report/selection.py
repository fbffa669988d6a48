"""Where a rank falls: exact thresholds and ties of several tensors from their histograms alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from sparsity_report.magnitudes import Integers, Magnitudes, bucket_of, refine_slices
from sparsity_report.weights.slices import Slice


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


def select(
    counts: Mapping[str, Magnitudes],
    targets: Sequence[int],
    *,
    fine: bool = False,
) -> Iterator[Level]:
    """Find the `targets` smallest magnitudes of all tensors together, in ascending order.

    Parameters
    ----------
    counts : mapping of str to Magnitudes
        In the order that breaks ties.
    targets : sequence of int
        Each from 1 to the number of magnitudes.
    fine : bool
        Whether the buckets of all targets have been looked into, see :func:`look_into`.

    Examples
    --------
    >>> from sparsity_report.magnitudes import count
    >>> import torch
    >>> half = torch.tensor([1.0, 2.0, 2.0, 3.0], dtype=torch.float16)
    >>> (level,) = select({"a": count(half), "b": count(half)}, [5])
    >>> level.threshold, level.below.tolist(), level.ties.tolist()
    (2.0, [1, 1], [2, 1])
    """
    tensors = list(counts.values())
    sizes = [seen.values.size for seen in tensors]
    owner = np.repeat(np.arange(len(tensors)), sizes)
    coarse = np.repeat([not seen.exact and not fine for seen in tensors], sizes)
    value = np.concatenate([seen.values for seen in tensors])
    many = np.concatenate([seen.counts for seen in tensors])
    number = bucket_of(value)
    order = np.argsort(number.astype(np.uint16), kind="stable")
    owner, coarse, value, many, number = (a[order] for a in (owner, coarse, value, many, number))

    def per_tensor(where: slice | np.ndarray) -> Integers:
        # Integers up to 2⁵³ are exact in the float64 that NumPy adds weights in.
        return np.bincount(owner[where], many[where], len(tensors)).astype(np.int64)

    reached = np.cumsum(many)
    before = np.zeros(len(tensors), dtype=np.int64)
    done = 0
    for target in sorted(targets):
        bucket = int(number[np.searchsorted(reached, target)])
        start, stop = (int(i) for i in np.searchsorted(number, [bucket, bucket + 1]))
        before = before + per_tensor(slice(done, start))
        done = start
        rank = target - int(before.sum())
        here = slice(start, stop)
        on = per_tensor(here)
        if coarse[here].any():
            # Each tensor loses its share of the bucket; whole numbers that add up to the rank.
            ties = np.diff(np.cumsum(on) * rank // on.sum(), prepend=0)
            least, most = np.maximum(rank - (on.sum() - on), 0), np.minimum(on, rank)
            slack = np.maximum(ties - least, most - ties)
            yield Level(target, bucket, float(value[start]), before, ties, slack, exact=False)
            continue
        ascending = np.argsort(value[here]) + start
        last = ascending[np.searchsorted(np.cumsum(many[ascending]), rank)]
        threshold = float(value[last])
        below = before + per_tensor(ascending[value[ascending] < threshold])
        on = per_tensor(ascending[value[ascending] == threshold])
        ties = np.clip(target - int(below.sum()) - (np.cumsum(on) - on), 0, on)
        yield Level(target, bucket, threshold, below, ties, np.zeros_like(on), exact=True)


def look_into(
    counts: Mapping[str, Magnitudes],
    slices: Callable[[str], Iterable[Slice]],
    first: int,
    last: int,
    executor: Executor | None = None,
) -> dict[str, Magnitudes]:
    """Read the weights once more for the exact magnitudes in the buckets `first` … `last`."""
    inexact = {
        name: slices(name)
        for name, seen in counts.items()
        if not seen.exact and np.diff(np.searchsorted(bucket_of(seen.values), [first, last + 1]))
    }
    found = refine_slices(inexact, first, last, executor)
    return {
        name: seen.refined(first, last, *found[name]) if name in found else seen
        for name, seen in counts.items()
    }
