"""Where a layer that is stored as CSR can stand in for a part of a model, and the swap."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from types import FunctionType
from typing import Any

from torch import nn
from torch.nn.utils import prune

from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.experts import ExpertsCSR
from sparsity_report.sparse.linear_csr import LinearCSR

# What multiplies by its arguments.
_PRODUCTS = frozenset({
    "linear", "matmul", "mm", "bmm", "einsum", "conv1d", "conv2d", "multi_head_attention_forward",
    "_native_multi_head_attention", "_transformer_encoder_layer_fwd",
})  # fmt: skip
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def runs_as_csr(module: nn.Module, leaf: str, parent: nn.Module | None, name: str) -> bool:
    """Whether a model computes the same with one of its parameters stored as CSR.

    It does with a matrix whose layer multiplies as ``nn.Linear`` or transformers' ``Conv1D`` does,
    unless the module around that multiplies by the matrix itself; and with experts in one tensor
    which their module takes one at a time.

    Parameters
    ----------
    module : nn.Module
        What holds the parameter.
    leaf : str
        What the module calls the parameter.
    parent : nn.Module or None
        The module around.
    name : str
        What the parent calls the module.
    """
    if isinstance(module._modules.get(leaf), ExpertsCSR):
        return True
    tensor = module._parameters.get(leaf, module._parameters.get(f"{leaf}_orig"))
    if tensor is not None and not tensor.is_floating_point():
        return False
    if tensor is not None and tensor.ndim == 3:
        kind: Any = type(module)
        by_index, otherwise = _taken(kind)
        return leaf in by_index - otherwise
    return leaf == "weight" and _stands_in(module, parent, name)


def convert_linears_to_csr_(model: nn.Module, layers: Iterable[nn.Module]) -> nn.Module:
    """Replace `layers` inside `model` by :class:`LinearCSR`, in place.

    Parameters
    ----------
    model : nn.Module
        The model that holds them, e.g. after ``prune_global_magnitude_`` and ``freeze_pruning_``.
    layers : iterable of nn.Module
        ``nn.Linear`` or transformers ``Conv1D`` modules of `model`, e.g. from
        ``select_prunable_linears``. A module used in several places stays one module. One that
        multiplies in its own way, has hooks, or whose weight the module around it multiplies by
        itself, stays as it is; a warning names it.

    Returns
    -------
    nn.Module
        The same `model`.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    >>> convert_linears_to_csr_(model, [model[0]])[0].total
    8
    """
    wanted = {id(layer) for layer in layers}
    names = {id(module): name for name, module in model.named_modules()}
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent._modules.items()
        if child is not None and id(child) in wanted
    ]
    if missing := len(wanted - {id(child) for _, _, child in places}):
        raise SparsityReportError(f"{missing} of the layers to convert are not part of the model")
    kept = {
        id(child): child for parent, name, child in places if not _stands_in(child, parent, name)
    }
    replaced: dict[int, LinearCSR] = {}
    for parent, name, child in places:
        if id(child) in kept:
            continue
        if id(child) not in replaced:
            try:
                replaced[id(child)] = _as_csr(child).train(child.training)
            except SparsityReportError as error:
                raise SparsityReportError(f"layer {names[id(child)]!r}: {error}") from error
        setattr(parent, name, replaced[id(child)])
    if kept:
        told = ", ".join(f"{names[key]} ({type(layer).__name__})" for key, layer in kept.items())
        warnings.warn(
            f"LinearCSR cannot stand in for {told}: the model does not multiply by them as "
            "nn.Linear does, so they stay dense with their zeros",
            stacklevel=2,
        )
    return model


def _as_csr(layer: nn.Module) -> LinearCSR:
    if isinstance(layer, LinearCSR):
        return layer
    if hasattr(layer, "weight_orig"):
        raise SparsityReportError("still carries a pruning mask; call freeze_pruning_ first")
    weight, bias = layer._parameters["weight"], layer._parameters["bias"]
    assert weight is not None
    transposed = type(layer).forward is not nn.Linear.forward
    csr = LinearCSR(weight.T if transposed else weight)
    if transposed:
        csr.transposed = True
    csr.register_parameter("bias", bias)  # itself, as others may share it
    return csr


def _stands_in(layer: nn.Module, parent: nn.Module | None, name: str) -> bool:
    """Whether a :class:`LinearCSR` computes the same in the place of a layer."""
    kind: Any = type(parent)
    plain = isinstance(layer, LinearCSR) or keeps_forward(layer)
    return plain and (parent is None or name not in _multiplied(kind))


def keeps_forward(module: nn.Module) -> bool:
    """Whether a layer multiplies as ``nn.Linear`` or ``Conv1D`` does, and does nothing else.

    Its class is one of these or inherits their forward, its parameters are its own and not
    computed, and nothing is hooked to it but masks of torch's pruning.

    Examples
    --------
    >>> class Scaled(nn.Linear):
    ...     def forward(self, x):
    ...         return 2 * super().forward(x)
    >>> keeps_forward(nn.Linear(2, 2)), keeps_forward(Scaled(2, 2))
    (True, False)
    """
    utils = sys.modules.get("transformers.pytorch_utils")
    forwards: tuple[object, ...] = (nn.Linear.forward, *([utils.Conv1D.forward] if utils else []))
    hooks = [hook for kind in _HOOKS for hook in vars(module)[kind].values()]
    own = all(
        leaf in module._parameters or f"{leaf}_mask" in module._buffers
        for leaf in ("weight", "bias")
    )
    return (
        own
        and type(module).forward in forwards
        and "forward" not in vars(module)
        and not module._modules
        and all(isinstance(hook, prune.BasePruningMethod) for hook in hooks)
    )


@lru_cache(maxsize=1024)
def _multiplied(kind: Any) -> frozenset[str]:
    """Name the attributes whose ``weight`` the code of a class multiplies by itself."""
    names = set()
    for tree in _functions(kind):
        for operand in map(_bare, _operands(tree)):
            match operand:
                case ast.Attribute(value=ast.Attribute(attr=name), attr="weight"):
                    names.add(name)
    return frozenset(names)


def _operands(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield what stands beside ``@``, and what functions get that multiply."""
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(left=left, op=ast.MatMult(), right=right):
                yield from (left, right)
            case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in _PRODUCTS:
                yield from (value, *node.args, *(keyword.value for keyword in node.keywords))


