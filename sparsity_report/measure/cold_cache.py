"""Weights read from memory: calls that cycle through more copies than the cache holds."""

import math
from collections.abc import Callable, Sequence
from itertools import cycle

Call = Callable[[], object]


def copies_needed(sizes: Sequence[int], numbers: Sequence[int], streamed: int) -> list[int]:
    """Return the number of copies per call that keeps every copy out of the cache.

    In a round each call reads its next `numbers` copies. Between two reads of the same copy lie
    all reads of the other calls in the rounds of a cycle, and at least one sample.

    Parameters
    ----------
    sizes : sequence of int
        Bytes of weights that each call reads.
    numbers : sequence of int
        Calls per sample.
    streamed : int
        Bytes to read between two reads of the same copy.

    Returns
    -------
    list of int
        All copies of all calls take about `streamed` bytes, or as many as one round reads.

    Examples
    --------
    One call reads 8 bytes ten times a round, another reads 1 byte twenty times:

    >>> copies_needed([8, 1], [10, 20], 1000)
    [100, 200]
    """
    each_round = sum(size * number for size, number in zip(sizes, numbers, strict=True)) or 1
    needed = []
    for size, number in zip(sizes, numbers, strict=True):
        within = min(number, math.ceil(streamed / max(1, size)) + 1)
        needed.append(max(2, within, math.ceil(streamed * number / each_round)))
    return needed


def cycling(calls: Sequence[Call]) -> Call:
    """Return a call that runs the given calls in turn, again and again.

    Examples
    --------
    >>> call = cycling([lambda: 1, lambda: 2])
    >>> call(), call(), call()
    (1, 2, 1)
    """
    following = cycle(calls).__next__
    return lambda: following()()
