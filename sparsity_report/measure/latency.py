"""How long variants take on this machine, beside what their FLOPs promise."""

from __future__ import annotations

import inspect
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.benchmark import Timer

from sparsity_report.counting.counts import Progress
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.cost import linear_flops, sparse_flops
from sparsity_report.sparse.linear import LinearCSR
from sparsity_report.sparse.shares import ratio, zero_share
from sparsity_report.sparse.swap import keeps_forward
from sparsity_report.study.layers import csr_parameters, records, total_frame
from sparsity_report.study.schema import TABLES, typed
from sparsity_report.study.variants import Variant, materialized
from sparsity_report.weights.parameters import Parameter
from sparsity_report.weights.places import as_csr, locate, walk
from sparsity_report.weights.tensors import dtype_name
from sparsity_report.weights.weights import Weights

Models = Sequence[tuple[Variant, nn.Module]]

_LEVELS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
# A sample lasts at least this long, so that the clock's own cost disappears in it.
_SAMPLE = 1e-3
_RUNS, _FEWEST, _BUDGET = 25, 5, 2.0


class Time(NamedTuple):
    """Seconds per call: median and quartiles over `runs` samples."""

    seconds: float
    seconds_low: float
    seconds_high: float
    runs: int


def measure_latency(
    variants: Sequence[Variant],
    tokens: Sequence[int] = (1, 16, 128),
    *,
    crossovers: bool = True,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Time every distinct layer shape and the whole forward pass of variants.

    All variants are timed in turn, sample by sample, after warming up, so that a drift of the
    machine hits them alike; ``seconds`` is the median and ``seconds_low``, ``seconds_high`` the
    quartiles over ``runs`` samples. A shape is measured on its module of median nonzeros, where
    some run as CSR among these; of a module that does more than multiply, the product alone. The
    whole forward pass is that of one sequence of random tokens without a key-value cache; models
    that do not read token ids have layers only.

    Parameters
    ----------
    variants : sequence of Variant
        The first dense one, else the first, is what speed-ups are against.
    tokens : sequence of int
        Numbers of tokens that go through at a time.
    crossovers : bool
        Whether to measure, too, from which sparsity CSR is faster than dense, see
        :func:`crossover`.
    progress : callable, optional
        Called with measurements done, measurements in all and what is measured.

    Returns
    -------
    pandas.DataFrame
        ``scope`` is ``"layer"`` (``name`` is the shape, out
        × in, ``modules`` how many have it) or ``"model"``. ``promised_speedup`` is the ratio of
        FLOPs, ``realised_speedup`` that of seconds, ``realised_share`` realised ÷ promised.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.9)
    >>> variants = [sr.dense(pruning.weights), sr.csr(pruning)]
    >>> frame = sr.measure_latency(variants, tokens=[1], crossovers=False)
    >>> sorted(set(frame["name"]))
    ['128 × 128', '128 × 512', '512 × 128', 'whole forward']
    """
    if not variants:
        raise SparsityReportError("nothing to measure: give at least one variant")
    counts = _checked(tokens)
    base = next((n for n, variant in enumerate(variants) if variant.layout == "dense"), 0)
    weights = variants[base].weights
    for variant in variants:
        matrices = {(p.name, p.matrix) for p in variant.weights.parameters}
        if not matrices.issuperset((p.name, p.matrix) for p in weights.prunable):
            raise SparsityReportError(
                f"{variant.name} has other layers than {variants[base].name}; time variants of one "
                "model, or each model by itself"
            )
    models, shapes = list(materialized(list(variants))), _shapes(weights)
    step = _stepping(progress, len(counts) * (len(shapes) * (1 + crossovers) + 1))
    rows: list[dict[str, object]] = []
    with torch.inference_mode():
        for facts, calls in _measurements(models, base, shapes, counts):
            step(f"{facts['name']}, {facts['tokens']} tokens")
            rows += [facts | row for row in _compared(models, calls, base)]
    frame = pd.DataFrame(rows, columns=list(TABLES["latency"].names))
    frame["threads"], frame["machine"] = torch.get_num_threads(), _machine()
    if crossovers and shapes:
        dtype = weights.prunable[0].dtype
        edges = _curves(shapes, counts, dtype, step).drop_duplicates(["name", "tokens"])
        edges = edges[["name", "tokens", "crossover_sparsity"]]
        frame = frame.drop(columns="crossover_sparsity").merge(edges, how="left")
    return typed("latency", frame)


def crossover(
    weights: Weights,
    tokens: Sequence[int] = (1, 16, 128),
    *,
    dtype: str = "float32",
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Find the sparsity from which CSR is faster than dense here, per layer shape and tokens.

    ``LinearCSR`` layers with zeros at random are timed at eight sparsities against the dense
    layer, in turn; between two of them the speed-up is interpolated in its logarithm.

    Parameters
    ----------
    weights : Weights
        Whose prunable shapes are measured.
    tokens : sequence of int
    dtype : str
        Name of the torch dtype of values and input.
    progress : callable, optional
        Called with measurements done, measurements in all and what is measured.

    Returns
    -------
    pandas.DataFrame
        One row per shape, tokens and sparsity;
        ``crossover_sparsity`` is null where CSR is slower even at 99 %.
    """
    counts, shapes = _checked(tokens), _shapes(weights)
    if not shapes:
        raise SparsityReportError(f"{weights.name} has no prunable linear layer to measure")
    with torch.inference_mode():
        return _curves(shapes, counts, dtype, _stepping(progress, len(counts) * len(shapes)))


