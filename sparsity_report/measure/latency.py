"""Latency of layers and models on this machine, compared with their FLOPs; the crossover of CSR."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import nn

from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.errors import SparsityReportError
from sparsity_report.measure import clock as clocks
from sparsity_report.measure import timed_calls
from sparsity_report.measure.clock import TAIL, Clock, Floats, Timing, resampled, timed
from sparsity_report.measure.machine import CACHE_AT_MOST, Watch, this_machine
from sparsity_report.measure.timed_calls import Timed, shapes_of
from sparsity_report.sparse.linear_csr import LinearCSR
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.derived import speedups
from sparsity_report.study.schema import TABLES, typed
from sparsity_report.study.variants import Variant, listed, materialized
from sparsity_report.weights.torch_tensors import tensor_dtype, torch_dtype
from sparsity_report.weights.weights import Parameter

Models = Sequence[tuple[Variant, nn.Module]]
_Rows = Iterator[dict[str, Any]]
_EDGES = ["crossover_sparsity", "crossover_low", "crossover_high"]
_LEVELS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, speedups.HIGHEST)


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
        self, name: str, calls: Sequence[Timed], base: int, control: int | None, cache: str | None
    ) -> Timing | None:
        """Time the calls of the next measurement; None if there are none, or too small ones."""
        if self._progress:
            self._progress(self._done, self._all, name)
        left = self._all - self._done
        self._done += 1
        held = self._machine["cache_bytes"] or CACHE_AT_MOST
        streamed = 2 * held if cache == "out of cache" else None
        ready = timed_calls.prepared(calls, streamed) if calls else None
        if ready is None:
            return None
        seconds = max(0.0, (self._end - perf_counter()) / left)
        return timed(*ready, base, control, (self._precision, seconds))

    def facts(self, timing: Timing) -> dict[str, Any]:
        """Return the columns that describe the machine and its conditions."""
        low, high = timing.spread
        control = {"control_low": low, "control_high": high}
        return self._machine | self._watch.conditions() | control


@with_bar("timing", unit="measurement")
def latency(
    variants: Variant | Sequence[Variant],
    tokens: Sequence[int] = (1, 16, 128),
    *,
    crossovers: bool = True,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Time every distinct layer shape and the whole forward pass of variants.

    After warming up, all variants are timed in turn in an order that changes each round. A
    control runs the same kernels as the first dense variant: it is a masked variant if there is
    one, otherwise the dense one again. The speed-up of the control is noise, and no report shows
    a speed-up within it.

    A shape is measured on the module with the median number of nonzeros, among those in CSR if
    any. If a module does more than multiply, only the product is timed. Weights are in the cache
    or read from memory, see :class:`Clock`; matrices that would need more than 10,000 copies are
    timed in the cache only. The forward pass is that of one sequence of random tokens without a
    key-value cache; models that do not read token ids have layers only.

    Parameters
    ----------
    variants : Variant or sequence of Variant
        Variants of one model. Speed-ups are over the first dense one, or else the first.
    tokens : sequence of int
        Numbers of tokens per call.
    crossovers : bool
        Also measure the sparsity from which CSR is faster than dense, with its interval, per layer
        shape. Layers with random zeros at eight sparsities are timed, and the speed-up is
        interpolated in its logarithm.
    clock : Clock, optional
        Precision, time limit and cache state. The default is 2 %, 60 s, both states.
    progress : callable, optional
        Called with measurements done, measurements in total and the name of the measurement.

    Returns
    -------
    pandas.DataFrame
        One row per variant and measurement. ``scope`` is ``"layer"`` (``name`` is the shape, out ×
        in, and ``modules`` the number of modules with it) or ``"model"``. ``seconds`` is the
        median of ``runs`` samples, ``seconds_low`` and ``seconds_high`` are their quartiles.
        ``promised_speedup`` is the ratio of FLOPs, ``realised_speedup`` that of seconds,
        ``realised_share`` realised ÷ promised. ``realised_low`` and ``realised_high`` are the ends
        of the 99 % interval of a block bootstrap. ``control_low`` and ``control_high`` are the
        smallest and largest ratio of ``control`` over five parts of the rounds. ``weight_bytes``
        are the bytes of weights that a call reads. ``others`` is the number of cores that other
        programs used. With 99 % confidence ``crossover_sparsity`` lies between ``crossover_low``
        and ``crossover_high``, errors of speed-ups as large as that of the control included. It
        and the upper end are null if CSR is not faster with this confidence even at 99 % sparsity.
        All three are null if the control did not settle, or if other programs used cores that were
        needed.

    Raises
    ------
    SparsityReportError
        There is no variant, the variants are of different models, or `tokens` is not valid.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.9)
    >>> variants = [sr.dense(pruning.weights), sr.csr(pruning)]
    >>> clock = sr.Clock(cold=False, budget=1)
    >>> frame = sr.latency(variants, tokens=[1], crossovers=False, clock=clock)
    >>> sorted(set(frame["name"]))
    ['128 × 128', '128 × 512', '512 × 128', 'whole forward']
    """
    variants = listed("latency", variants)
    if not variants:
        raise SparsityReportError("nothing to measure; give at least one variant")
    counts, clock = _checked(tokens), clock or clocks.DEFAULT
    base = next((n for n, variant in enumerate(variants) if variant.layout == "dense"), 0)
    weights = variants[base].weights
    for variant in variants:
        matrices = {(p.name, p.matrix) for p in variant.weights.parameters}
        if not matrices.issuperset((p.name, p.matrix) for p in weights.prunable):
            raise SparsityReportError(
                f"{variant.name} has other layers than {variants[base].name}; time the variants of "
                "one model at a time"
            )
    models, shapes = list(materialized(variants)), shapes_of(weights)
    measurements = len(counts) * (len(shapes) * len(clock.states) * (1 + crossovers) + 1)
    bench = Bench(clock, progress, measurements)
    with torch.inference_mode():
        rows = [*_layers(models, base, counts, bench)]
        rows += (row for number in counts for row in _forward_passes(models, base, number, bench))
        frame = pd.DataFrame(rows, columns=list(TABLES["latency"]))
        if crossovers and shapes:
            keys = ["name", "tokens", "cache"]
            edges = pd.DataFrame(_crossovers(shapes, counts, bench), columns=keys + _EDGES)
            frame = frame.drop(columns=_EDGES).merge(edges, how="left", on=keys)
    return typed("latency", frame)


