"""Calls to time: products of layers and forward passes of models, without arguments."""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from sparsity_report.measure.clock import Call, numbers
from sparsity_report.sparse.cost import linear_flops, sparse_flops
from sparsity_report.sparse.csr_swap import keeps_forward
from sparsity_report.sparse.linear_csr import LinearCSR
from sparsity_report.sparse.shares import zero_share
from sparsity_report.study.layers import csr_parameters, records, total_frame
from sparsity_report.study.variants import Variant
from sparsity_report.weights.anatomy.parameter_places import as_csr, locate, walk
from sparsity_report.weights.torch_tensors import tensor_dtype
from sparsity_report.weights.weights import Parameter, Weights

# Most copies of a layer; a smaller layer is always in the cache.
_COPIES = 10_000


class Timed(NamedTuple):
    """A call to time and its properties.

    Attributes
    ----------
    run : callable
    again : callable or None
        Makes the same call with a copy of the weights; None for a whole model.
    flops : int or None
    sparsity : float or None
    dtype : torch.dtype
    kernel : str
    weight_bytes : int or None
        Bytes of weights read per call.
    """

    run: Call
    again: Callable[[], Call] | None
    flops: int | None
    sparsity: float | None
    dtype: torch.dtype
    kernel: str
    weight_bytes: int | None


def prepared(calls: Sequence[Timed], streamed: int | None) -> tuple[list[Call], list[int]] | None:
    """Warm calls up; let each cycle through copies of its weights if `streamed` is given.

    Parameters
    ----------
    calls : sequence of Timed
    streamed : int or None
        Bytes that the cache cannot hold, see :func:`copies_needed`; None repeats the same weights.

    Returns
    -------
    (calls, numbers) or None
        The calls, and the number of each per sample. None if the matrices are so small that more
        than 10,000 copies would be needed.
    """
    runs = [call.run for call in calls]
    counts = numbers(runs)
    if streamed is None:
        return runs, counts
    sizes = [call.weight_bytes or 0 for call in calls]
    needed = copies_needed(sizes, counts, streamed)
    if sum(needed) > _COPIES:
        return None
    threads, turning = torch.get_num_threads(), []
    # Threads slow thousands of short calls down.
    torch.set_num_threads(1)
    try:
        for call, copies in zip(calls, needed, strict=True):
            assert call.again is not None
            several = [call.again() for _ in range(copies)]
            for one in several:
                one()
            turning.append(cycling(several))
    finally:
        torch.set_num_threads(threads)
    return turning, counts


def copies_needed(sizes: Sequence[int], numbers: Sequence[int], streamed: int) -> list[int]:
    """Return the number of copies per call that keeps every copy out of the cache.

    In a round each call reads its next `numbers` copies. Between two reads of the same copy lie
    all reads of the other calls in the rounds of a cycle, and at least one sample.

    Parameters
    ----------
    sizes : sequence of int
        Bytes of weights that each call reads.
    numbers : sequence of int
        Calls per sample.
    streamed : int
        Bytes to read between two reads of the same copy.

    Returns
    -------
    list of int
        All copies of all calls take about `streamed` bytes, or as many as one round reads.

    Examples
    --------
    One call reads 8 bytes ten times a round, another reads 1 byte twenty times:

    >>> copies_needed([8, 1], [10, 20], 1000)
    [100, 200]
    """
    each_round = sum(size * number for size, number in zip(sizes, numbers, strict=True)) or 1
    needed = []
    for size, number in zip(sizes, numbers, strict=True):
        within = min(number, math.ceil(streamed / max(1, size)) + 1)
        needed.append(max(2, within, math.ceil(streamed * number / each_round)))
    return needed


def cycling(calls: Sequence[Call]) -> Call:
    """Return a call that runs the given calls in turn, again and again.

    Examples
    --------
    >>> call = cycling([lambda: 1, lambda: 2])
    >>> call(), call(), call()
    (1, 2, 1)
    """
    following = cycle(calls).__next__
    return lambda: following()()


