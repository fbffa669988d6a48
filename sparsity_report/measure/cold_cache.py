"""Weights that come from memory: calls that cycle through copies no cache holds together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import cycle

Call = Callable[[], object]


def copies_needed(sizes: Sequence[int], numbers: Sequence[int], streamed: int) -> list[int]:
    """Return through how many copies each call has to cycle, so that none is in the cache again.

    In a round each call reads its next `numbers` copies. Between two reads of a copy lie the
    rounds in which its cycle closes, with all that the other calls read, and at least one sample.

    Parameters
    ----------
    sizes : sequence of int
        Bytes of the weights that a call reads.
    numbers : sequence of int
        Calls in one sample.
    streamed : int
        Bytes that have to be read between two reads of the same copy.

    Returns
    -------
    list of int
        All copies of all calls take about `streamed` bytes, or as many as a round reads.

    Examples
    --------
    Of two calls, one reads 8 bytes ten times a round, the other 1 byte twenty times:

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
    """Return a call of the next of them each time, and of the first again after the last.

    Examples
    --------
    >>> call = cycling([lambda: 1, lambda: 2])
    >>> call(), call(), call()
    (1, 2, 1)
    """
    following = cycle(calls).__next__
    return lambda: following()()
