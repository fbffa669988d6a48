"""The interface of an opened model, common to all sources: its modules, parameters and values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sparsity_report.errors import SparsityReportError, writable
from sparsity_report.sparse.cost import value_bytes
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.weights.array_dtypes import Array
from sparsity_report.weights.matrix_direction import Matrix
from sparsity_report.weights.module_order import positions
from sparsity_report.weights.tensor_slices import Entry, LazyValues, Origin, Slice, memory_slices
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    import torch
    from torch import nn


ONCE = Fraction(1)
NEVER = Fraction(0)


class Tokenizer(Protocol):
    """A tokenizer that encodes, decodes and is saved as those of transformers are."""

    def __call__(self, text: str, /, **options: object) -> Any:
        """Return the token ids of a text as ``["input_ids"]``."""

    def decode(self, ids: Sequence[int], /, *, skip_special_tokens: bool) -> object:
        """Return the text of token ids."""

    def save_pretrained(self, folder: Path, /) -> object:
        """Write the files of the tokenizer to a folder."""


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
    expert_groups : tuple of int
        Groups of consecutive experts among which a router chooses first, and how many of them it
        chooses.
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
    memory_bytes : int or None
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
    expert_groups: tuple[int, int] = (1, 1)
    uses: Fraction = ONCE
    uses_per_sequence: Fraction = NEVER
    head_dim: int | None = None
    head_axis: int = 0
    prunable: bool = False
    runs_as_csr: bool = True
    tied_to: str | None = None
    layout: str = "dense"
    memory_bytes: int | None = None
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
    def format(self) -> str:
        """Packing in the file, or the dtype of plain values."""
        return self.packing or self.dtype

    @property
    def stored_bytes(self) -> int:
        """Bytes in files, or of the values in memory."""
        return self.total * self.itemsize if self.file_bytes is None else self.file_bytes

    @property
    def heads(self) -> int:
        """Number of attention heads of which the matrix is made; 0 if unknown."""
        if not (self.matrix and self.head_dim) or self.matrix[self.head_axis] % self.head_dim:
            return 0
        return self.matrix[self.head_axis] // self.head_dim

    @property
    def stack(self) -> Matrix | None:
        """Sizes of a prunable matrix, or of a stack of them; None for other tensors."""
        if self.matrix is None or not self.prunable:
            return None
        return Matrix(*self.matrix, self.experts, self.transposed)

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
    def weights(self) -> list[Parameter]:
        """The matrices that the module stores; the first parameter of one without any."""
        stored = [p for p in self.parameters if p.tied_to is None]
        return [p for p in stored if p.matrix] or stored[:1]

    @property
    def active_total(self) -> Fraction:
        """Parameters that a token is multiplied by, as many as its first matrix is used."""
        main = next((p for p in self.parameters if p.matrix), self.parameters[0])
        stored = sum(p.total for p in self.parameters if p.tied_to is None)
        return stored * min(max(main.uses, main.uses_per_sequence), ONCE)

    @property
    def block(self) -> int | None:
        """Index of the Transformer block, the first number in the dotted name; None outside.

        A number of more than nine digits is not a block.
        """
        words = self.name.split(".")
        return next((int(word) for word in words if word.isdecimal() and len(word) < 10), None)


def float8_notes(modules: Iterable[Module]) -> tuple[str, ...]:
    """Return a note that float8 weights, for which torch has no products, run as float32."""
    dtypes = {p.dtype for module in modules for p in module.parameters}
    float8 = sorted(dtype for dtype in dtypes if dtype.startswith("float8"))
    return (say("note.float8_weights", dtypes=float8),) if float8 else ()


def check_modules(name: str, modules: int) -> None:
    """Refuse a model of more modules than a study can hold."""
    if modules > limits.MODULES:
        raise SparsityReportError(
            f"{name} has {modules:,} modules with parameters, more than the {limits.MODULES:,} "
            "that a study can hold; open its files one by one, or with the config.json of its class"
        )


def in_order(modules: Iterable[Module]) -> tuple[Module, ...]:
    """Return modules and their parameters in the order of their names."""
    modules = tuple(modules)
    places = positions(p.name for module in modules for p in module.parameters)

    def first(module: Module) -> int:
        return min(places[p.name] for p in module.parameters)

    return tuple(
        replace(module, parameters=tuple(sorted(module.parameters, key=lambda p: places[p.name])))
        for module in sorted(modules, key=first)
    )


@dataclass(eq=False, repr=False)
class Weights(ABC):
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
        Every module that owns parameters, in the order of their names.
    attention_widths : dict or None
        Sums over the attention layers of (query width + value width), by the length of their
        sliding window, or None for all positions. FLOPs of scores and values are twice this per
        token and position. None if unknown.
    notes : tuple of str
        Remarks on how the model was opened.
    files : tuple of Origin
        Files of the values; empty for a model in memory.
    unsettled : frozenset of str
        Matrices of which names and shapes do not tell whether inputs or outputs come first.
    undecided : str
        Reason why groups, prunable weights and uses are unknown; empty if they are known.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> weights.name, weights.architecture
    ('demo', 'OPTForCausalLM')
    >>> weights["model.decoder.layers.0.fc1.weight"].shape
    (512, 128)
    """

    name: str
    source: str
    architecture: str
    modules: tuple[Module, ...]
    attention_widths: dict[int | None, int] | None = None
    notes: tuple[str, ...] = ()
    files: tuple[Origin, ...] = ()
    unsettled: frozenset[str] = frozenset()
    undecided: str = ""

    def __post_init__(self) -> None:
        self.name = writable(self.name)  # names of folders may be any bytes
        for name in (p.name for p in self.parameters if not p.name.isascii()):
            if writable(name) != name:
                raise self.wrong(f"has the tensor {name!r}, which is not Unicode; rename it")
        if not self.modules:
            raise self.wrong("has no parameters, so there is nothing to count; open another model")
        check_modules(self.name, len(self.modules))
        if (total := self.total) > limits.ALL_VALUES:
            raise SparsityReportError(
                f"{self.name} has {total:,} values, more than the {limits.ALL_VALUES:,} up to "
                "which figures are exact; is it damaged?"
            )

    def __repr__(self) -> str:
        name, architecture = short_name(self.name), short_name(self.architecture or "–")
        lines = [
            say("repr.weights_source", name=name, architecture=architecture, source=self.source),
            say("repr.parameters_in_modules", total=self.total, modules=len(self.modules)),
        ]
        if self.undecided:
            return "\n".join([*lines, say("note.undecided", reason=self.undecided)])
        total, count = (sum(getattr(p, n) for p in self.prunable) for n in ("total", "experts"))
        return "\n".join([*lines, say("repr.prunable_matrices", total=total, count=count)])

    def wrong(self, reason: str) -> SparsityReportError:
        """Return an error about this model.

        Parameters
        ----------
        reason : str
            Rest of the sentence after the name of the model.

        Returns
        -------
        SparsityReportError
            The error, to be raised by the caller.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> print(weights.wrong("has no head; open another model"))
        demo has no head; open another model
        """
        return SparsityReportError(f"{self.name} {reason}")

    @abstractmethod
    def array(self, name: str) -> Array:
        """Return the values of one parameter, dense and in its dtype; do not modify them.

        Parameters
        ----------
        name : str
            Name of the parameter.

        Returns
        -------
        numpy.ndarray
            The values in the shape of the model in memory; bfloat16 and float8 have the dtypes of
            the library ml_dtypes.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> weights.array("model.decoder.layers.0.fc1.weight").shape
        (512, 128)
        """

    def tensor(self, name: str) -> torch.Tensor:
        """Return the values of one parameter as a tensor of torch; do not modify them.

        Parameters
        ----------
        name : str
            Name of the parameter.

        Returns
        -------
        torch.Tensor
            The values in the shape of the model in memory.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> from torch import nn
        >>> weights = sr.load(nn.ModuleDict({"fc1": nn.Linear(3, 2)}))
        >>> weights.tensor("fc1.weight").shape
        torch.Size([2, 3])
        """
        from sparsity_report.weights.torch_tensors import to_tensor

        return to_tensor(self.array(name))

    def slices(self, name: str) -> Iterator[Slice]:
        """Yield the values of one parameter in order, as slices.

        Parameters
        ----------
        name : str
            Name of the parameter.

        Returns
        -------
        iterator of Slice
            Consecutive parts of the tensor, which together hold each value once.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> from torch import nn
        >>> weights = sr.load(nn.ModuleDict({"fc1": nn.Linear(3, 2)}))
        >>> [part.total for part in weights.slices("fc1.weight")]
        [6]
        """
        return memory_slices(self.array(name))

    def as_in_memory(self, name: str) -> Iterator[Slice]:
        """Yield the values of one parameter in the order of :meth:`array`.

        Parameters
        ----------
        name : str
            Name of the parameter.

        Returns
        -------
        iterator of Slice
            Consecutive parts of the tensor.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> from torch import nn
        >>> weights = sr.load(nn.ModuleDict({"fc1": nn.Linear(3, 2)}))
        >>> [part.total for part in weights.as_in_memory("fc1.weight")]
        [6]
        """
        return self.slices(name)

    def entry(self, parameter: Parameter) -> Entry:
        """Return one parameter as a tensor whose values are read slice by slice.

        Parameters
        ----------
        parameter : Parameter
            One of :attr:`parameters`.

        Returns
        -------
        Entry
            The tensor in the shape of the model in memory.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> from torch import nn
        >>> weights = sr.load(nn.ModuleDict({"fc1": nn.Linear(3, 2)}))
        >>> weights.entry(weights["fc1.weight"]).shape
        (2, 3)
        """
        p = parameter
        values = LazyValues(p.dtype, lambda _: self.as_in_memory(p.name), p.file_bytes, p.packing)
        return Entry(p.name, p.shape, values)

    def gives_some(self, name: str) -> bool:  # noqa: ARG002
        """Return True if some values of a parameter can be read without computing all.

        Parameters
        ----------
        name : str
            Name of the parameter.

        Returns
        -------
        bool
            False if reading a part takes as long as reading the whole tensor.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> from torch import nn
        >>> weights = sr.load(nn.ModuleDict({"fc1": nn.Linear(3, 2)}))
        >>> weights.gives_some("fc1.weight")
        True
        """
        return True

    @abstractmethod
    def module(self) -> nn.Module:
        """Return a runnable copy of the model, which may be modified.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> type(weights.module()).__name__
        'OPTForCausalLM'
        """

    def buffers(self) -> dict[str, Array]:
        """Return the values that a checkpoint holds beside the parameters, by name.

        Returns
        -------
        dict of str to numpy.ndarray
            Buffers such as running means; empty for most Transformers.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> from torch import nn
        >>> weights = sr.load(nn.ModuleDict({"fc1": nn.Linear(3, 2)}))
        >>> weights.buffers()
        {}
        """
        return {}

    def configuration(self) -> dict[str, Any]:
        """Return the content of the model's ``config.json``; empty without one.

        Returns
        -------
        dict
            Settings by name.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> weights.configuration()["hidden_size"]
        128
        """
        return {}

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer that came with the model.

        Returns
        -------
        callable
            The tokenizer, as transformers opens it.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> weights.tokenizer()("x = 1")["input_ids"] != []
        True
        """
        raise self.wrong("came without a tokenizer; pass tokenizer= in Python")

    @property
    def parameters(self) -> Iterator[Parameter]:
        """All parameters in the order of modules, tied ones included.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> from torch import nn
        >>> weights = sr.load(nn.ModuleDict({"fc1": nn.Linear(3, 2)}))
        >>> [parameter.name for parameter in weights.parameters]
        ['fc1.weight', 'fc1.bias']
        """
        return (parameter for module in self.modules for parameter in module.parameters)

    @property
    def stored(self) -> Iterator[Parameter]:
        """Parameters that own their storage: each tied tensor once.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> {p.name for p in weights.parameters} - {p.name for p in weights.stored}
        {'lm_head.weight'}
        """
        return (parameter for parameter in self.parameters if parameter.tied_to is None)

    @property
    def total(self) -> int:
        """Number of parameters, each tied tensor once.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> from torch import nn
        >>> sr.load(nn.ModuleDict({"fc1": nn.Linear(3, 2)})).total
        8
        """
        return sum(parameter.total for parameter in self.stored)

    @property
    def prunable(self) -> tuple[Parameter, ...]:
        """Prunable parameters, in the order that breaks ties; refused if they are unknown.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> from torch import nn
        >>> weights = sr.load(nn.ModuleDict({"fc1": nn.Linear(3, 2)}))
        >>> [parameter.name for parameter in weights.prunable]
        ['fc1.weight']
        """
        if self.undecided:
            raise self.wrong(f"has no known prunable weights: {self.undecided}")
        return tuple(parameter for parameter in self.parameters if parameter.prunable)

    @property
    def attention_width(self) -> int | None:
        """Sum of query and value widths over all attention layers.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> weights.attention_width  # 4 layers, queries and values of 128 each
        1024
        """
        return sum(self.attention_widths.values()) if self.attention_widths else None

    def attention_flops(self, context: int | None) -> int | None:
        """Return the FLOPs of scores and weighted values of the last of `context` tokens.

        Parameters
        ----------
        context : int or None
            Number of positions.

        Returns
        -------
        int or None
            FLOPs per token; None without a context, or if the widths are unknown.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> weights.attention_flops(100) == 2 * 100 * weights.attention_width
        True
        """
        if context is None or self.attention_widths is None:
            return None
        widths = self.attention_widths.items()
        return sum(2 * min(window or context, context) * width for window, width in widths)

    def __getitem__(self, name: str) -> Parameter:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise self.wrong(f"has no parameter named {name!r}")
