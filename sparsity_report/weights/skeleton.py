"""Describe the modules and parameters of a model from its ``nn.Module``, values not needed.

A model built from its config on the meta device serves as well as a loaded one, so the file and
the module route share this single description.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError
from sparsity_report.groups import LINEAR_GROUPS, classify, is_linear
from sparsity_report.linear_csr import LinearCSR
from sparsity_report.weights.base import Module, Parameter

# torch.compile and DataParallel put these names around a model; they are not part of it.
_WRAPPER_WORDS = {"_orig_mod"}


def meta_model(config: Any, classes: Sequence[str]) -> nn.Module:
    """Build a model from a transformers config without memory for its weights.

    Parameters
    ----------
    config : transformers.PretrainedConfig
    classes : sequence of str
        The config's ``architectures``; the first that transformers has is built, else the
        model type's causal LM, else its base model.
    """
    import transformers

    with torch.device("meta"):
        for name in classes:
            found = getattr(transformers, name, None)
            if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
                return cast(nn.Module, found(config))
        auto = transformers.AutoModelForCausalLM
        if type(config) not in auto._model_mapping:
            auto = transformers.AutoModel
        return cast(nn.Module, auto.from_config(config))


def describe(
    model: nn.Module,
    *,
    blacklist: Collection[str] = ("lm_head",),
    rules: Mapping[str, str] | None = None,
    dtype: Callable[[str], str] | None = None,
) -> tuple[Module, ...]:
    """Return every module of `model` that owns parameters, with its group and parameters.

    Parameters
    ----------
    model : nn.Module
        On any device, ``meta`` included.
    blacklist : collection of str
        Modules with one of these words in their dotted name are not prunable.
    rules : mapping of pattern to group, optional
        The user's own grouping, see :func:`sparsity_report.groups.classify`.
    dtype : callable, optional
        Gives the dtype a parameter has at its source, by name; the model's own by default.
    """
    model = _unwrapped(model)
    named = dict(model.named_modules())
    embedding_id, head_id = (_embedding_id(model, side) for side in ("input", "output"))
    owners = _owners(named, embedding_id)
    modules = []
    for path, module in named.items():
        tensors = _tensors(module)
        if not tensors:
            continue
        name = _clean(path)
        class_name = type(module).__name__
        parts = path.split(".")
        enclosing = [
            type(named[".".join(parts[:end])]).__name__ for end in range(len(parts) - 1, -1, -1)
        ]
        is_head = id(module) == head_id
        group = classify(name, class_name, enclosing=enclosing, head=is_head, rules=rules)
        may_prune = group in LINEAR_GROUPS and not set(blacklist).intersection(parts)
        parameters = []
        for leaf, tensor in tensors.items():
            full = f"{name}.{leaf}" if name else leaf
            owner = owners[id(tensor)]
            csr = isinstance(module, LinearCSR) and leaf == "weight"
            shape = module.dense_shape if csr else tuple(tensor.shape)
            matrix = _matrix(class_name, shape, is_head and leaf == "weight")
            kind = dtype(full) if dtype else dtype_name(tensor.dtype)
            parameters.append(
                Parameter(
                    name=full,
                    shape=shape,
                    dtype=kind,
                    itemsize=getattr(torch, kind).itemsize,
                    matrix=matrix,
                    prunable=may_prune and matrix is not None and owner == full,
                    tied_to=None if owner == full else owner,
                    layout="csr" if csr else "dense",
                )
            )
        modules.append(Module(name, class_name, group, tuple(parameters)))
    shared = {p.tied_to for m in modules for p in m.parameters if p.tied_to}
    return tuple(_unprunable(module, shared) for module in modules)


def locate(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Map the name of every described parameter to the module and attribute that hold it."""
    return {
        f"{_clean(path)}.{leaf}" if path else leaf: (module, leaf)
        for path, module in _unwrapped(model).named_modules()
        for leaf in _tensors(module)
    }


def value(module: nn.Module, leaf: str) -> torch.Tensor:
    """Return the tensor a described parameter stands for: dense, pruning mask applied."""
    if leaf in module._parameters or isinstance(module, LinearCSR):
        tensor = getattr(module, leaf)
    else:
        tensor = getattr(module, f"{leaf}_orig") * getattr(module, f"{leaf}_mask")
    assert isinstance(tensor, torch.Tensor)
    return tensor.detach()


def dtype_name(dtype: torch.dtype) -> str:
    """Name of a torch dtype, e.g. ``"bfloat16"``."""
    return str(dtype).removeprefix("torch.")


def _unwrapped(model: nn.Module) -> nn.Module:
    parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    return cast(nn.Module, model.module) if parallel else model


def _clean(path: str) -> str:
    return ".".join(part for part in path.split(".") if part not in _WRAPPER_WORDS)


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Own parameters under their plain names; masks of torch's pruning folded in."""
    found: dict[str, torch.Tensor] = {}
    if isinstance(module, LinearCSR):
        found["weight"] = module.values
    for leaf, parameter in module._parameters.items():
        if parameter is None:
            continue
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise SparsityReportError(
                f"{type(module).__name__}.{leaf} is lazy and has no shape yet; "
                "run one forward pass first"
            )
        plain = leaf.removesuffix("_orig")
        found[plain if f"{plain}_mask" in module._buffers else leaf] = parameter
    return found


def _owners(named: Mapping[str, nn.Module], embedding_id: int | None) -> dict[int, str]:
    """Name the parameter under which each tensor is counted: the embedding, else the first."""
    owners: dict[int, str] = {}
    for path, module in named.items():
        for leaf, tensor in _tensors(module).items():
            full = f"{_clean(path)}.{leaf}" if path else leaf
            if id(module) == embedding_id and leaf == "weight":
                owners[id(tensor)] = full
            else:
                owners.setdefault(id(tensor), full)
    return owners


def _embedding_id(model: nn.Module, side: str) -> int | None:
    try:
        found = getattr(model, f"get_{side}_embeddings")()
    except (AttributeError, NotImplementedError):
        return None
    return id(found) if isinstance(found, nn.Module) else None


def _matrix(class_name: str, shape: tuple[int, ...], head: bool) -> tuple[int, int] | None:
    if len(shape) != 2 or not (head or is_linear(class_name)):
        return None
    rows, columns = shape
    return (columns, rows) if class_name == "Conv1D" else (rows, columns)


def _unprunable(module: Module, names: Collection[str | None]) -> Module:
    """Take back `prunable` from parameters that others are tied to."""
    if not any(p.prunable and p.name in names for p in module.parameters):
        return module
    parameters = tuple(
        replace(p, prunable=p.prunable and p.name not in names) for p in module.parameters
    )
    return replace(module, parameters=parameters)
