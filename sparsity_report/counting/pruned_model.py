"""The model after a pruning, with one tensor at a time in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparsity_report.counting.pruning import Pruning
from sparsity_report.weights.tensor_slices import Slice
from sparsity_report.weights.weights import Module, Weights

if TYPE_CHECKING:
    import torch
    from torch import nn


class PrunedWeights(Weights):
    """The weights of a model after a pruning."""

    def __init__(self, pruning: Pruning, name: str) -> None:
        base = pruning.weights
        super().__init__(
            name=name,
            source=base.source,
            architecture=base.architecture,
            modules=tuple(_pruned(module, pruning) for module in base.modules),
            attention_widths=base.attention_widths,
            notes=base.notes,
        )
        self._pruning = pruning

    def tensor(self, name: str) -> torch.Tensor:
        """Return the values of a parameter, with pruned ones set to zero."""
        tensor = self._pruning.weights.tensor(name)
        if (cut := self._pruning.cuts.get(name)) is None:
            return tensor
        tensor = tensor.detach().clone()
        cut.apply_(tensor)
        return tensor

    def as_in_memory(self, name: str) -> Iterator[Slice]:
        """Yield the values of a parameter in slices, those of the base if nothing is pruned."""
        if name in self._pruning.cuts:
            yield from super().as_in_memory(name)
        else:
            yield from self._pruning.weights.as_in_memory(name)

    def gives_some(self, name: str) -> bool:
        """Return whether a parameter is not pruned and the base can read parts of it."""
        return name not in self._pruning.cuts and self._pruning.weights.gives_some(name)

    def tokenizer(self) -> Any:
        """Open the tokenizer of the base."""
        return self._pruning.weights.tokenizer()

    def module(self) -> nn.Module:
        """Return a runnable copy of the base, pruned."""
        return self._pruning.apply_(self._pruning.weights.module())


def _pruned(module: Module, pruning: Pruning) -> Module:
    """Return a module without packing and file sizes for its pruned parameters."""
    parameters = (
        replace(p, packing="", file_bytes=None) if p.name in pruning.cuts else p
        for p in module.parameters
    )
    return replace(module, parameters=tuple(parameters))
