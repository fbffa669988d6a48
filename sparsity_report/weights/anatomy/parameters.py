"""Modules and their parameters, described without their values."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
        ``(out_features, in_features)`` where tokens are multiplied by this tensor; of each
        expert where experts are fused into one tensor.
    transposed : bool
        Whether the input dimension comes before the output dimension, as in ``Conv1D``.
    experts : int
        How many such matrices the tensor holds.
    uses : Fraction
        How often a token is multiplied by the whole tensor: 1, more for shared modules, k/E
        for E experts of which a token sees k, 0 where no token comes by.
    uses_per_sequence : Fraction
        How often it is multiplied by besides, however many tokens there are, as a pooler is.
    head_dim : int or None
        Width of an attention head where the matrix belongs to heads.
    head_axis : int
        0 where heads are runs of output rows (q, k, v), 1 where of input columns (output).
    prunable : bool
        Whether pruning may choose from it.
    runs_as_csr : bool
        Whether the model can run with this matrix stored as CSR; where it cannot, a CSR variant
        keeps it masked.
    tied_to : str or None
        Name of the parameter that this one shares its storage with, where it is counted.
    layout : str
        ``"dense"``, ``"csr"``, ``"csc"``, ``"coo"``, ``"bsr"``, ``"bsc"`` or ``"2:4"``: how the
        source holds it.
    held_bytes : int or None
        Bytes the source holds where the layout is not dense.
    file_bytes : int or None
        Bytes of all tensors on disk that make it up, scales and zero points included; None of
        values in memory. A tied parameter has those of the one it is tied to.
    packing : str
        How the file packs it, such as ``"gptq-4bit-g128"`` or ``"Q4_1"``; empty where it does not.
    known : bool
        Whether its values are there to be counted; on the meta device they are not, nor where a
        format is understood by its shapes only.
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
        """Sizes of a matrix as it lies in memory, where its inputs come before its outputs."""
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

    @property
    def block(self) -> int | None:
        """Index of the Transformer block, the first number in the dotted name; None outside.

        What has more than nine digits numbers no block.
        """
        words = self.name.split(".")
        return next((int(word) for word in words if word.isdecimal() and len(word) < 10), None)
