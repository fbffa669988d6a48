"""Between which bounds a ratio of times lies, and how far one kernel is from itself.

Samples are a matrix: a round, in which everything is timed once, is a row; a call is a column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Of a hundred intervals one leaves out the ratio it is of.
CONFIDENCE = 0.99
# Consecutive parts of the rounds whose ratios are the control's spread.
PARTS = 5
_RESAMPLES = 1000


def resampled(samples: Floats, resamples: int = _RESAMPLES) -> Floats:
    """Return medians of each call over rounds drawn again and again, by the same draws each time.

    Rounds are drawn whole, so that what was timed together stays together, and in blocks of
    neighbours, ∛n of n, as a disturbance lasts longer than a round (Künsch, 1989).

    Returns
    -------
    numpy.ndarray
        A row of medians to each resample.

    Examples
    --------
    >>> resampled(np.array([[1.0, 2.0]] * 9), 3).tolist()
    [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    """
    rounds = len(samples)
    block = max(1, round(rounds ** (1 / 3)))
    draws = np.random.default_rng(0)
    starts = draws.integers(0, rounds, (resamples, -(-rounds // block)))
    places = (starts[:, :, None] + np.arange(block)) % rounds
    drawn = np.ascontiguousarray(samples.T)[:, places.reshape(resamples, -1)[:, :rounds]]
    # Several times as fast as numpy's median.
    drawn.sort(axis=2)
    medians: Floats = (drawn[:, :, (rounds - 1) // 2] + drawn[:, :, rounds // 2]).T / 2
    return medians


def interval(ratios: Floats, ratio: float) -> tuple[float, float]:
    """Return the ends of the middle 99 % of resampled ratios; the ratio itself lies between.

    Examples
    --------
    >>> low, high = interval(np.arange(101) / 100, 0.5)
    >>> round(low, 4), round(high, 4)
    (0.005, 0.995)
    """
    rest = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, [rest, 1 - rest]).tolist()
    return min(low, ratio), max(high, ratio)


def spread(base: Floats, control: Floats) -> tuple[float, float]:
    """Return the smallest and largest ratio of medians over consecutive parts of the rounds.

    Examples
    --------
    >>> spread(np.ones(10), np.array([1, 1, 1, 1, 1, 1, 2, 2, 1, 1.0]))
    (0.5, 1.0)
    """
    parts = zip(*(np.array_split(side, min(PARTS, len(side))) for side in (base, control)),
                strict=True)  # fmt: skip
    ratios = [float(np.median(one) / np.median(other)) for one, other in parts]
    return min(ratios), max(ratios)


def crossing(sparsities: Sequence[float], speedups: Sequence[float]) -> float | None:
    """Sparsity from which the speed-up stays above 1, interpolated in its logarithm.

    Examples
    --------
    >>> crossing([0.0, 0.5, 0.9], [0.25, 0.5, 2.0])
    0.7
    """
    slow = [place for place, speedup in enumerate(speedups) if speedup < 1]
    if not slow:
        return sparsities[0]
    last = slow[-1]
    if last == len(speedups) - 1:
        return None
    a, b = math.log(speedups[last]), math.log(speedups[last + 1])
    return sparsities[last] + (sparsities[last + 1] - sparsities[last]) * a / (a - b)


def crossing_interval(
    sparsities: Sequence[float], speedups: Floats, noise: float
) -> tuple[float, float | None]:
    """Return between which sparsities the crossing lies.

    Parameters
    ----------
    sparsities : sequence of float
    speedups : numpy.ndarray
        A row of resampled speed-ups to each resample.
    noise : float
        How far apart the same kernel was twice, as a part of 1: speed-ups may be off by as much
        either way.

    Returns
    -------
    low : float
        The largest of the sparsities where none is reached with confidence.
    high : float or None
        None where the speed-up may stay under 1 at every sparsity.

    Examples
    --------
    >>> crossing_interval([0.0, 0.5, 0.9], np.array([[0.25, 0.5, 2.0]] * 9), 0.0)
    (0.7, 0.7)
    >>> crossing_interval([0.0, 0.5, 0.9], np.array([[0.25, 0.5, 1.2]] * 9), 0.5)[1]
    """
    rest = (1 - CONFIDENCE) / 2

    def crossings(factor: float) -> Floats:
        found = (crossing(sparsities, row) for row in (speedups * factor).tolist())
        return np.array([np.inf if edge is None else edge for edge in found])

    low = float(np.quantile(crossings(1 + noise), rest, method="lower"))
    high = float(np.quantile(crossings(1 / (1 + noise)), 1 - rest, method="higher"))
    return min(low, sparsities[-1]), None if high == np.inf else high