class _Call(NamedTuple):
    """Something to time, and what is known of it."""

    run: Callable[[], object]
    flops: int
    sparsity: float | None
    dtype: torch.dtype
    kernel: str


def _stepping(progress: Progress | None, steps: int) -> Callable[[str], None]:
    """Return what tells of the next of so many steps."""
    numbers = count()

    def step(what: str) -> None:
        if progress:
            progress(next(numbers), steps, what)

    return step


def _measurements(
    models: Models,
    base: int,
    shapes: dict[str, list[Parameter]],
    tokens: Sequence[int],
) -> Iterator[tuple[dict[str, object], list[_Call]]]:
    """Yield what is timed: a call of each variant, none where a model does not read so many."""
    for shape, parameters in shapes.items():
        chosen = _typical(models[-1][0], parameters)
        for number in tokens:
            facts = {"scope": "layer", "name": shape, "modules": len(parameters), "tokens": number}
            yield facts, [_layer_call(model, chosen, number) for _, model in models]
    for number in tokens:
        inputs = _inputs(models[base][1], number)
        calls = [] if inputs is None else [_whole_call(*pair, inputs) for pair in models]
        yield {"scope": "model", "name": "whole forward", "tokens": number}, calls


def _compared(models: Models, calls: Sequence[_Call], base: int) -> Iterator[dict[str, object]]:
    """Time calls and yield what each promised and realised against the one that is the base."""
    if not calls:
        return
    times = interleaved([call.run for call in calls])
    for (variant, _), call, time in zip(models, calls, times, strict=True):
        promised = ratio(calls[base].flops, call.flops)
        realised = times[base].seconds / time.seconds
        yield {
            "variant": variant.name,
            "sparsity": call.sparsity,
            "dtype": dtype_name(call.dtype),
            "kernel": call.kernel,
            **time._asdict(),
            "promised_speedup": promised,
            "realised_speedup": realised,
            "realised_share": ratio(realised, promised),
        }


def _checked(tokens: Sequence[int]) -> list[int]:
    counts = list(tokens)
    if not counts or any(not isinstance(n, int) or n < 1 for n in counts):
        raise SparsityReportError(f"tokens must be positive whole numbers, not {tokens!r}")
    return counts


def _shapes(weights: Weights) -> dict[str, list[Parameter]]:
    """Prunable parameters by the shape of their matrices, largest first."""
    shapes: dict[tuple[int, int], list[Parameter]] = {}
    for p in weights.prunable:
        if p.matrix is not None:
            shapes.setdefault(p.matrix, []).append(p)
    ordered = sorted(shapes.items(), key=lambda item: -math.prod(item[0]))
    return {f"{rows} × {columns}": parameters for (rows, columns), parameters in ordered}


