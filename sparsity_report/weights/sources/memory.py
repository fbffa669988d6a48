"""Weights of an ``nn.Module`` in memory."""

import copy
from collections import defaultdict
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.anatomy.describe import ReaderOptions, describe
from sparsity_report.weights.anatomy.parameter_places import (
    computed_by,
    is_strided,
    locate,
    value,
    walk,
)
from sparsity_report.weights.weights import Weights, float8_notes

_DEFAULT = ReaderOptions()


class ModuleWeights(Weights):
    """A view of a live model; its values are read when they are first counted."""

    def __init__(self, model: nn.Module, options: ReaderOptions = _DEFAULT) -> None:
        config = getattr(model, "config", None)
        path = getattr(config, "_name_or_path", "")
        places = walk(model)
        description = describe(places, options)
        kind, modules = type(model).__name__, description.modules
        name, widths = options.name or path or kind, description.attention_widths
        notes = float8_notes(modules) + description.notes
        super().__init__(name, "module", kind, modules, widths, notes)
        self._model = model
        self._places = locate(places)

    def tensor(self, name: str) -> torch.Tensor:
        """Return the live tensor with its pruning mask applied."""
        if name not in self._places:
            raise SparsityReportError(
                f"{self.name} has no parameter named {name!r}; see weights.parameters"
            )
        tensor = value(*self._places[name])
        if tensor.is_meta:
            raise SparsityReportError(
                f"{self.name}: {name} is on the meta device and has no values to count; load it "
                "with them"
            )
        return tensor

    def module(self) -> nn.Module:
        """Return a deep copy of the model with its pruning masks made permanent.

        A model with float8 weights, for which torch has no products, is copied to float32.
        """
        model = copied(self._model)
        for module in model.modules():
            for leaf in [name.removesuffix("_mask") for name in module._buffers]:
                if (original := module._parameters.get(f"{leaf}_orig")) is not None:
                    # Parameters tied to it have no mask.
                    alone = nn.Parameter(original.detach().clone(), original.requires_grad)
                    module._parameters[f"{leaf}_orig"] = alone
                    prune.remove(module, leaf)
        return model.float() if float8_notes(self.modules) else model


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
