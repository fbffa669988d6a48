"""From which sparsity CSR layers are faster than dense ones on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.errors import SparsityReportError
from sparsity_report.measure import clock as clocks
from sparsity_report.measure.clock import Allowance, Call, Clock, Timing, timed
from sparsity_report.measure.machine import Machine, Watch, stream, this_machine
from sparsity_report.measure.ratio_intervals import crossing, crossing_interval, resampled
from sparsity_report.measure.timed_calls import csr_call, dense_call, prepared, shapes_of
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
from sparsity_report.weights.anatomy.parameters import Parameter
from sparsity_report.weights.weights import Weights

_LEVELS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, HIGHEST)


@dataclass(frozen=True)
class Bench:
    """What one table of times is measured on and by: the machine, the clock, and who is told.

    Attributes
    ----------
    machine : Machine
    watch : Watch
    allowed : Allowance
    states : tuple of str
        Of the cache.
    step : callable
        Called with what is measured next.
    """

    machine: Machine
    watch: Watch
    allowed: Allowance
    states: tuple[str, ...]
    step: Callable[[str], None]

    @classmethod
    def of(cls, clock: Clock, progress: Progress | None, measurements: int) -> Bench:
        """Look at the machine, and begin to count measurements."""
        watch, places = Watch(), count()

        def step(what: str) -> None:
            if progress:
                progress(next(places), measurements, what)

        machine = this_machine()
        return cls(machine, watch, Allowance(clock, measurements), clock.states, step)

    def time(
        self,
        ready: tuple[Sequence[Call], Sequence[int]],
        cache: str | None,
        base: int,
        control: int | None,
    ) -> Timing:
        """Time what is ready; with weights from memory, beside a bare read of it."""
        read = stream(self.machine.cache_bytes) if cache == "out of cache" else None
        return timed(*ready, base, control, self.allowed, read)

    def told(self, timing: Timing) -> dict[str, Any]:
        """Return the columns that tell of the machine, and of how it stood."""
        low, high = timing.spread
        bandwidth = timing.bandwidth or self.machine.bandwidth
        machine, conditions = self.machine._asdict(), self.watch.conditions()._asdict()
        facts = {"bandwidth": bandwidth, "control_low": low, "control_high": high}
        return machine | conditions | facts


def bound(
    weight_bytes: int | None, seconds: float, timing: Timing, bandwidth: float
) -> dict[str, Any]:
    """Return the least time in which memory gives the weights, and what share of it is used."""
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
    """Find the sparsity from which CSR is faster than dense here, per layer shape and tokens.

    ``LinearCSR`` layers with zeros at random are timed at eight sparsities against the dense
    layer, and that against itself, in turn; between two of them the speed-up is interpolated in
    its logarithm.

    Parameters
    ----------
    weights : Weights
        Whose prunable shapes are measured.
    tokens : sequence of int
    dtype : str
        Name of the torch dtype of values and input.
    clock : Clock, optional
        How precisely, for how long, and with weights from the cache, from memory or both.
    progress : callable, optional
        Called with measurements done, measurements in all and what is measured.

    Returns
    -------
    pandas.DataFrame
        One row per shape, tokens, state of the cache and sparsity. ``crossover_sparsity`` lies
        between ``crossover_low`` and ``crossover_high`` with 99 % confidence, where speed-ups are
        off by as much as the control was. It is null, and so is the upper end, where CSR is not
        faster with such certainty even at 99 %: then it lies above the lower end. All three are
        null where the control did not settle, or other programs had cores that were needed.
    """
    clock = clock or clocks.USUAL
    counts, shapes = checked(tokens), shapes_of(weights)
    if not shapes:
        raise SparsityReportError(f"{weights.name} has no prunable linear layer to measure")
    bench = Bench.of(clock, progress, len(counts) * len(shapes) * len(clock.states))
    with torch.inference_mode():
        return curves(shapes, counts, dtype, bench)


def checked(tokens: Sequence[int]) -> list[int]:
    """Return numbers of tokens, refusing what is none."""
    counts = list(tokens)
    if not counts or any(not isinstance(n, int) or n < 1 for n in counts):
        raise SparsityReportError(f"tokens must be positive whole numbers, not {tokens!r}")
    return counts


def curves(
    shapes: Mapping[str, Sequence[Parameter]], tokens: Sequence[int], dtype: str, bench: Bench
) -> pd.DataFrame:
    """Return speed-ups against sparsity of all shapes, see :func:`crossover`."""
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
                bench.step(f"crossover of {shape}, {number} tokens, {cache}")
                ready = prepared(calls, cache == "out of cache", bench.machine)
                if ready is None:
                    bench.allowed.next()
                    continue
                timing = bench.time(ready, cache, 0, None)
                facts = {"name": shape, "tokens": number, "cache": cache, "dtype": dtype}
                sizes = [call.weight_bytes for call in calls[1:]]
                rows += (facts | row for row in _curve(timing, sizes, bench))
    return typed("crossover", pd.DataFrame(rows, columns=list(TABLES["crossover"].names)))


def _curve(timing: Timing, sizes: Sequence[int | None], bench: Bench) -> Iterator[dict[str, Any]]:
    base, *times = timing.times[: len(_LEVELS) + 1]
    told = bench.told(timing) | {"runs": base.runs}
    edge = _edge(timing, told)
    for level, time, size in zip(_LEVELS, times, sizes, strict=True):
        yield (
            told
            | edge
            | {
                "sparsity": level,
                "dense_seconds": base.seconds,
                "csr_seconds": time.seconds,
                "speedup": ratio(base.seconds, time.seconds),
                "speedup_low": time.realised_low,
                "speedup_high": time.realised_high,
                **bound(size, time.seconds, timing, told["bandwidth"]),
            }
        )


def _edge(timing: Timing, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return where CSR overtakes and between what, as far as the control lets it be told."""
    low, high = told["control_low"], told["control_high"]
    row = pd.DataFrame([told])
    if not settled(low, high) or bool(crowded(row).iloc[0]) or told["runs"] < ENOUGH:
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
