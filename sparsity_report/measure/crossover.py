"""The crossover: the sparsity from which CSR layers are faster than dense ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.errors import SparsityReportError
from sparsity_report.measure import clock as clocks
from sparsity_report.measure.clock import Clock, Timing, timed
from sparsity_report.measure.machine import Watch, stream, this_machine
from sparsity_report.measure.ratio_intervals import crossing, crossing_interval, resampled
from sparsity_report.measure.timed_calls import Timed, csr_call, dense_call, prepared, shapes_of
from sparsity_report.sparse.linear_csr import LinearCSR
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.derived.speedups import (
    ENOUGH,
    HIGHEST,
    TOLERANCE,
    crowded,
    noise,
    settled,
)
from sparsity_report.study.schema import TABLES, typed
from sparsity_report.weights.weights import Parameter, Weights

_LEVELS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, HIGHEST)


class Bench:
    """The machine, time budget and progress of one table of times.

    Parameters
    ----------
    clock : Clock
    progress : callable or None
        Called before each measurement.
    measurements : int
        Number of measurements, which share the budget.
    """

    def __init__(self, clock: Clock, progress: Progress | None, measurements: int) -> None:
        self._watch, self._progress = Watch(), progress
        self._done, self._all = 0, measurements
        self._machine, self.states = this_machine(), clock.states
        self._precision, self._end = clock.precision, perf_counter() + clock.budget

    def time(
        self,
        name: str,
        calls: Sequence[Timed],
        base: int,
        *,
        control: int | None = None,
        cache: str | None = None,
    ) -> Timing | None:
        """Time the calls of the next measurement; None if there are none, or too small ones.

        If weights come from memory, a bare read of it is timed along.
        """
        if self._progress:
            self._progress(self._done, self._all, name)
        cold, left = cache == "out of cache", self._all - self._done
        self._done += 1
        ready = prepared(calls, cold, self._machine) if calls else None
        if ready is None:
            return None
        seconds = max(0.0, (self._end - perf_counter()) / left)
        read = stream(self._machine.cache_bytes) if cold else None
        return timed(*ready, base, control, (self._precision, seconds), read)

    def facts(self, timing: Timing) -> dict[str, Any]:
        """Return the columns that describe the machine and its conditions."""
        low, high = timing.spread
        bandwidth = timing.bandwidth or self._machine.bandwidth
        machine, conditions = self._machine._asdict(), self._watch.conditions()._asdict()
        facts = {"bandwidth": bandwidth, "control_low": low, "control_high": high}
        return machine | conditions | facts


def bound(
    weight_bytes: int | None, seconds: float, timing: Timing, bandwidth: float
) -> dict[str, Any]:
    """Return the least seconds to read the weights from memory, and their share of the time."""
    if weight_bytes is None:
        return {}
    least = weight_bytes / bandwidth
    share = None if timing.bandwidth is None else least / seconds
    return {"weight_bytes": weight_bytes, "bound_seconds": least, "bound_share": share}


@with_bar("timing", unit="measurement")
def crossover(
    weights: Weights,
    tokens: Sequence[int] = (1, 16, 128),
    *,
    dtype: str = "float32",
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Measure the sparsity from which CSR is faster than dense, per layer shape and tokens.

    ``LinearCSR`` layers with random zeros at eight sparsities, the dense layer and a duplicate of
    it as control are timed in turn. The speed-up is interpolated in its logarithm.

    Parameters
    ----------
    weights : Weights
        Model whose prunable layer shapes are measured.
    tokens : sequence of int
        Numbers of tokens per call.
    dtype : str
        Name of the torch dtype of values and inputs.
    clock : Clock, optional
        Precision, time limit and cache state. The default is 2 %, 60 s, both states.
    progress : callable, optional
        Called with measurements done, measurements in total and the name of the measurement.

    Returns
    -------
    pandas.DataFrame
        One row per shape, tokens, cache state and sparsity. With 99 % confidence
        ``crossover_sparsity`` lies between ``crossover_low`` and ``crossover_high``, errors of
        speed-ups as large as that of the control included. It and the upper end are null if CSR
        is not faster with this confidence even at 99 % sparsity. All three are null if the
        control did not settle, or if other programs used cores that were needed.

    Raises
    ------
    SparsityReportError
        The model has no prunable linear layer, or `tokens` or `dtype` is not valid.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> clock = sr.Clock(cold=False, budget=1)
    >>> frame = sr.crossover(sr.load(), tokens=[1], clock=clock)
    >>> sorted(set(frame["name"]))
    ['128 × 128', '128 × 512', '512 × 128']
    """
    clock = clock or clocks.DEFAULT
    counts, shapes = checked(tokens), shapes_of(weights)
    if not shapes:
        raise SparsityReportError(
            f"{weights.name} has no prunable linear layer to measure; load another model"
        )
    bench = Bench(clock, progress, len(counts) * len(shapes) * len(clock.states))
    with torch.inference_mode():
        return curves(shapes, counts, dtype, bench)


