"""The levels that a packed format rounds weights to, as far as zeros depend on them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rounding:
    """What of weights is rounded to zero, in steps: the scale of a block.

    Attributes
    ----------
    below, above : float
        Weights from ``-below`` to ``above`` steps are nearest to zero.
    has_zero : bool
        Zero is a level of every block. If it need not be, these weights become small ones, or zero.
    """

    below: float = 0.5
    above: float = 0.5
    has_zero: bool = True


def nearest_to_zero(levels: Iterable[float]) -> Rounding | None:
    """Return what is rounded to zero where these are the levels; None if zero is none of them.

    Examples
    --------
    >>> nearest_to_zero([-2.0, -1.0, 0.0, 0.5])
    Rounding(below=0.5, above=0.25, has_zero=True)
    """
    ordered = sorted({level for level in levels if level == level})
    place = bisect_left(ordered, 0.0)
    if not 0 < place < len(ordered) - 1 or ordered[place] != 0:
        return None
    return Rounding(-ordered[place - 1] / 2, ordered[place + 1] / 2)
