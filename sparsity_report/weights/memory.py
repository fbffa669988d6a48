"""Weights of an ``nn.Module`` already in memory."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.attention import attention_widths
from sparsity_report.weights.describe import ReaderOptions, describe
from sparsity_report.weights.places import locate, value, walk
from sparsity_report.weights.weights import Weights

_DEFAULT = ReaderOptions()


class ModuleWeights(Weights):
    """A view of a live model: counted when first asked, so count before you change it."""

    def __init__(self, model: nn.Module, options: ReaderOptions = _DEFAULT) -> None:
        config = getattr(model, "config", None)
        path = getattr(config, "_name_or_path", "")
        places = walk(model)
        super().__init__(
            name=options.name or path or type(model).__name__,
            source="module",
            architecture=type(model).__name__,
            modules=describe(places, options),
            attention_widths=attention_widths(places),
        )
        self._model = model
        self._places = locate(places)

    def tensor(self, name: str) -> torch.Tensor:
        """Return the live tensor, pruning mask applied."""
        if name not in self._places:
            raise SparsityReportError(f"{self.name} has no parameter named {name!r}")
        tensor = value(*self._places[name])
        if tensor.is_meta:
            raise SparsityReportError(
                f"{self.name}: {name} is on the meta device and has no values to count"
            )
        return tensor

    def module(self) -> nn.Module:
        """Return a deep copy of the model, its pruning masks made permanent."""
        # deepcopy refuses the computed `weight` that torch's pruning leaves behind, ...
        copies: dict[int, Any] = {
            id(value): value.detach().clone()
            for module in self._model.modules()
            for value in vars(module).values()
            if isinstance(value, torch.Tensor) and not value.is_leaf
        }
        # ... and sparse parameters.
        for p in self._model.parameters():
            if p.layout != torch.strided:
                copies[id(p)] = nn.Parameter(p.detach().clone(), p.requires_grad)
        model = copy.deepcopy(self._model, copies)
        for module in model.modules():
            for leaf in [name.removesuffix("_mask") for name in module._buffers]:
                if f"{leaf}_orig" in module._parameters:
                    prune.remove(module, leaf)
        return model
