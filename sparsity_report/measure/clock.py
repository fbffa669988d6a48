"""Interleaved timing of calls, with a duplicate kernel as control.

Samples have the shape (rounds, calls): every call is timed once per round. Ratios of times have
bootstrap intervals.
"""

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.study.derived.speedups import ENOUGH
from sparsity_report.study.schema import CACHES

Call = Callable[[], object]
Floats = npt.NDArray[np.float64]

# Share of resamples beyond either end of an interval: 99 % are between.
TAIL = (1 - 0.99) / 2

# Shortest sample in seconds, to make the cost and the resolution of the clock negligible.
SAMPLE = max(1e-3, 100 * time.get_clock_info("perf_counter").resolution)
# Checks per sample for its longest duration.
_CHECKS, _LONGEST = 10, 10 * SAMPLE
# Fewest and most rounds.
_FEWEST, _MOST = 5, 400
# Resamples for an interval, and for the check of the precision.
_RESAMPLES, _FEW_RESAMPLES = 1000, 200
# Consecutive parts of the rounds for the spread of the control.
_PARTS = 5


@dataclass(frozen=True)
class Clock:
    """Precision, time limit and cache state of timing.

    Parameters
    ----------
    precision : float
        Target relative precision of ratios: half the width of the interval. Timing of one
        measurement ends when all its ratios reach it.
    budget : float
        Seconds for all measurements of one call. A measurement that uses up its share ends, after
        at least five rounds.
    cold : bool, optional
        True reads the weights of a layer from memory: calls cycle through copies that together
        exceed the last-level cache, as the layers of a model do. False repeats the same matrix,
        from the cache if it fits. None measures both.

    Raises
    ------
    SparsityReportError
        Precision or budget is not a positive number.

    Examples
    --------
    >>> Clock(cold=True).states
    ('out of cache',)
    """

    precision: float = 0.02
    budget: float = 60.0
    cold: bool | None = None

    def __post_init__(self) -> None:
        for name in ("precision", "budget"):
            number = getattr(self, name)
            if not isinstance(number, int | float) or not 0 < number < math.inf:
                raise SparsityReportError(f"{name} must be a positive number, not {number!r}")

    @property
    def states(self) -> tuple[str, ...]:
        """Cache states in which layers are timed.

        Examples
        --------
        >>> Clock().states
        ('in cache', 'out of cache')
        """
        return {True: CACHES[1:], False: CACHES[:1], None: CACHES}[self.cold]


#: The default clock.
DEFAULT = Clock()


class Time(NamedTuple):
    """Seconds per call (median and quartiles) and speed-up over the base with its interval."""

    seconds: float
    seconds_low: float
    seconds_high: float
    runs: int
    realised_speedup: float
    realised_low: float
    realised_high: float


