"""Rounding levels of packed formats near zero."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rounding:
    """Range of weights that are rounded to zero, in steps of a block's scale.

    Attributes
    ----------
    below, above : float
        Weights from ``-below`` to ``above`` steps are nearest to zero.
    has_zero : bool
        Whether zero is a level of every block. Otherwise these weights become small or zero.
    """

    below: float = 0.5
    above: float = 0.5
    has_zero: bool = True


def nearest_to_zero(levels: Iterable[float]) -> Rounding | None:
    """Return the range that a set of levels rounds to zero; None if zero is not a level.

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
