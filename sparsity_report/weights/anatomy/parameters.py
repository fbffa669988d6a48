"""Modules and their parameters, described without their values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from sparsity_report.sparse.cost import value_bytes

ONCE = Fraction(1)
NEVER = Fraction(0)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter tensor, described without its values.

    Attributes
    ----------
    name : str
        Dotted name in the model in memory, e.g. ``model.decoder.layers.0.fc1.weight``.
    shape : tuple of int
        As stored in memory, e.g. ``(out, in)`` for ``nn.Linear``, ``(in, out)`` for ``Conv1D``.
    dtype : str
        Name of the torch dtype, e.g. ``"bfloat16"``.
    matrix : tuple of int or None
        ``(out_features, in_features)`` if tokens are multiplied by this tensor; sizes of
        one expert for fused experts.
    transposed : bool
        Whether the input dimension comes before the output dimension, as in ``Conv1D``.
    experts : int
        Number of such matrices in the tensor.
    uses : Fraction
        How often a token is multiplied by the whole tensor: 1, more for shared modules, k/E
        for E experts of which a token uses k, 0 if no token uses it.
    uses_per_sequence : Fraction
        Further uses per sequence, independent of its length, as in a pooler.
    head_dim : int or None
        Width of an attention head, for matrices made of heads.
    head_axis : int
        0 if heads are ranges of output rows (q, k, v), 1 for input columns (output projection).
    prunable : bool
        Whether pruning may choose from it.
    runs_as_csr : bool
        Whether the model can run with this matrix as CSR; otherwise a CSR variant masks it.
    tied_to : str or None
        Name of the parameter that owns the shared storage and is counted instead.
    layout : str
        ``"dense"``, ``"csr"``, ``"csc"``, ``"coo"``, ``"bsr"``, ``"bsc"`` or ``"2:4"``; layout
        in the source.
    held_bytes : int or None
        Bytes in the source for layouts other than dense.
    file_bytes : int or None
        Bytes of all its tensors on disk, scales and zero points included; None for values in
        memory. A tied parameter has those of its owner.
    packing : str
        Packing in the file, such as ``"gptq-4bit-g128"`` or ``"Q4_1"``; empty if unpacked.
    known : bool
        Whether its values can be counted; False on the meta device and for formats of which
        only shapes are known.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    matrix: tuple[int, int] | None = None
    transposed: bool = False
    experts: int = 1
    uses: Fraction = ONCE
    uses_per_sequence: Fraction = NEVER
    head_dim: int | None = None
    head_axis: int = 0
    prunable: bool = False
    runs_as_csr: bool = True
    tied_to: str | None = None
    layout: str = "dense"
    held_bytes: int | None = None
    file_bytes: int | None = None
    packing: str = ""
    known: bool = True

    @property
    def total(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def inputs_outputs(self) -> tuple[int, int] | None:
        """Sizes of a matrix as (inputs, outputs)."""
        return (self.matrix[1], self.matrix[0]) if self.matrix and self.transposed else None

    @property
    def itemsize(self) -> int:
        """Bytes of one value."""
        return value_bytes(self.dtype)


@dataclass(frozen=True, slots=True)
class Module:
    """A module that owns parameters.

    Attributes
    ----------
    name, class_name, group : str
    parameters : tuple of Parameter
        All matrices among them are used alike.
    """

    name: str
    class_name: str
    group: str
    parameters: tuple[Parameter, ...]

    def changed(self, change: Callable[[Parameter], Parameter]) -> Module:
        """Return the module with a function applied to each parameter."""
        return replace(self, parameters=tuple(map(change, self.parameters)))

    @property
    def block(self) -> int | None:
        """Index of the Transformer block, the first number in the dotted name; None outside.

        A number of more than nine digits is not a block.
        """
        words = self.name.split(".")
        return next((int(word) for word in words if word.isdecimal() and len(word) < 10), None)
