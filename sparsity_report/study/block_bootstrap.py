"""Intervals of means over consecutive units of one text, and Holm's correction.

Units are spans of tokens or documents, each with a sum and a weight, such as a negative
log-likelihood and a number of tokens. Figures of two models on the same units are paired by
subtracting their sums first. Neighboring units depend on each other, so whole blocks are resampled
around the circle of units (Politis and Romano, 1992). The variance of that bootstrap has a closed
form, which is used instead of draws: the result has no seed and no noise. Percentiles cover too
little with few blocks, so intervals have the quantiles of Student's distribution.

Blocks follow from the dependence: they have three times the length that minimizes the error of the
variance (Politis and White, 2004). Shorter ones make intervals too narrow. The square root of the
number of units is the least length, a fifth of the number the most.
"""

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

#: Confidence of all statements of a table together.
LEVEL = 0.95
#: Fewest blocks for an interval.
BLOCKS = 5
# Block lengths of least error of the variance per block.
_LENGTHS = 3


class Mean(NamedTuple):
    """A mean per unit of weight, or a difference of two.

    Attributes
    ----------
    estimate : float
    error : float
        Its standard error.
    blocks : int
        Blocks that fit into the units; one less are the degrees of freedom.
    block : int
        Units per block.
    needed : int
        Units per block that the dependence of the units asks for, more than `block` if fewer than
        five such blocks fit.
    """

    estimate: float
    error: float
    blocks: int
    block: int
    needed: int = 1

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the ends of the interval of a confidence.

        Examples
        --------
        >>> [round(end, 3) for end in Mean(0.5, 0.1, 11, 1).interval()]
        [0.277, 0.723]
        """
        reach = self.error * t_quantile(1 - level, self.blocks - 1) if self.error else 0.0
        return self.estimate - reach, self.estimate + reach

    @property
    def p_value(self) -> float:
        """Probability of an estimate this far from zero if the mean is zero."""
        if not self.error:
            return 1.0 if self.estimate == 0 else 0.0
        return t_tails(self.estimate / self.error, self.blocks - 1)


def mean_over(
    sums: npt.ArrayLike, weights: npt.ArrayLike | None = None, block: int | None = None
) -> Mean | None:
    """Return Σ sums ÷ Σ weights with its error.

    Parameters
    ----------
    sums : array-like
        One number per unit, in the order of the text.
    weights : array-like, optional
        Weight of each unit, 1 by default.
    block : int, optional
        Units per block, by default from the dependence of the units; 1 for independent units.

    Returns
    -------
    Mean or None
        None for fewer than five blocks, or if a sum is not finite.

    Examples
    --------
    >>> mean_over([1, 3, 1, 3, 1, 3], block=1)
    Mean(estimate=2.0, error=0.4472135954999579, blocks=6, block=1, needed=1)
    """
    values = np.asarray(sums, dtype=np.float64)
    sizes = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    units = len(values)
    least = block or max(1, round(math.sqrt(units)))
    if units // least < BLOCKS or not np.isfinite(values).all():
        return None
    estimate = float(values.sum() / sizes.sum())
    around = values - estimate * sizes
    needed = block or max(least, round(_LENGTHS * block_length(around)))
    block = max(least, min(needed, units // BLOCKS))
    blocks = units // block
    ends = np.concatenate([[0.0], np.cumsum(np.append(around, around[: block - 1]))])
    sums_of_blocks = ends[block:] - ends[:-block]
    variance = float(np.mean(sums_of_blocks**2)) / (units * block) * units / (units - block)
    return Mean(estimate, math.sqrt(variance) / float(sizes.mean()), blocks, block, needed)


def block_length(around: npt.NDArray[np.float64]) -> float:
    """Return the block length with the least error of the variance of a circular bootstrap.

    As Politis and White (2004, Econometric Reviews 23, 53–70), corrected by Patton, Politis and
    White (2009, 28, 372–375). It is at most the number of units.

    Parameters
    ----------
    around : numpy.ndarray
        Consecutive values less their mean, at least 20.

    Examples
    --------
    >>> round(block_length(np.sin(np.arange(40))), 1), block_length(np.zeros(40))
    (31.5, 1.0)
    """
    units = len(around)
    run = max(5, int(math.log10(units)))
    lags = np.arange(math.ceil(math.sqrt(units)) + run + 1)
    products = np.correlate(around, around, "full")[units - 1 :][lags]
    squares = np.cumsum(around**2)
    norms = np.sqrt((squares[-1] - squares[lags]) * squares[units - lags - 2])
    is_noise = np.abs(products) < 2 * math.sqrt(math.log10(units) / units) * norms
    # The last lag before a run of correlations like noise.
    last = next((k for k in lags[:-run] if is_noise[k : k + run].all()), lags[-1])
    reach = min(2 * max(last, 1), lags[-1])
    terms = np.clip(2 - 2 * lags / reach, 0, 1) * products
    total = 2 * terms.sum() - products[0]
    if not total:
        return 1.0 if not around.any() else float(units)
    slope = 2 * float(lags @ terms) / total
    return float(min(units, (1.5 * slope**2 * units) ** (1 / 3)))


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """Return the confidence of each comparison after Holm's correction for several (1979).

    The interval of a comparison at its confidence excludes zero exactly if Holm's procedure
    rejects equality. One that does so wrongly has a probability of at most 5 %.

    Examples
    --------
    >>> [round(each, 4) for each in holm_levels([0.001, 0.04, 0.03])]
    [0.9833, 0.975, 0.975]
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    levels = [0.0] * len(p_values)
    left, is_open = len(p_values), True
    for place in order:
        share = (1 - LEVEL) / left
        levels[place] = 1 - share
        is_open = is_open and p_values[place] < share
        left -= is_open
    return levels


def t_tails(value: float, degrees: int) -> float:
    """Return the probability of Student's distribution beyond ±value.

    Examples
    --------
    >>> round(t_tails(2.228, 10), 4)
    0.05
    """
    # Abramowitz and Stegun, 26.7.3 and 26.7.4.
    angle = math.atan(abs(value) / math.sqrt(degrees))
    cosine, is_odd = math.cos(angle), degrees % 2
    term, total = (cosine if is_odd else 1.0), 0.0
    for step in range(degrees // 2):
        total += term
        term *= cosine**2 * (2 * step + 1 + is_odd) / (2 * step + 2 + is_odd)
    inside = math.sin(angle) * total
    if is_odd:
        inside = 2 / math.pi * (angle + inside)
    return max(0.0, 1 - inside)


@cache
def t_quantile(share: float, degrees: int) -> float:
    """Return the value beyond ± which Student's distribution has a share.

    Examples
    --------
    >>> round(t_quantile(0.05, 10), 3)
    2.228
    """
    low, high = 0.0, NormalDist().inv_cdf(1 - share / 2)
    while t_tails(high, degrees) > share:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_tails(middle, degrees) > share else (low, middle)
    return high
