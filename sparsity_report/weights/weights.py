"""The interface of an opened model, common to all sources of weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsity_report.errors import SparsityReportError, writable
from sparsity_report.hooks import Presentable
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.untrusted import limits
from sparsity_report.weights.anatomy.parameters import Module, Parameter

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sparsity_report.weights.tensor_slices import Slice


def float8_notes(modules: Iterable[Module]) -> tuple[Phrase, ...]:
    """Return a note that float8 weights, for which torch has no products, run as float32."""
    dtypes = {p.dtype for module in modules for p in module.parameters}
    float8 = sorted(dtype for dtype in dtypes if dtype.startswith("float8"))
    return (phrase("note.float8_weights", dtypes=float8),) if float8 else ()


def check_modules(name: str, modules: int) -> None:
    """Refuse a model of more modules than a study can hold."""
    if modules > limits.MODULES:
        raise SparsityReportError(
            f"{name} has {modules:,} modules with parameters, more than the {limits.MODULES:,} "
            "that a study can hold; open its files one by one, or with the config.json of its class"
        )


@dataclass(eq=False, repr=False)
class Weights(Presentable, ABC):
    """A model opened for counting; values are read on demand and never modified.

    Attributes
    ----------
    name : str
        Name in tables and reports.
    source : str
        Source of the values: ``module``, ``safetensors``, ``gguf``, ``pickle`` or ``config``.
    architecture : str
        Class name of the model; empty if unknown.
    modules : tuple of Module
        Every module that owns parameters, in the model's order.
    attention_widths : dict or None
        Sums over the attention layers of (query width + value width), by the length of their
        sliding window, or None for all positions. FLOPs of scores and values are twice this per
        token and position. None if unknown.
    notes : tuple of Phrase
        Remarks on how the model was opened.
    """

    name: str
    source: str
    architecture: str
    modules: tuple[Module, ...]
    attention_widths: dict[int | None, int] | None = None
    notes: tuple[Phrase, ...] = ()

    def __post_init__(self) -> None:
        self.name = writable(self.name)  # names of folders may be any bytes
        for name in (p.name for p in self.parameters if not p.name.isascii()):
            if writable(name) != name:
                raise SparsityReportError(
                    f"{self.name}: the name {name!r} is not Unicode; rename the tensor"
                )
        if not self.modules:
            raise SparsityReportError(
                f"{self.name} has no parameters, so there is nothing to count; open another model"
            )
        check_modules(self.name, len(self.modules))
        if (total := sum(p.total for p in self.stored)) > limits.ALL_VALUES:
            raise SparsityReportError(
                f"{self.name} has {total:,} values, more than the {limits.ALL_VALUES:,} up to "
                "which figures are exact; is it damaged?"
            )

    @abstractmethod
    def tensor(self, name: str) -> torch.Tensor:
        """Return the values of one parameter, dense and in its dtype; do not modify them."""

    def slices(self, name: str) -> Iterator[Slice]:
        """Yield the values of one parameter in order, as slices."""
        from sparsity_report.weights.tensor_slices import memory_slices

        yield from memory_slices(self.tensor(name))

    def as_in_memory(self, name: str) -> Iterator[Slice]:
        """Yield the values of one parameter in the order of :meth:`tensor`."""
        yield from self.slices(name)

    def gives_some(self, name: str) -> bool:  # noqa: ARG002
        """Return True if some values of a parameter can be read without computing all."""
        return True

    @abstractmethod
    def module(self) -> nn.Module:
        """Return a runnable copy of the model, which may be modified."""

    def tokenizer(self) -> Any:
        """Return the tokenizer that came with the model."""
        raise SparsityReportError(f"{self.name} came without a tokenizer; pass tokenizer=")

    @property
    def parameters(self) -> Iterator[Parameter]:
        """All parameters in the model's order, tied ones included."""
        return (parameter for module in self.modules for parameter in module.parameters)

    @property
    def stored(self) -> Iterator[Parameter]:
        """Parameters that own their storage: each tied tensor once."""
        return (parameter for parameter in self.parameters if parameter.tied_to is None)

    @property
    def prunable(self) -> tuple[Parameter, ...]:
        """Prunable parameters, in the order that breaks ties."""
        return tuple(parameter for parameter in self.parameters if parameter.prunable)

    @property
    def attention_width(self) -> int | None:
        """Sum of query and value widths over all attention layers."""
        return sum(self.attention_widths.values()) if self.attention_widths else None

    def attention_flops(self, context: int | None) -> int | None:
        """Return the FLOPs of scores and weighted values of the last of `context` tokens."""
        if context is None or self.attention_widths is None:
            return None
        widths = self.attention_widths.items()
        return sum(2 * min(window or context, context) * width for window, width in widths)

    @property
    def unclassified(self) -> tuple[str, ...]:
        """Names of the modules that no rule classifies."""
        return tuple(module.name for module in self.modules if module.group == "other")

    def __getitem__(self, name: str) -> Parameter:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise SparsityReportError(f"{self.name} has no parameter named {name!r}")
