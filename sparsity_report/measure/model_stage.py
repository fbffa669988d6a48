"""One model in memory that becomes each of its variants in turn, and itself again."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from sparsity_report.counting.pruning import Pruning
from sparsity_report.study.variants import Variant
from sparsity_report.weights.anatomy.parameter_places import computed_by, locate, put_, value, walk
from sparsity_report.weights.weights import Weights


class Stage:
    """A model that is opened once; what pruning changes of it is put back.

    A CSR variant is a model of its own, kept, which shares all tensors that are not CSR.
    """

    def __init__(self, weights: Weights) -> None:
        self.model = weights.module().eval()
        self._places = locate(walk(self.model))
        self._before: dict[str, torch.Tensor] = {}
        self._pruning: Pruning | None = None
        self._sparse: dict[int, tuple[Variant, nn.Module]] = {}

    def become(self, variant: Variant) -> nn.Module:
        """Return the model of a variant, good until the next one's."""
        if variant.layout != "csr":
            self.prune(variant.pruning)
            return self.model
        if id(variant) not in self._sparse:
            self._keep(variant.pruning)
            # Prunes what the two share, too.
            model = variant.module(_shared(self.model)).eval()
            self._pruning = variant.pruning
            self._sparse[id(variant)] = variant, model  # the variant, so that its id is no other's
        return self._sparse[id(variant)][1]

    @torch.no_grad()
    def prune(self, pruning: Pruning | None) -> None:
        """Let the model be pruned so, and in no other way."""
        if pruning is self._pruning:
            return
        self._keep(pruning)
        if pruning is not None:
            pruning.apply_(self.model)
        self._pruning = pruning

    @torch.no_grad()
    def _keep(self, pruning: Pruning | None) -> None:
        """Put back what was changed, and keep what will be."""
        for name, values in self._before.items():
            tensor = value(*self._places[name])
            tensor.copy_(values)
            put_(*self._places[name], tensor)
        kept, cuts = self._before, pruning.cuts if pruning else ()
        self._before = {
            name: kept[name] if name in kept else value(*self._places[name]).clone()
            for name in cuts
        }


def _shared(model: nn.Module) -> nn.Module:
    """Return a copy of a model's modules that holds the same tensors."""
    held: dict[int, Any] = {}
    for module in model.modules():
        tensors = (*module._parameters.values(), *module._buffers.values(), *computed_by(module))
        held |= {id(tensor): tensor for tensor in tensors if tensor is not None}
    return copy.deepcopy(model, held)