def _bare(node: ast.expr) -> ast.expr:
    """Take away transpositions and other methods that a tensor is called with."""
    while True:
        match node:
            case ast.Call(func=ast.Attribute(value=value)):
                node = value
            case ast.Attribute(value=value, attr="T" | "mT"):
                node = value
            case _:
                return node


@lru_cache(maxsize=1024)
def _taken(kind: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Name the attributes that the code of a class takes by an index, and those otherwise."""
    by_index: set[str] = set()
    otherwise: set[str] = set()
    for tree in _functions(kind):
        around = {id(part): node for node in ast.walk(tree) for part in ast.iter_child_nodes(node)}
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(value=ast.Name(id="self"), attr=name):
                    pass
                case _:
                    continue
            match around[id(node)]:
                case ast.Subscript(value=taken, slice=index) if taken is node:
                    whole = isinstance(index, ast.Slice | ast.Tuple)
                    (otherwise if whole else by_index).add(name)
                case ast.Attribute(attr="shape" | "dtype" | "device") | ast.Compare():
                    pass
                case _:
                    otherwise.add(name)
    return frozenset(by_index), frozenset(otherwise)


def _functions(kind: Any) -> Iterator[ast.AST]:
    """Yield the code of a class and those it is derived from; none where it cannot be read."""
    for base in kind.__mro__[: kind.__mro__.index(nn.Module)]:
        for function in vars(base).values():
            if isinstance(function, FunctionType) and function.__name__ != "__init__":
                try:
                    yield ast.parse(textwrap.dedent(inspect.getsource(function)))
                except (OSError, TypeError, SyntaxError):
                    continue