@dataclass(frozen=True)
class Timing:
    """Samples of calls that were timed in turn, round by round.

    Attributes
    ----------
    samples : numpy.ndarray
        Seconds per call, of shape (rounds, calls).
    base : int
        Column that the others are compared with.
    control : int
        Column of the duplicate kernel.
    """

    samples: Floats
    base: int
    control: int

    @property
    def times(self) -> list[Time]:
        """Times and speed-ups of each call."""
        quartiles = np.quantile(self.samples, [0.5, 0.25, 0.75], axis=0)
        drawn = resampled(self.samples)
        ratios = drawn[:, [self.base]] / drawn
        times = []
        for call, (middle, low, high) in enumerate(quartiles.T.tolist()):
            ratio = float(quartiles[0, self.base] / middle)
            ends = interval(ratios[:, call], ratio)
            times.append(Time(middle, low, high, len(self.samples), ratio, *ends))
        return times

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest ratio of the control over parts of the rounds."""
        return spread(self.samples[:, self.base], self.samples[:, self.control])


@cache
def _seconds() -> Callable[[], float]:
    """Return a clock that waits for the accelerator, if there is one."""
    # The clock of torch.utils.benchmark does too, but loads a compiler that warns on CPUs.
    if not torch.accelerator.is_available():
        return time.perf_counter

    def seconds() -> float:
        torch.accelerator.synchronize()
        return time.perf_counter()

    return seconds


def sampler(call: Call, number: int, now: Callable[[], float] | None = None) -> Callable[[], float]:
    """Return a function that takes one sample: seconds per call over a number of calls.

    The clock waits for an accelerator. A sample ends early after ten times its duration, because
    a call takes up to a thousand times as long when other programs use the cores.
    """
    part, parts, clock = -(-number // _CHECKS), _CHECKS, now or _seconds()

    def sample() -> float:
        done, start = 0, clock()
        for _ in range(parts):
            for _ in range(part):
                call()
            done += part
            taken = clock() - start
            if done >= number or taken > _LONGEST:
                break
        return taken / done

    return sample


def numbers(calls: Sequence[Call]) -> list[int]:
    """Warm calls up; return the number of each that fills a sample."""
    counts = []
    for call in calls:
        once = min(sampler(call, 1)() for _ in range(3))
        counts.append(max(1, math.ceil(SAMPLE / max(once, 1e-9))))
    return counts


def rounds(
    samplers: Sequence[Callable[[], float]],
    base: int,
    precision: float,
    seconds: float,
    now: Callable[[], float] = time.perf_counter,
) -> Floats:
    """Take samples of all calls in turn until all ratios are precise or the time is over.

    The order is shuffled each round from a fixed seed, so that a regular disturbance does not
    always affect the same call.

    Parameters
    ----------
    samplers : sequence of callable
        Each takes a sample and returns seconds per call.
    base : int
        Index of the call that the others are compared with.
    precision : float
        Target half width of the interval of a ratio, relative to it.
    seconds : float
        Time limit.
    now : callable
        Clock for the time limit.

    Returns
    -------
    numpy.ndarray
        Samples of shape (rounds, calls).

    Examples
    --------
    >>> samples = rounds([lambda: 1.0, lambda: 2.0], base=0, precision=0.02, seconds=1)
    >>> samples.shape, samples[0].tolist()
    ((15, 2), [1.0, 2.0])
    """
    order, turns = list(range(len(samplers))), random.Random(0)
    taken: list[list[float]] = []
    end, next_check = now() + seconds, ENOUGH
    with _uncollected():
        while len(taken) < _FEWEST or (now() < end and len(taken) < _MOST):
            turns.shuffle(order)
            row = dict.fromkeys(range(len(samplers)), 0.0)
            for place in order:
                row[place] = samplers[place]()
            taken.append([*row.values()])
            if len(taken) >= next_check:
                if _width(np.array(taken), base) <= precision:
                    break
                next_check = math.ceil(1.4 * next_check)
    return np.array(taken)


def _width(samples: Floats, base: int) -> float:
    """Return half the width of the widest interval of a logarithm of a ratio."""
    drawn = np.log(resampled(samples, _FEW_RESAMPLES))
    ratios = drawn[:, [base]] - drawn
    return float(np.ptp(np.quantile(ratios, [TAIL, 1 - TAIL], axis=0), axis=0).max() / 2)


@contextmanager
def _uncollected() -> Iterator[None]:
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def timed(
    calls: Sequence[Call],
    counts: Sequence[int],
    base: int,
    control: int | None,
    limits: tuple[float, float],
) -> Timing:
    """Time calls in turn; time the base twice if none of them is the control.

    Parameters
    ----------
    calls : sequence of callable
    counts : sequence of int
        Calls per sample, see :func:`numbers`.
    base : int
        Index of the call that the others are compared with.
    control : int or None
        Index of a call that runs the same kernels as the base.
    limits : (float, float)
        Target precision, and time limit in seconds, see :func:`rounds`.
    """
    samplers = [sampler(call, count) for call, count in zip(calls, counts, strict=True)]
    again = len(samplers) if control is None else control
    if control is None:
        samplers.append(samplers[base])
    return Timing(rounds(samplers, base, *limits), base, again)


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
    return (drawn[:, :, (rounds - 1) // 2] + drawn[:, :, rounds // 2]).T / 2


def interval(ratios: Floats, ratio: float) -> tuple[float, float]:
    """Return the ends of the middle 99 % of resampled ratios, widened to include the ratio.

    Examples
    --------
    >>> low, high = interval(np.arange(101) / 100, 0.5)
    >>> round(low, 4), round(high, 4)
    (0.005, 0.995)
    """
    low, high = np.quantile(ratios, [TAIL, 1 - TAIL]).tolist()
    return min(low, ratio), max(high, ratio)


def spread(base: Floats, control: Floats) -> tuple[float, float]:
    """Return the smallest and largest ratio of medians over consecutive parts of the rounds.

    Examples
    --------
    >>> spread(np.ones(10), np.array([1, 1, 1, 1, 1, 1, 2, 2, 1, 1.0]))
    (0.5, 1.0)
    """
    parts = zip(*(np.array_split(side, min(_PARTS, len(side))) for side in (base, control)),
                strict=True)  # fmt: skip
    ratios = [float(np.median(one) / np.median(other)) for one, other in parts]
    return min(ratios), max(ratios)