def shapes_of(weights: Weights) -> dict[str, list[Parameter]]:
    """Return prunable parameters by the shape (out × in) of their matrices, largest first."""
    shapes: dict[tuple[int, int], list[Parameter]] = {}
    for p in weights.prunable:
        if p.matrix is not None:
            shapes.setdefault(p.matrix, []).append(p)
    ordered = sorted(shapes.items(), key=lambda item: -math.prod(item[0]))
    return {f"{rows} × {columns}": parameters for (rows, columns), parameters in ordered}


def typical(variant: Variant, parameters: Iterable[Parameter]) -> Parameter:
    """Return the parameter with the median number of nonzeros, among those in CSR if any."""
    rows = variant.layers().set_index("module_name")["nonzero"]
    runs = csr_parameters(variant.weights)
    sparse = [p for p in parameters if p.name in runs]
    module_of = {p.name: m.name for m in variant.weights.modules for p in m.parameters}
    known = sorted(sparse or parameters, key=lambda p: rows[module_of[p.name]])
    return known[len(known) // 2]


def layer_call(model: nn.Module, parameter: Parameter, tokens: int) -> Timed:
    """Return the product of one layer with random tokens."""
    module, leaf = locate(walk(model))[parameter.name]
    csr = as_csr(module, leaf)
    if csr is not None:
        return csr_call(csr if isinstance(csr, LinearCSR) else csr[0], tokens)
    weight = cast(torch.Tensor, getattr(module, leaf)).detach()
    rows, columns = cast(tuple[int, int], parameter.matrix)
    if keeps_forward(module):
        x = torch.randn(tokens, columns, device=weight.device).to(weight.dtype)
        run, again = partial(module, x), lambda: partial(deepcopy(module), x)
        return _dense(weight, run, again)
    # The module does more than multiply: only its first matrix is timed.
    sizes = parameter.inputs_outputs
    weight = weight.reshape(-1, *(sizes or (rows, columns)))[0]
    return dense_call(weight.T if sizes else weight, tokens)


def dense_call(weight: torch.Tensor, tokens: int) -> Timed:
    """Return the product of a matrix (out × in) with random tokens."""
    x = torch.randn(tokens, weight.shape[1], device=weight.device).to(weight.dtype)
    multiply = partial(nn.functional.linear, x)
    return _dense(weight, partial(multiply, weight), lambda: partial(multiply, weight.clone()))


def _dense(weight: torch.Tensor, run: Call, again: Callable[[], Call]) -> Timed:
    flops = linear_flops(*weight.shape)
    share = zero_share(weight.numel(), int(torch.count_nonzero(weight)))
    return Timed(run, again, flops, share, weight.dtype, "dense", weight.nbytes)


def csr_call(layer: LinearCSR, tokens: int) -> Timed:
    """Return the product of a CSR layer with random tokens."""
    values = layer.values
    x = torch.randn(tokens, layer.in_features, device=values.device).to(values.dtype)
    kernel = "CSR × vector" if tokens == 1 else "CSR × matrix"
    if layer.computes_in != values.dtype:
        kernel += f" in {tensor_dtype(layer.computes_in)}"
    read = layer.col_indices.nbytes + layer.crow_indices.nbytes
    read += values.numel() * layer.computes_in.itemsize
    run, again = partial(layer, x), lambda: partial(deepcopy(layer), x)
    flops = sparse_flops(layer.nnz)
    return Timed(run, again, flops, layer.sparsity, values.dtype, kernel, read)


def whole_call(variant: Variant, model: nn.Module, inputs: dict[str, Any]) -> Timed:
    """Return the forward pass of a variant."""
    (total,) = records(total_frame(variant.layers()))
    flops, share = total["flops_per_token"], total["sparsity_prunable"]
    dtype = next(model.parameters()).dtype
    return Timed(partial(model, **inputs), None, flops, share, dtype, variant.layout, None)


def inputs_of(model: nn.Module, tokens: int) -> dict[str, Any] | None:
    """Return one sequence of random tokens, None if the model cannot read it."""
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
