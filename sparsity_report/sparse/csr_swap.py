"""Replacement of layers of a model by layers stored as CSR."""

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
from sparsity_report.sparse.linear_csr import ExpertsCSR, LinearCSR

# Functions that multiply by their arguments.
_PRODUCTS = frozenset({
    "linear", "matmul", "mm", "bmm", "einsum", "conv1d", "conv2d", "multi_head_attention_forward",
    "_native_multi_head_attention", "_transformer_encoder_layer_fwd",
})  # fmt: skip
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def runs_as_csr(module: nn.Module, leaf: str, parent: nn.Module | None, name: str) -> bool:
    """Return True if a model computes the same with one of its parameters stored as CSR.

    That holds for the matrix of a layer that multiplies as ``nn.Linear`` or transformers'
    ``Conv1D``, unless the code of its parent multiplies by the matrix directly. It also holds for
    experts in one tensor that their module indexes one at a time.

    Parameters
    ----------
    module : nn.Module
        Module that owns the parameter.
    leaf : str
        Name of the parameter in the module.
    parent : nn.Module or None
        Parent of the module.
    name : str
        Name of the module in its parent.
    """
    if isinstance(module._modules.get(leaf), ExpertsCSR):
        return True
    tensor = module._parameters.get(leaf, module._parameters.get(f"{leaf}_orig"))
    if tensor is not None and not tensor.is_floating_point():
        return False
    if tensor is not None and tensor.ndim == 3:
        module_class: Any = type(module)
        indexed, otherwise_used = _attribute_uses(module_class)
        return leaf in indexed - otherwise_used
    return leaf == "weight" and _is_replaceable(module, parent, name)


def convert_linears_to_csr_(model: nn.Module, layers: Iterable[nn.Module]) -> nn.Module:
    """Replace `layers` inside `model` by :class:`LinearCSR`, in place.

    Parameters
    ----------
    model : nn.Module
        The model that holds them, e.g. after ``prune_global_magnitude_`` and ``freeze_pruning_``.
    layers : iterable of nn.Module
        ``nn.Linear`` or transformers ``Conv1D`` modules of `model`, e.g. from
        ``select_prunable_linears``. A module used in several places stays one module. A module
        that overrides ``forward``, has hooks, or whose parent multiplies by its weight directly
        stays unchanged, with a warning.

    Returns
    -------
    nn.Module
        The same `model`.

    Raises
    ------
    SparsityReportError
        A layer is not part of the model, carries a pruning mask, or has an unsupported dtype.

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
        raise SparsityReportError(
            f"layers: {missing} of them are not part of the model; give modules of this model"
        )
    kept = {id(c): c for parent, name, c in places if not _is_replaceable(c, parent, name)}
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
        skipped = ", ".join(f"{names[key]} ({type(layer).__name__})" for key, layer in kept.items())
        warnings.warn(
            f"LinearCSR cannot replace {skipped}: the model does not multiply by them as "
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
    csr.register_parameter("bias", bias)  # not a copy, because modules may share it
    return csr


def _is_replaceable(layer: nn.Module, parent: nn.Module | None, name: str) -> bool:
    """Return True if a :class:`LinearCSR` computes the same as a layer in its place."""
    parent_class: Any = type(parent)
    is_plain = isinstance(layer, LinearCSR) or keeps_forward(layer)
    return is_plain and (parent is None or name not in _multiplied_children(parent_class))


def keeps_forward(module: nn.Module) -> bool:
    """Return True if a layer multiplies as ``nn.Linear`` or ``Conv1D`` and does nothing else.

    Its class inherits their ``forward``, its parameters are not computed, and it has no hooks
    except those of pruning masks.

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
    has_parameters = all(
        leaf in module._parameters or f"{leaf}_mask" in module._buffers
        for leaf in ("weight", "bias")
    )
    return (
        has_parameters
        and type(module).forward in forwards
        and "forward" not in vars(module)
        and not module._modules
        and all(isinstance(hook, prune.BasePruningMethod) for hook in hooks)
    )


@lru_cache(maxsize=1024)
def _multiplied_children(module_class: Any) -> frozenset[str]:
    """Return the attributes by whose ``weight`` the code of a class multiplies."""
    names = set()
    for tree in _functions(module_class):
        for operand in map(_without_methods, _operands(tree)):
            match operand:
                case ast.Attribute(value=ast.Attribute(attr=name), attr="weight"):
                    names.add(name)
    return frozenset(names)


def _operands(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the operands of ``@`` and the arguments of functions that multiply."""
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(left=left, op=ast.MatMult(), right=right):
                yield from (left, right)
            case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in _PRODUCTS:
                yield from (value, *node.args, *(keyword.value for keyword in node.keywords))


def _without_methods(node: ast.expr) -> ast.expr:
    """Return the tensor of an expression without transpositions and other method calls."""
    while True:
        match node:
            case ast.Call(func=ast.Attribute(value=value)) | ast.Attribute(value, "T" | "mT"):
                node = value
            case _:
                return node


@lru_cache(maxsize=1024)
def _attribute_uses(module_class: Any) -> tuple[set[str], set[str]]:
    """Return the attributes that the code of a class indexes, and those it uses otherwise."""
    indexed: set[str] = set()
    otherwise_used: set[str] = set()
    for tree in _functions(module_class):
        parents = {id(part): node for node in ast.walk(tree) for part in ast.iter_child_nodes(node)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or getattr(node.value, "id", "") != "self":
                continue
            match parents[id(node)]:
                case ast.Subscript(value=value, slice=index) if value is node:
                    is_range = isinstance(index, ast.Slice | ast.Tuple)
                    (otherwise_used if is_range else indexed).add(node.attr)
                case ast.Attribute(attr="shape" | "dtype" | "device") | ast.Compare():
                    pass
                case _:
                    otherwise_used.add(node.attr)
    return indexed, otherwise_used


def _functions(module_class: Any) -> Iterator[ast.AST]:
    """Yield the methods of a class and its bases whose source is available."""
    for base in module_class.__mro__[: module_class.__mro__.index(nn.Module)]:
        for function in vars(base).values():
            if isinstance(function, FunctionType) and function.__name__ != "__init__":
                try:
                    yield ast.parse(textwrap.dedent(inspect.getsource(function)))
                except (OSError, TypeError, SyntaxError):
                    continue
