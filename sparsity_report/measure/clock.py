"""A clock that knows when it is wrong: what it times it times in turn, the same kernel twice."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch.utils.benchmark.utils.timer import timer

from sparsity_report.errors import SparsityReportError
from sparsity_report.measure.ratio_intervals import Floats, interval, resampled, spread
from sparsity_report.study.derived.speedups import ENOUGH
from sparsity_report.study.schema import CACHES

Call = Callable[[], object]

# A sample lasts at least this long, so that the clock's own cost disappears in it.
SAMPLE = 1e-3
# How often it is looked in a sample whether it takes far too long.
_LOOKS, _LONGEST = 10, 10 * SAMPLE
# Rounds that are timed however long they take, and those after which precision is not waited for.
_FEWEST, _MOST = 5, 400
# While it is looked whether the precision is reached.
_FEW_RESAMPLES = 200


@dataclass(frozen=True)
class Clock:
    """How precisely, for how long and in what state of the cache things are timed.

    Parameters
    ----------
    precision : float
        A thing is timed until each of its ratios is known to this part of itself, half the width
        of its interval.
    budget : float
        Seconds for all that is timed in one call; a thing whose share is used up is left as
        precise as it is. Each is timed five times at least.
    cold : bool, optional
        Whether the weights of a layer come from memory: calls then cycle through copies that
        together are larger than the last-level cache, as the layers of a model do. False: the
        same matrix again and again, from the cache where it fits. None: both.

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
        """The states of the cache that layers are timed in."""
        return {True: CACHES[1:], False: CACHES[:1], None: CACHES}[self.cold]


#: What things are timed by where nothing else is said.
USUAL = Clock()


class Allowance:
    """Shares out the time of a clock among what is still to be timed."""

    def __init__(self, clock: Clock, measurements: int) -> None:
        self.precision = clock.precision
        self._end = time.perf_counter() + clock.budget
        self._left = measurements

    def next(self) -> float:
        """Return how many seconds the next measurement may take."""
        share = (self._end - time.perf_counter()) / max(1, self._left)
        self._left -= 1
        return max(0.0, share)


class Time(NamedTuple):
    """Seconds per call, median and quartiles, and how many times faster than the base."""

    seconds: float
    seconds_low: float
    seconds_high: float
    runs: int
    realised_speedup: float
    realised_low: float
    realised_high: float


@dataclass(frozen=True)
class Timing:
    """Samples of calls that were timed in turn.

    Attributes
    ----------
    samples : numpy.ndarray
        Seconds per call, a row to each round.
    base : int
        The column that the others are compared with.
    control : int
        The column of the same kernel once more.
    streamed : int or None
        Bytes that the last column read from memory, where one did.
    """

    samples: Floats
    base: int
    control: int
    streamed: int | None = None

    @property
    def bandwidth(self) -> float | None:
        """Bytes per second that were read from memory in between; None where none were."""
        if self.streamed is None:
            return None
        return self.streamed / float(np.median(self.samples[:, -1]))

    @property
    def times(self) -> list[Time]:
        """What is known of each call."""
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
        """The control's smallest and largest ratio over parts of the rounds."""
        return spread(self.samples[:, self.base], self.samples[:, self.control])


def sampler(call: Call, number: int, now: Callable[[], float] = timer) -> Callable[[], float]:
    """Return what takes one sample: seconds per call, of so many calls.

    The clock is that of torch's benchmarks, which waits for an accelerator to be done.

    Where threads wait for a core that others have, a call may take a thousand times as long as it
    did: a sample ends early after ten times its due.
    """
    part, parts = -(-number // _LOOKS), _LOOKS

    def sample() -> float:
        done, start = 0, now()
        for _ in range(parts):
            for _ in range(part):
                call()
            done += part
            taken = now() - start
            if done >= number or taken > _LONGEST:
                break
        return taken / done

    return sample


def numbers(calls: Sequence[Call]) -> list[int]:
    """Warm calls up, and return how many of each last as long as a sample has to."""
    found = []
    for call in calls:
        once = min(sampler(call, 1)() for _ in range(3))
        found.append(max(1, math.ceil(SAMPLE / max(once, 1e-9))))
    return found


def rounds(
    samplers: Sequence[Callable[[], float]],
    base: int,
    precision: float,
    seconds: float,
    now: Callable[[], float] = time.perf_counter,
    beside: int = 0,
) -> Floats:
    """Take a sample of everything in turn until all ratios are precise or the time is over.

    The order changes from round to round, at random from one seed: what disturbs the machine
    regularly does not always meet the same call.

    Parameters
    ----------
    samplers : sequence of callable
        Each returns seconds per call of one more sample.
    base : int
        The one that the others are compared with.
    precision : float
        Half the width of a ratio's interval, as a part of it, that is enough.
    seconds : float
        How long it may take.
    now : callable
        The clock by which it takes so long.
    beside : int
        So many of the last are taken whatever their precision.

    Returns
    -------
    numpy.ndarray
        A row to each round.

    Examples
    --------
    >>> samples = rounds([lambda: 1.0, lambda: 2.0], base=0, precision=0.02, seconds=1)
    >>> samples.shape, samples[0].tolist()
    ((15, 2), [1.0, 2.0])
    """
    order, turns = list(range(len(samplers))), random.Random(0)
    taken: list[list[float]] = []
    end, look = now() + seconds, ENOUGH
    with _undisturbed():
        while len(taken) < _FEWEST or (now() < end and len(taken) < _MOST):
            turns.shuffle(order)
            row = dict.fromkeys(range(len(samplers)), 0.0)
            for place in order:
                row[place] = samplers[place]()
            taken.append([*row.values()])
            if len(taken) >= look:
                if _width(np.array(taken)[:, : len(samplers) - beside], base) <= precision:
                    break
                look = math.ceil(1.4 * look)
    return np.array(taken)


def _width(samples: Floats, base: int) -> float:
    """Return half the width of the widest interval of a ratio, in its logarithm."""
    drawn = np.log(resampled(samples, _FEW_RESAMPLES))
    ratios = drawn[:, [base]] - drawn
    return float(np.ptp(np.quantile(ratios, [0.005, 0.995], axis=0), axis=0).max() / 2)


@contextmanager
def _undisturbed() -> Iterator[None]:
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
    allowed: Allowance,
    stream: tuple[Call, int] | None = None,
) -> Timing:
    """Time calls in turn, with the base once more where none of them is the control.

    Parameters
    ----------
    calls : sequence of callable
    counts : sequence of int
        How many of each make one sample, see :func:`numbers`.
    base : int
        What the others are compared with.
    control : int or None
        What runs the same kernels as the base.
    allowed : Allowance
    stream : (callable, int), optional
        What reads so many bytes from memory, to be timed beside.
    """
    samplers = [sampler(call, count) for call, count in zip(calls, counts, strict=True)]
    again = len(samplers) if control is None else control
    if control is None:
        samplers.append(samplers[base])
    if stream is not None:
        samplers.append(sampler(stream[0], 1))
    samples = rounds(
        samplers, base, allowed.precision, allowed.next(), beside=int(stream is not None)
    )
    return Timing(samples, base, again, None if stream is None else stream[1])
