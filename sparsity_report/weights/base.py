"""What every source of weights offers: modules that own parameters, and a tensor on demand."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sparsity_report.errors import SparsityReportError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sparsity_report.weights.slices import Slice


ONCE = Fraction(1)


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
    itemsize : int
        Bytes of one value.
    matrix : tuple of int or None
        ``(out_features, in_features)`` where tokens are multiplied by this tensor; of each
        expert where experts are fused into one tensor.
    transposed : bool
        Whether the input dimension comes before the output dimension, as in ``Conv1D``.
    experts : int
        How many such matrices the tensor holds.
    uses : Fraction
        How often a token is multiplied by the whole tensor: 1, more for shared modules, k/E
        for E experts of which a token sees k.
    head_dim : int or None
        Width of an attention head where the matrix belongs to heads.
    head_axis : int
        0 where heads are runs of output rows (q, k, v), 1 where of input columns (output).
    prunable : bool
        Whether pruning may choose from it.
    tied_to : str or None
        Name of the parameter that this one shares its storage with, where it is counted.
    layout : str
        ``"dense"``, ``"csr"``, ``"csc"``, ``"coo"``, ``"bsr"``, ``"bsc"`` or ``"2:4"``: how the
        source holds it.
    held_bytes : int or None
        Bytes the source holds where the layout is not dense.
    known : bool
        Whether its values are there to be counted; on the meta device they are not.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    itemsize: int
    matrix: tuple[int, int] | None = None
    transposed: bool = False
    experts: int = 1
    uses: Fraction = ONCE
    head_dim: int | None = None
    head_axis: int = 0
    prunable: bool = False
    tied_to: str | None = None
    layout: str = "dense"
    held_bytes: int | None = None
    known: bool = True

    @property
    def total(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Module:
    """A module that owns parameters.

    Attributes
    ----------
    name, class_name, group : str
    parameters : tuple of Parameter
    per : str
        What its FLOPs are counted for: ``"token"``, or ``"sequence"`` for a pooler or a head
        that sees a sequence once.
    """

    name: str
    class_name: str
    group: str
    parameters: tuple[Parameter, ...]
    per: str = "token"

    @property
    def block(self) -> int | None:
        """Index of the Transformer block, the first number in the dotted name; None outside."""
        return next((int(part) for part in self.name.split(".") if part.isdecimal()), None)

    @property
    def weight(self) -> Parameter | None:
        """The matrix tokens are multiplied by, or else the first parameter."""
        matrices = [p for p in self.parameters if p.matrix]
        return next(iter(matrices or self.parameters), None)


@dataclass(eq=False)
class Weights(ABC):
    """A model opened for counting. Nothing is loaded before it is asked for, nothing is modified.

    Attributes
    ----------
    name : str
        What to call the model in tables and reports.
    source : str
        Where the values come from: ``module``, ``safetensors``, ``gguf`` or ``pickle``.
    architecture : str
        Class name of the model, empty where it is not known.
    modules : tuple of Module
        Every module that owns parameters, in the model's order.
    attention_widths : dict or None
        Sums over the attention layers of (query width + value width), by the sliding window the
        layers see, or None for all positions: FLOPs of scores and values are twice this per token
        and position attended to. None where it is not known.
    notes : tuple of str
        What a careful reader should know about how the model was opened.
    counts : dict
        Filled by :func:`sparsity_report.counting.histogram.count_weights`, by parameter name.
    """

    name: str
    source: str
    architecture: str
    modules: tuple[Module, ...]
    attention_widths: dict[int | None, int] | None = None
    notes: tuple[str, ...] = ()
    counts: dict[str, Any] = field(default_factory=dict, repr=False)

    @abstractmethod
    def tensor(self, name: str) -> torch.Tensor:
        """Return the values of one parameter, dense, in its own dtype, not to be written to."""

    def slices(self, name: str) -> Iterator[Slice]:
        """Yield the values of one parameter in order, as slices that can be read one by one."""
        from sparsity_report.weights.slices import held

        yield from held(self.tensor(name))

    @abstractmethod
    def module(self) -> nn.Module:
        """Return a runnable copy of the model that may be modified freely."""

    def tokenizer(self) -> Any:
        """Return the tokenizer that came with the model."""
        raise SparsityReportError(f"{self.name} came without a tokenizer; pass tokenizer=")

    @property
    def parameters(self) -> Iterator[Parameter]:
        """All parameters, tied ones too, in the model's order."""
        return (parameter for module in self.modules for parameter in module.parameters)

    @property
    def stored(self) -> Iterator[Parameter]:
        """The parameters that own their storage: each tied tensor once."""
        return (parameter for parameter in self.parameters if parameter.tied_to is None)

    @property
    def prunable(self) -> tuple[Parameter, ...]:
        """The parameters pruning may choose from, in the order that breaks ties."""
        return tuple(parameter for parameter in self.parameters if parameter.prunable)

    @property
    def attention_width(self) -> int | None:
        """Sum of query and value widths over all attention layers."""
        return sum(self.attention_widths.values()) if self.attention_widths else None

    def attention_flops(self, context: int | None) -> int | None:
        """FLOPs of scores and weighted values for a token at the end of `context` positions."""
        if context is None or self.attention_widths is None:
            return None
        seen = {window: min(window or context, context) for window in self.attention_widths}
        return sum(2 * seen[window] * width for window, width in self.attention_widths.items())

    @property
    def unclassified(self) -> tuple[str, ...]:
        """Names of the modules no rule knows."""
        return tuple(module.name for module in self.modules if module.group == "other")

    def __getitem__(self, name: str) -> Parameter:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise SparsityReportError(f"{self.name} has no parameter named {name!r}")