def _typical(variant: Variant, parameters: Iterable[Parameter]) -> Parameter:
    """Return the parameter of median nonzeros; where some run as CSR, among these."""
    rows = variant.layers().set_index("module_name")["nonzero"]
    runs = csr_parameters(variant.weights)
    sparse = [p for p in parameters if p.name in runs]
    module_of = {p.name: m.name for m in variant.weights.modules for p in m.parameters}
    known = sorted(sparse or parameters, key=lambda p: rows[module_of[p.name]])
    return known[len(known) // 2]


def _layer_call(model: nn.Module, parameter: Parameter, tokens: int) -> _Call:
    module, leaf = locate(walk(model))[parameter.name]
    csr = as_csr(module, leaf)
    if csr is not None:
        return _csr_call(csr if isinstance(csr, LinearCSR) else csr[0], tokens)
    weight = cast(torch.Tensor, getattr(module, leaf)).detach()
    run: Any = module
    rows, columns = cast(tuple[int, int], parameter.matrix)
    if not keeps_forward(module):
        # What the module does besides is not known: the first of its matrices alone is timed.
        sizes = parameter.inputs_outputs
        weight = weight.reshape(-1, *(sizes or (rows, columns)))[0]
        weight = weight.T if sizes else weight
        run = partial(nn.functional.linear, weight=weight)
    x = torch.randn(tokens, columns, device=weight.device).to(weight.dtype)
    share = zero_share(weight.numel(), int(torch.count_nonzero(weight)))
    return _Call(partial(run, x), linear_flops(rows, columns), share, weight.dtype, "dense")


def _csr_call(layer: LinearCSR, tokens: int) -> _Call:
    values = layer.values
    x = torch.randn(tokens, layer.in_features, device=values.device).to(values.dtype)
    kernel = "CSR × vector" if tokens == 1 else "CSR × matrix"
    if layer.computes_in != values.dtype:
        kernel += f" in {dtype_name(layer.computes_in)}"
    flops = sparse_flops(layer.nnz)
    return _Call(partial(layer, x), flops, layer.sparsity, values.dtype, kernel)


def _whole_call(variant: Variant, model: nn.Module, inputs: dict[str, Any]) -> _Call:
    (total,) = records(total_frame(variant.layers()))
    flops, share = total["flops_per_token"], total["sparsity_prunable"]
    dtype = next(model.parameters()).dtype
    return _Call(partial(model, **inputs), flops, share, dtype, variant.layout)


def _inputs(model: nn.Module, tokens: int) -> dict[str, Any] | None:
    """Return one sequence of random tokens; None for a model that does not read so many."""
    config: Any = getattr(model, "config", None)
    if config is None or getattr(model, "main_input_name", "") != "input_ids":
        return None
    if tokens > (getattr(config, "max_position_embeddings", None) or tokens):
        return None
    embedding = cast(Any, model).get_input_embeddings().weight
    ids = torch.randint(embedding.shape[0], (1, tokens), device=embedding.device)
    inputs: dict[str, Any] = {"input_ids": ids}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids
    if "use_cache" in inspect.signature(model.forward).parameters:
        inputs["use_cache"] = False
    return inputs


def interleaved(calls: Sequence[Callable[[], object]]) -> list[Time]:
    """Time calls in turn, forth and back, until the samples or the time for them are enough."""
    threads = torch.get_num_threads()
    timers = [Timer("call()", globals={"call": call}, num_threads=threads) for call in calls]
    once = [min(timer.timeit(1).mean for _ in range(3)) for timer in timers]
    numbers = [max(1, math.ceil(_SAMPLE / seconds)) for seconds in once]
    samples: list[list[float]] = [[] for _ in timers]
    spent, places = 0.0, list(range(len(timers)))
    while len(samples[0]) < _RUNS and (len(samples[0]) < _FEWEST or spent < _BUDGET * len(calls)):
        for place in places:
            seconds = timers[place].timeit(numbers[place]).mean
            samples[place].append(seconds)
            spent += seconds * numbers[place]
        places.reverse()
    quartiles = [np.quantile(times, [0.5, 0.25, 0.75]).tolist() for times in samples]
    return [Time(middle, low, high, len(samples[0])) for middle, low, high in quartiles]


def _curves(
    shapes: dict[str, list[Parameter]],
    tokens: Sequence[int],
    dtype: str,
    step: Callable[[str], None],
) -> pd.DataFrame:
    rows, kind = [], getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise SparsityReportError(f"dtype must name a torch dtype of floats, not {dtype!r}")
    for shape, parameters in shapes.items():
        out, columns = cast(tuple[int, int], parameters[0].matrix)
        weight = torch.randn(out, columns)
        order = torch.rand(out, columns)
        layers = [LinearCSR((weight * (order >= level)).to(kind)) for level in _LEVELS]
        dense = weight.to(kind)
        for number in tokens:
            step(f"crossover of {shape}, {number} tokens")
            x = torch.randn(number, columns).to(kind)
            calls = [partial(nn.functional.linear, x, dense), *(partial(o, x) for o in layers)]
            base, *times = (time.seconds for time in interleaved(calls))
            speedups = [base / seconds for seconds in times]
            edge = crossing(_LEVELS, speedups)
            for level, seconds, speedup in zip(_LEVELS, times, speedups, strict=True):
                rows.append((shape, number, dtype, level, base, seconds, speedup, edge))
    return typed("crossover", pd.DataFrame(rows, columns=list(TABLES["crossover"].names)))


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


@lru_cache(maxsize=1)
def _machine() -> str:
    """Name the processor and the libraries that do the arithmetic."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    mkl = ", MKL" if torch.backends.mkl.is_available() else ""
    return f"{name}, torch {torch.__version__}{mkl}"