def _layers(models: Models, base: int, tokens: Sequence[int], bench: Bench) -> _Rows:
    """Yield a row per variant, shape, number of tokens and cache state."""
    for shape, parameters in shapes_of(models[base][0].weights).items():
        chosen = timed_calls.typical(models[-1][0], parameters)
        for number in tokens:
            calls = [timed_calls.layer_call(model, chosen, number) for _, model in models]
            facts = {"scope": "layer", "name": shape, "modules": len(parameters), "tokens": number}
            for cache in bench.states:
                yield from _compared(models, calls, base, facts | {"cache": cache}, bench)


def _forward_passes(models: Models, base: int, number: int, bench: Bench) -> _Rows:
    """Yield a row per variant, none if a model does not accept the tokens."""
    inputs = timed_calls.inputs_of(models[base][1], number)
    calls = [timed_calls.whole_call(*pair, inputs) for pair in models] if inputs else []
    facts = {"scope": "model", "name": "whole forward", "tokens": number}
    yield from _compared(models, calls, base, facts, bench)


def _compared(
    models: Models, calls: Sequence[Timed], base: int, facts: dict[str, Any], bench: Bench
) -> _Rows:
    """Time calls; yield promised and realised speed-ups over the base."""
    control, cache = _control(models, base), facts.get("cache")
    name = f"{facts['name']}, {facts['tokens']} tokens" + (f", {cache}" if cache else "")
    timing = bench.time(name, calls, base, control, cache)
    if timing is None:
        return
    facts |= bench.facts(timing) | {"control": models[base if control is None else control][0].name}
    for (variant, _), call, time in zip(models, calls, timing.times, strict=False):
        promised = ratio(calls[base].flops, call.flops)
        yield {
            **facts,
            **time._asdict(),
            "variant": variant.name,
            "sparsity": call.sparsity,
            "dtype": tensor_dtype(call.dtype),
            "kernel": call.kernel,
            "promised_speedup": promised,
            "realised_share": ratio(time.realised_speedup, promised),
            "weight_bytes": call.weight_bytes,
        }


def _control(models: Models, base: int) -> int | None:
    """Return the index of a variant that runs the kernels of the base, None without one."""
    if models[base][0].layout != "dense":
        return None
    layouts = [variant.layout for variant, _ in models]
    return layouts.index("masked") if "masked" in layouts else None


def _checked(tokens: Sequence[int]) -> list[int]:
    """Return numbers of tokens; refuse anything but positive whole numbers."""
    counts = list(tokens)
    if not counts or any(not isinstance(n, int) or n < 1 for n in counts):
        raise SparsityReportError(f"tokens must be positive whole numbers, not {tokens!r}")
    return counts


def _crossovers(
    shapes: Mapping[str, Sequence[Parameter]], tokens: Sequence[int], bench: Bench
) -> _Rows:
    """Yield the sparsity from which CSR is faster by shape, number of tokens and cache state.

    CSR layers with random zeros at eight sparsities, the dense layer and a duplicate of it as
    control are timed in turn.
    """
    dtype = torch_dtype(next(iter(shapes.values()))[0].dtype)
    for shape, parameters in shapes.items():
        out, columns = cast(tuple[int, int], parameters[0].matrix)
        weight, order = torch.randn(out, columns), torch.rand(out, columns)
        layers = [LinearCSR((weight * (order >= level)).to(dtype)) for level in _LEVELS]
        for number in tokens:
            calls = [timed_calls.dense_call(weight.to(dtype), number)]
            calls += [timed_calls.csr_call(layer, number) for layer in layers]
            for cache in bench.states:
                name = f"crossover of {shape}, {number} tokens, {cache}"
                if timing := bench.time(name, calls, 0, None, cache):
                    edge = _edge(timing, bench.facts(timing))
                    yield {"name": shape, "tokens": number, "cache": cache, **edge}


def _edge(timing: Timing, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the crossover and its interval, nothing if the control does not support one."""
    low, high = facts["control_low"], facts["control_high"]
    row = pd.DataFrame([facts])
    if (
        not speedups.settled(low, high)
        or bool(speedups.crowded(row).iloc[0])
        or len(timing.samples) < speedups.ENOUGH
    ):
        return {}
    drawn = resampled(timing.samples)
    ratios = drawn[:, [0]] / drawn[:, 1 : len(_LEVELS) + 1]
    far = max(float(speedups.noise(low, high)), speedups.TOLERANCE)
    first, last = crossing_interval(_LEVELS, ratios, far)
    middle = np.median(timing.samples, axis=0)
    edge = crossing(_LEVELS, (middle[0] / middle[1 : len(_LEVELS) + 1]).tolist())
    if last is None or edge is None:
        return {"crossover_low": first}
    return {
        "crossover_low": min(first, edge),
        "crossover_sparsity": edge,
        "crossover_high": max(last, edge),
    }


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

    low = float(np.quantile(crossings(1 + noise), TAIL, method="lower"))
    high = float(np.quantile(crossings(1 / (1 + noise)), 1 - TAIL, method="higher"))
    return min(low, sparsities[-1]), None if high == np.inf else high
