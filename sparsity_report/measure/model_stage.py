"""One model in memory that is pruned as each variant in turn and restored."""

import copy
from typing import Any

import torch
from torch import nn

from sparsity_report.counting.pruning import Pruning
from sparsity_report.study.variants import Variant
from sparsity_report.weights.anatomy.parameter_places import computed_by, locate, put_, value, walk
from sparsity_report.weights.weights import Weights


@torch.inference_mode()
def logits_of(model: nn.Module, texts: torch.Tensor) -> torch.Tensor:
    """Return the logits of a causal model after each token of texts, without key-value cache."""
    tokens = texts.to(next(model.parameters()).device)
    logits: torch.Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits


class Stage:
    """A model that is loaded once, and pruned and restored in place.

    A CSR variant is a second model, which is kept and shares all tensors that are not CSR.
    """

    def __init__(self, weights: Weights) -> None:
        self.model = weights.module().eval()
        self._places = locate(walk(self.model))
        self._before: dict[str, torch.Tensor] = {}
        self._pruning: Pruning | None = None
        self._sparse: dict[int, tuple[Variant, nn.Module]] = {}

    def become(self, variant: Variant) -> nn.Module:
        """Return the model of a variant, valid until the next call."""
        if variant.layout != "csr":
            self.prune(variant.pruning)
            return self.model
        if id(variant) not in self._sparse:
            self._keep(variant.pruning)
            # This also prunes the tensors that the two models share.
            model = variant.module(_shared(self.model)).eval()
            self._pruning = variant.pruning
            self._sparse[id(variant)] = variant, model  # the variant, so that its id is no other's
        return self._sparse[id(variant)][1]

    @torch.no_grad()
    def prune(self, pruning: Pruning | None) -> None:
        """Restore the model, then apply a pruning."""
        if pruning is self._pruning:
            return
        self._keep(pruning)
        if pruning is not None:
            pruning.apply_(self.model)
        self._pruning = pruning

    @torch.no_grad()
    def _keep(self, pruning: Pruning | None) -> None:
        """Restore the weights that were pruned, and keep those that a pruning will change."""
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
    """Return a copy of a model's modules that shares its tensors."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        tensors = (*module._parameters.values(), *module._buffers.values(), *computed_by(module))
        memo |= {id(tensor): tensor for tensor in tensors if tensor is not None}
    return copy.deepcopy(model, memo)
