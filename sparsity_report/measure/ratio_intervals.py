"""Bootstrap intervals of ratios of times, the spread of a control, and the crossover.

Samples have the shape (rounds, calls): every call is timed once per round.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Confidence of all intervals.
CONFIDENCE = 0.99
_TAIL = (1 - CONFIDENCE) / 2
# Consecutive parts of the rounds for the spread of the control.
PARTS = 5
_RESAMPLES = 1000


def resampled(samples: Floats, resamples: int = _RESAMPLES) -> Floats:
    """Return bootstrap medians of each call, from a fixed seed.

    Whole rounds are drawn, in blocks of ∛n neighbors of n rounds, because a disturbance lasts
    longer than a round (block bootstrap; Künsch, 1989).

    Returns
    -------
    numpy.ndarray
        Medians of shape (resamples, calls).

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
    # Medians of all resamples from one sort in place.
    drawn.sort(axis=2)
    medians: Floats = (drawn[:, :, (rounds - 1) // 2] + drawn[:, :, rounds // 2]).T / 2
    return medians


def interval(ratios: Floats, ratio: float) -> tuple[float, float]:
    """Return the ends of the middle 99 % of resampled ratios, widened to include the ratio.

    Examples
    --------
    >>> low, high = interval(np.arange(101) / 100, 0.5)
    >>> round(low, 4), round(high, 4)
    (0.005, 0.995)
    """
    low, high = np.quantile(ratios, [_TAIL, 1 - _TAIL]).tolist()
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
    """Return the sparsity from which the speed-up stays above 1, interpolated in its logarithm.

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
    """Return the interval of sparsities that contains the crossing.

    Parameters
    ----------
    sparsities : sequence of float
    speedups : numpy.ndarray
        Resampled speed-ups of shape (resamples, sparsities).
    noise : float
        Relative difference of the control from itself, by which speed-ups may be off in either
        direction.

    Returns
    -------
    low : float
        Lower end; the largest sparsity if no crossing is reached with confidence.
    high : float or None
        Upper end; None if the speed-up may stay below 1 at every sparsity.

    Examples
    --------
    >>> crossing_interval([0.0, 0.5, 0.9], np.array([[0.25, 0.5, 2.0]] * 9), 0.0)
    (0.7, 0.7)
    >>> crossing_interval([0.0, 0.5, 0.9], np.array([[0.25, 0.5, 1.2]] * 9), 0.5)[1]
    """

    def crossings(factor: float) -> Floats:
        edges = (crossing(sparsities, row) for row in (speedups * factor).tolist())
        return np.array([np.inf if edge is None else edge for edge in edges])

    low = float(np.quantile(crossings(1 + noise), _TAIL, method="lower"))
    high = float(np.quantile(crossings(1 / (1 + noise)), 1 - _TAIL, method="higher"))
    return min(low, sparsities[-1]), None if high == np.inf else high