def checked(tokens: Sequence[int]) -> list[int]:
    """Return numbers of tokens; refuse anything but positive whole numbers."""
    counts = list(tokens)
    if not counts or any(not isinstance(n, int) or n < 1 for n in counts):
        raise SparsityReportError(f"tokens must be positive whole numbers, not {tokens!r}")
    return counts


def curves(
    shapes: Mapping[str, Sequence[Parameter]], tokens: Sequence[int], dtype: str, bench: Bench
) -> pd.DataFrame:
    """Return the speed-ups of all shapes by sparsity, see :func:`crossover`."""
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise SparsityReportError(f"dtype must name a torch dtype of floats, not {dtype!r}")
    rows: list[dict[str, Any]] = []
    for shape, parameters in shapes.items():
        out, columns = cast(tuple[int, int], parameters[0].matrix)
        weight, order = torch.randn(out, columns), torch.rand(out, columns)
        layers = [LinearCSR((weight * (order >= level)).to(kind)) for level in _LEVELS]
        for number in tokens:
            calls = [dense_call(weight.to(kind), number)]
            calls += [csr_call(layer, number) for layer in layers]
            for cache in bench.states:
                name = f"crossover of {shape}, {number} tokens, {cache}"
                if timing := bench.time(name, calls, 0, cache=cache):
                    facts = {"name": shape, "tokens": number, "cache": cache, "dtype": dtype}
                    sizes = [call.weight_bytes for call in calls[1:]]
                    rows += (facts | row for row in _curve(timing, sizes, bench))
    return typed("crossover", pd.DataFrame(rows, columns=list(TABLES["crossover"].names)))


def _curve(timing: Timing, sizes: Sequence[int | None], bench: Bench) -> Iterator[dict[str, Any]]:
    base, *times = timing.times[: len(_LEVELS) + 1]
    facts = bench.facts(timing) | {"runs": base.runs}
    edge = _edge(timing, facts)
    for level, time, size in zip(_LEVELS, times, sizes, strict=True):
        yield (
            facts
            | edge
            | {
                "sparsity": level,
                "dense_seconds": base.seconds,
                "csr_seconds": time.seconds,
                "speedup": ratio(base.seconds, time.seconds),
                "speedup_low": time.realised_low,
                "speedup_high": time.realised_high,
                **bound(size, time.seconds, timing, facts["bandwidth"]),
            }
        )


def _edge(timing: Timing, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the crossover and its interval, nothing if the control does not support one."""
    low, high = facts["control_low"], facts["control_high"]
    row = pd.DataFrame([facts])
    if not settled(low, high) or bool(crowded(row).iloc[0]) or facts["runs"] < ENOUGH:
        return {}
    drawn = resampled(timing.samples)
    speedups = drawn[:, [0]] / drawn[:, 1 : len(_LEVELS) + 1]
    far = max(float(noise(low, high)), TOLERANCE)
    first, last = crossing_interval(_LEVELS, speedups, far)
    middle = np.median(timing.samples, axis=0)
    edge = crossing(_LEVELS, (middle[0] / middle[1 : len(_LEVELS) + 1]).tolist())
    if last is None or edge is None:
        return {"crossover_low": first}
    return {
        "crossover_low": min(first, edge),
        "crossover_sparsity": edge,
        "crossover_high": max(last, edge),
    }
