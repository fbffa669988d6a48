"""Direction of stored matrices: outputs or inputs first, decided by shapes of other tensors.

PyTorch's ``nn.Linear`` stores (outputs, inputs), transformers' ``Conv1D`` (inputs, outputs), and
fused experts either. A bias has one value per output, which tells them apart. ``Conv1D`` always has
a bias, so a matrix without one is ``nn.Linear``'s.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import NamedTuple

Shape = tuple[int, ...]


class Matrix(NamedTuple):
    """Sizes of a weight matrix, or of each of several experts, and the order they are stored in."""

    outputs: int
    inputs: int
    experts: int = 1
    input_first: bool = False

    @property
    def stored(self) -> tuple[int, int]:
        """Sizes of one matrix in the order of storage."""
        return (self.inputs, self.outputs) if self.input_first else (self.outputs, self.inputs)

    @property
    def turned(self) -> Matrix:
        """The same values read in the other direction."""
        return Matrix(self.inputs, self.outputs, self.experts, not self.input_first)


def as_matrix(shape: Shape, input_first: bool = False) -> Matrix:
    """Return the matrix, or the stack of experts, of a stored shape.

    Examples
    --------
    >>> as_matrix((8, 2, 3), input_first=True)
    Matrix(outputs=3, inputs=2, experts=8, input_first=True)
    """
    *stack, rows, columns = (1, 1, *shape)  # a vector is a row
    experts = math.prod(stack)
    return Matrix(columns, rows, experts, True) if input_first else Matrix(rows, columns, experts)


def input_first(shapes: Mapping[str, Shape]) -> dict[str, bool | None]:
    """Return for each matrix whether its inputs are stored first; None if nothing decides.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shapes of all tensors of a model by name.

    Examples
    --------
    >>> gpt2 = {"fc.weight": (4, 8), "fc.bias": (8,), "proj.weight": (4, 4), "proj.bias": (4,)}
    >>> input_first(gpt2)
    {'fc.weight': True, 'proj.weight': True}
    >>> input_first({"a.q.weight": (4, 4), "a.q.bias": (4,), "a.o.weight": (4, 4)})
    {'a.q.weight': False, 'a.o.weight': False}
    """
    matrices = {name: shape for name, shape in shapes.items() if len(shape) in {2, 3}}
    biases = {name: shapes.get(_bias(name, shapes)) for name in matrices}
    decided = {
        name: shape[-1] == bias[-1]
        for name, shape in matrices.items()
        if (bias := biases[name]) and shape[-2] != shape[-1] and bias[-1] in shape[-2:]
    }
    # Square matrices follow the others of the model if those agree, or one beside them that has
    # no bias.
    others = {*decided.values()}
    square = others.pop() if len(others) == 1 else None
    flat = {name for name, shape in matrices.items() if len(shape) == 2}
    flat -= {_bias(name, shapes) for name in matrices}
    plain = {_around(name) for name in flat if not biases[name]}
    decided |= {name: False for name in flat - decided.keys() if _around(name) in plain}
    stacks: dict[str, set[Shape]] = defaultdict(set)
    for name, shape in matrices.items():
        if len(shape) == 3:
            stacks[_around(name)].add(shape)
    return {
        name: decided.get(name, square)
        if biases[name]
        else _without_bias(shape, stacks.get(_around(name), ()))
        for name, shape in matrices.items()
    }


def _bias(name: str, shapes: Mapping[str, Shape]) -> str:
    """Return the name of the bias of a weight, as of a module or of a fused parameter."""
    bias = f"{name.removesuffix('weight')}bias" if name.endswith("weight") else f"{name}_bias"
    return bias if len(shapes.get(bias, ())) == len(shapes[name]) - 1 else ""


def _around(name: str) -> str:
    """Return the module around the module or the fused parameter of a matrix."""
    return name.removesuffix(".weight").rpartition(".")[0]


def _without_bias(shape: Shape, beside: Collection[Shape]) -> bool | None:
    """Return the direction of a matrix by its class, of fused experts by those beside them.

    The outputs of a gate fused with another projection are twice the inputs of the next matrix.
    """
    if len(shape) == 2:
        return False
    experts, rows, columns = shape
    turned = {(experts, columns / 2, rows), (experts, columns, 2 * rows)}
    plain = {(experts, columns, rows / 2), (experts, 2 * columns, rows)}
    votes = not turned.isdisjoint(beside), not plain.isdisjoint(beside)
    return None if votes[0] == votes[1] else votes[0]
