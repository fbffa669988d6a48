"""Places of parameters in a live model: find, read, write and copy them.

Wrappers, pruning masks of torch, parametrizations, shared modules and CSR are transparent.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]
from torch.nn.utils import parametrize

from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.linear_csr import ExpertCSR, ExpertsCSR, LinearCSR
from sparsity_report.weights.torch_tensors import is_strided

# torch.compile and PEFT wrap modules under these names, which are not part of the model.
_WRAPPER_WORDS = {"_orig_mod", "base_layer"}


@dataclass(slots=True)
class Place:
    """A module of a model, at its first occurrence.

    Attributes
    ----------
    path : str
        Dotted name without wrappers.
    module : nn.Module
    around : tuple of nn.Module
        Enclosing modules, nearest first.
    tensors : dict
        Parameters under their plain names, pruning masks applied.
    times : int
        Number of occurrences in the model.
    """

    path: str
    module: nn.Module
    around: tuple[nn.Module, ...]
    tensors: dict[str, torch.Tensor]
    times: int = 1

    def full_name(self, leaf: str) -> str:
        """Return the dotted name of one of its parameters."""
        return f"{self.path}.{leaf}" if self.path else leaf

    def shape(self, leaf: str) -> tuple[int, ...]:
        """Return the shape of one of its parameters."""
        csr = as_csr(self.module, leaf)
        return csr.weight_shape if csr else tuple(self.tensors[leaf].shape)


def walk(model: nn.Module) -> list[Place]:
    """Return every module of a model once, the model itself without its wrappers first."""
    places: dict[int, Place] = {}
    waiting: list[tuple[str, nn.Module, tuple[nn.Module, ...]]] = [("", _unwrapped(model), ())]
    while waiting:
        path, module, around = waiting.pop()
        if id(module) in places:
            places[id(module)].times += 1
        else:
            places[id(module)] = Place(path, module, around, tensors_of(module))
        if children := module._modules:
            dot, inside = f"{path}." if path else "", (module, *around)
            waiting += [
                (path if name in _WRAPPER_WORDS else dot + name, child, inside)
                for name, child in reversed(children.items())
                if child is not None
            ]
    return list(places.values())


def locate(places: Sequence[Place]) -> dict[str, tuple[nn.Module, str]]:
    """Return the module and attribute of every described parameter, by name."""
    return {p.full_name(leaf): (p.module, leaf) for p in places for leaf in p.tensors}


def value(module: nn.Module, leaf: str) -> torch.Tensor:
    """Return the values of a described parameter: dense, pruning mask applied."""
    if f"{leaf}_mask" in module._buffers:
        tensor = getattr(module, f"{leaf}_orig") * getattr(module, f"{leaf}_mask")
    else:
        csr = as_csr(module, leaf)
        tensor = csr.weight if csr else attrgetter(leaf)(module)
    assert isinstance(tensor, torch.Tensor)
    return tensor.detach() if is_strided(tensor) else tensor.detach().to_dense()


def put_(module: nn.Module, leaf: str, tensor: torch.Tensor) -> None:
    """Put a changed tensor from :func:`value` into the module; CSR stays CSR, others dense."""
    if csr := as_csr(module, leaf):
        csr.assign_(tensor)
    elif not is_strided(current := attrgetter(leaf)(module)):
        if current.layout == torch.sparse_csr:
            tensor = tensor.to_sparse_csr()
            indices = (tensor.crow_indices().int(), tensor.col_indices().int())
            tensor = torch.sparse_csr_tensor(*indices, tensor.values(), tensor.shape)
        setattr(module, leaf, nn.Parameter(tensor, requires_grad=False))


def as_csr(module: nn.Module, leaf: str) -> LinearCSR | ExpertsCSR | None:
    """Return the CSR holder of a described parameter, None for a tensor."""
    if isinstance(module, LinearCSR):
        return module if leaf == "weight" else None
    child = module._modules.get(leaf)
    return child if isinstance(child, ExpertsCSR) else None


def _unwrapped(model: nn.Module) -> nn.Module:
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _unwrapped(cast(nn.Module, model.module))
    if type(model).__module__.startswith("peft."):
        return _unwrapped(cast(Any, model).get_base_model())
    return cast(nn.Module, getattr(model, "_orig_mod", model))


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return a module's parameters under their plain names, pruning masks applied."""
    # These are the parameters of the module around them.
    if isinstance(module, ExpertCSR | parametrize.ParametrizationList):
        return {}
    tensors: dict[str, torch.Tensor] = {}
    if isinstance(module, LinearCSR):
        tensors["weight"] = module.values
    for name, child in module._modules.items():
        if isinstance(child, ExpertsCSR):
            tensors[name] = child[0].values
    for leaf, parameter in module._parameters.items():
        if parameter is None:
            continue
        # The mixin, because torch's check for UninitializedParameter is slow.
        if isinstance(parameter, UninitializedTensorMixin):
            raise SparsityReportError(
                f"{type(module).__name__}.{leaf} is lazy and has no shape yet; "
                "run one forward pass first"
            )
        plain = leaf.removesuffix("_orig")
        tensors[plain if f"{plain}_mask" in module._buffers else leaf] = parameter
    if "parametrizations" in module._modules:
        for name, originals in cast(nn.ModuleDict, module.parametrizations).items():
            for leaf, parameter in originals._parameters.items():
                if parameter is not None:
                    tensors[f"parametrizations.{name}.{leaf}"] = parameter
    return tensors


def computed_by(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yield tensors that a module has computed from others, as torch's pruning does."""
    values = vars(module).values()
    return (v for v in values if isinstance(v, torch.Tensor) and not v.is_leaf)


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model that preserves shared memory.

    ``copy.deepcopy`` copies parameters that are views of one storage separately, and refuses
    sparse tensors and the computed ``weight`` of a module that torch has pruned.
    """
    copies: dict[int, Any] = {}
    sharing: dict[tuple[torch.device, int], dict[int, torch.Tensor]] = defaultdict(dict)
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is None or tensor.is_meta:
                continue
            if tensor.layout != torch.strided:
                copies[id(tensor)] = _like(tensor, tensor.detach().clone())
            elif is_strided(tensor) and tensor.numel():
                start = tensor.untyped_storage().data_ptr()
                sharing[tensor.device, start][id(tensor)] = tensor
        for computed in computed_by(module):
            copies[id(computed)] = computed.detach().clone()
    for tensors in sharing.values():
        if len(tensors) > 1:
            memory = next(iter(tensors.values())).untyped_storage().clone()
            for key, tensor in tensors.items():
                place = tensor.storage_offset(), tensor.shape, tensor.stride()
                view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
                copies[key] = _like(tensor, view.set_(memory, *place))
    return copy.deepcopy(model, copies)


def _like(tensor: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return values as a parameter if `tensor` is one."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(values, tensor.requires_grad)
    return values
