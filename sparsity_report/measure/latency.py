"""Latency of layers and models on this machine, compared with their FLOPs."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from torch import nn

from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.errors import SparsityReportError
from sparsity_report.measure import clock as clocks
from sparsity_report.measure.clock import Clock
from sparsity_report.measure.crossover import Bench, bound, checked, curves
from sparsity_report.measure.timed_calls import (
    Timed,
    inputs_of,
    layer_call,
    shapes_of,
    typical,
    whole_call,
)
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.schema import TABLES, typed
from sparsity_report.study.variants import Variant, materialized
from sparsity_report.weights.tensor_slices import dtype_name

Models = Sequence[tuple[Variant, nn.Module]]
_EDGES = ["crossover_sparsity", "crossover_low", "crossover_high"]


@with_bar("timing", unit="measurement")
def measure_latency(
    variants: Sequence[Variant],
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
    variants : sequence of Variant
        Variants of one model. Speed-ups are over the first dense one, or else the first.
    tokens : sequence of int
        Numbers of tokens per call.
    crossovers : bool
        Also measure the sparsity from which CSR is faster than dense, see :func:`crossover`.
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
        smallest and largest ratio of ``control`` over five parts of the rounds. ``bound_seconds``
        is ``weight_bytes`` ÷ ``bandwidth``, the least time to read the weights from memory, and
        ``bound_share`` that ÷ ``seconds``, null in the cache. ``bandwidth`` in bytes per second is
        measured in the same rounds if weights come from memory, otherwise before. ``others`` is
        the number of cores that other programs used.

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
    >>> frame = sr.measure_latency(variants, tokens=[1], crossovers=False, clock=clock)
    >>> sorted(set(frame["name"]))
    ['128 × 128', '128 × 512', '512 × 128', 'whole forward']
    """
    if not variants:
        raise SparsityReportError("nothing to measure; give at least one variant")
    counts, clock = checked(tokens), clock or clocks.DEFAULT
    base = next((n for n, variant in enumerate(variants) if variant.layout == "dense"), 0)
    weights = variants[base].weights
    for variant in variants:
        matrices = {(p.name, p.matrix) for p in variant.weights.parameters}
        if not matrices.issuperset((p.name, p.matrix) for p in weights.prunable):
            raise SparsityReportError(
                f"{variant.name} has other layers than {variants[base].name}; time the variants of "
                "one model at a time"
            )
    models, shapes = list(materialized(list(variants))), shapes_of(weights)
    measurements = len(counts) * (len(shapes) * len(clock.states) * (1 + crossovers) + 1)
    bench = Bench(clock, progress, measurements)
    with torch.inference_mode():
        rows = [*_layers(models, base, counts, bench)]
        rows += (row for number in counts for row in _forward_passes(models, base, number, bench))
        frame = pd.DataFrame(rows, columns=list(TABLES["latency"].names))
        if crossovers and shapes:
            keys = ["name", "tokens", "cache"]
            edges = curves(shapes, counts, weights.prunable[0].dtype, bench)
            edges = edges.drop_duplicates(keys)[keys + _EDGES]
            frame = frame.drop(columns=_EDGES).merge(edges, how="left", on=keys)
    return typed("latency", frame)


def _layers(
    models: Models, base: int, tokens: Sequence[int], bench: Bench
) -> Iterator[dict[str, Any]]:
    """Yield a row per variant, shape, number of tokens and cache state."""
    for shape, parameters in shapes_of(models[base][0].weights).items():
        chosen = typical(models[-1][0], parameters)
        for number in tokens:
            calls = [layer_call(model, chosen, number) for _, model in models]
            facts = {"scope": "layer", "name": shape, "modules": len(parameters), "tokens": number}
            for cache in bench.states:
                yield from _compared(models, calls, base, facts | {"cache": cache}, bench)


def _forward_passes(
    models: Models, base: int, number: int, bench: Bench
) -> Iterator[dict[str, Any]]:
    """Yield a row per variant, none if a model does not accept so many tokens."""
    inputs = inputs_of(models[base][1], number)
    calls = [whole_call(*pair, inputs) for pair in models] if inputs else []
    facts = {"scope": "model", "name": "whole forward", "tokens": number}
    yield from _compared(models, calls, base, facts, bench)


def _compared(
    models: Models, calls: Sequence[Timed], base: int, facts: dict[str, Any], bench: Bench
) -> Iterator[dict[str, Any]]:
    """Time calls; yield promised and realised speed-ups over the base."""
    control, cache = _control(models, base), facts.get("cache")
    name = f"{facts['name']}, {facts['tokens']} tokens" + (f", {cache}" if cache else "")
    timing = bench.time(name, calls, base, control=control, cache=cache)
    if timing is None:
        return
    facts |= bench.facts(timing) | {"control": models[base if control is None else control][0].name}
    for (variant, _), call, time in zip(models, calls, timing.times, strict=False):
        promised = ratio(calls[base].flops, call.flops)
        yield (
            facts
            | time._asdict()
            | {
                "variant": variant.name,
                "sparsity": call.sparsity,
                "dtype": dtype_name(call.dtype),
                "kernel": call.kernel,
                "promised_speedup": promised,
                "realised_share": ratio(time.realised_speedup, promised),
                **bound(call.weight_bytes, time.seconds, timing, facts["bandwidth"]),
            }
        )


def _control(models: Models, base: int) -> int | None:
    """Return the index of a variant that runs the kernels of the base, None without one."""
    if models[base][0].layout != "dense":
        return None
    layouts = [variant.layout for variant, _ in models]
    return layouts.index("masked") if "masked" in layouts else None
