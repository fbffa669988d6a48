"""Which parameter each matrix product of a run multiplies by, and what becomes of its result."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten
CHOICES = {aten.topk, aten.argmax, aten.sort}
CUTS = {aten.slice, aten.split, aten.split_with_sizes}
CONVOLUTIONS = {aten.convolution, aten._convolution}

Names = frozenset[str]


class Products(TorchDispatchMode):
    """Count FLOPs by the parameters that are multiplied by, with torch's own formulas.

    A tensor that comes of parameters alone, however it was cut, turned or scaled, stands for them;
    any other is an activation. Attributes:

    - `of_parameters`: FLOPs by the names of the parameters (more than one where tied or joined);
    - `of_activations`: FLOPs of products of activations, such as attention's scores;
    - `convolutions`: FLOPs by the names of the parameters;
    - `chosen`: parameters whose product is what a top-k chooses from;
    - `outputs`: for whoever runs the model to put there;
    - `makers`: the parameters whose product an activation still is, feature for feature.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.of_parameters: Counter[Names] = Counter()
        self.convolutions: Counter[Names] = Counter()
        self.of_activations = 0
        self.chosen: set[str] = set()
        self.outputs: list[torch.Tensor] = []
        self.makers: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._constants: WeakIdKeyDictionary = WeakIdKeyDictionary()
        names: dict[int, set[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(parameter.data_ptr(), set()).add(name)
        for parameter in model.parameters():
            self._constants[parameter] = frozenset(names[parameter.data_ptr()])

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator and note what it multiplies."""
        kwargs = kwargs or {}
        operator = func._overloadpacket
        if operator not in flop_registry:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if operator in (aten.topk, aten.argmax) and args[0] in self.makers:
            result = self._evenly(operator, args[0], result)
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        outputs = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        if operator in flop_registry:
            self._multiplied(
                operator, flop_registry[operator](*args, **kwargs, out_val=result), inputs
            )
            self._made(inputs, outputs)
        else:
            self._passed(operator, inputs, outputs)
        return result

    @staticmethod
    def _evenly(operator: Any, scores: torch.Tensor, result: Any) -> Any:
        """Send tokens to one expert after the other, so that every run sends alike."""
        indices = result[1] if operator == aten.topk else result
        even = torch.arange(indices.numel()).remainder(scores.shape[-1]).reshape(indices.shape)
        if operator == aten.argmax:
            return even
        return scores.gather(-1, even), even

    def _names(self, tensors: list[torch.Tensor]) -> Names:
        return frozenset().union(*(self._constants.get(t, frozenset()) for t in tensors))

    def _multiplied(self, operator: Any, flops: int, inputs: list[torch.Tensor]) -> None:
        names = self._names(_multiplicands(inputs, self._constants))
        if operator in CONVOLUTIONS:
            self.convolutions[names] += flops
        elif names:
            self.of_parameters[names] += flops
        else:
            self.of_activations += flops

    def _made(self, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
        if constants := _multiplicands(inputs, self._constants):
            for output in outputs:
                self.makers[output] = self._names(constants)

    def _passed(self, operator: Any, inputs: list[Any], outputs: list[torch.Tensor]) -> None:
        # By a table, too: of tokens by experts, not of heads by positions.
        by_table = operator == aten.gather and inputs[0].ndim == 2
        if (operator in CHOICES or by_table) and inputs[0] in self.makers:
            self.chosen |= self.makers[inputs[0]]
        if inputs and all(t in self._constants for t in inputs):
            names = self._names(inputs)
            for output in outputs:
                self._constants[output] = names
            return
        makers = [t for t in inputs if t in self.makers]
        for output in outputs:
            kept = [t for t in makers if operator in CUTS or t.shape[-1:] == output.shape[-1:]]
            if kept and output.is_floating_point():
                self.makers[output] = frozenset().union(*(self.makers[t] for t in kept))


def _multiplicands(inputs: list[torch.Tensor], constants: Any) -> list[torch.Tensor]:
    """Return the parameters among the matrices; where all are, as of learned queries, the last."""
    matrices = [t for t in inputs if t.ndim > 1]
    learned = [t for t in matrices if t in constants]
    return learned[-1:] if len(learned) == len(matrices) else learned
