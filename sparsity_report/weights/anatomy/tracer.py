"""Watch a model run without its values: which parameters multiply what it reads.

Every tensor that depends on a parameter stays on the meta device, so that a model of any size runs
in the time that its Python takes. Whole numbers are real, so that code that looks at them goes its
way. Where one would depend on values it is made up: a router sends tokens to its experts in turn,
so that all get equally many; what is checked of all values is true of all, and anything else is 0
or false.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from threading import get_ident
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Matrix products; their factors are the last two tensors.
_PRODUCTS = {
    aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default, aten.addmm.default,
    aten.baddbmm.default, aten.addmv.default, aten.addbmm.default,
}  # fmt: skip
# What chooses by size, and the place of the dimension among the arguments.
_CHOICES = {aten.topk.default: 2, aten.sort.default: 1, aten.argmax.default: 1, aten.max.dim: 1}
# What has as many results as values say.
_COUNTED = {aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor}
_ITEM = aten._local_scalar_dense.default
_CHECKS = {aten.all, aten._is_all_true}
_LOOKUPS = {aten.embedding.default, aten._embedding_bag.default}
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
_RESHAPED = {aten._unsafe_view.default, aten.view.default, aten.unsqueeze.default}
_JOINED = {aten.cat.default, aten.stack.default}
# What takes from a tensor no more than its shape.
_SHAPED = re.compile(r"_like$|^new_")
_FILLED = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}
# Values that are computed although no one may look at them.
_SMALL = 2**20
# Whole numbers that are made up at a time, half a GB of int64.
_LARGEST = 2**26
# Sizes that what is really computed with need not be checked for, as no two make much together.
_FEW = 2**12
# Operations of all runs of a model, for each parameter and besides, and the most: half a minute.
# Of what is published DBRX takes most, 100,000.
_PER_PARAMETER, _BESIDES, _MOST = 400, 1_000, 250_000


class Trace(NamedTuple):
    """Where the values of a tensor come from.

    Attributes
    ----------
    weights : frozenset of int
        Parameters it was computed from, and from nothing that was read; by their ids.
    seen : bool
        Whether it depends on what the model reads.
    last : frozenset of int
        Matrices whose products it holds, at most scaled, shifted, cut or joined since.
    """

    weights: frozenset[int] = frozenset()
    seen: bool = False
    last: frozenset[int] = frozenset()


_CONSTANT = Trace()


@dataclass
class Use:
    """What a run did with a parameter.

    Attributes
    ----------
    flops : int
        Of the products with it.
    shape : tuple of int or None
        Outputs and inputs of the last of them.
    turned : bool
        Whether the inputs come first in memory.
    readers : set of str
        What was done to it directly.
    """

    flops: int = 0
    shape: tuple[int, int] | None = None
    turned: bool = False
    readers: set[str] = field(default_factory=set)


@dataclass
class Record:
    """What happened in a run.

    Attributes
    ----------
    uses : dict of (int, int) to Use
        By what the parameter is called and the id of the module that it was multiplied by in: one
        that holds it, or 0.
    scores : Counter
        FLOPs of products of two tensors that depend on what is read, by id of the module.
    routers : set of int
        Parameters whose products a choice by size was made from.
    choices : set of int
        Among how many was chosen.
    rows : int
        Rows of the first product.
    guessed : bool
        Whether how much was computed depends on values, other than through a choice by size.
    """

    uses: dict[tuple[int, int], Use] = field(default_factory=lambda: defaultdict(Use))
    scores: Counter[int] = field(default_factory=Counter)
    routers: set[int] = field(default_factory=set)
    choices: set[int] = field(default_factory=set)
    rows: int = 0
    guessed: bool = False


class Budget:
    """Operations that a model may take in all its runs.

    More than these is what a number in a configuration makes of a model, such as one that goes
    through the same layer a million times.
    """

    def __init__(self, parameters: int) -> None:
        self._left = min(_PER_PARAMETER * parameters + _BESIDES, _MOST)

    def take(self) -> None:
        """Spend one; ValueError when there is none left."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("it takes far more operations than models of so many parameters do")


class Watch(TorchDispatchMode):
    """Run modules under this mode to get a :class:`Record`.

    Parameters
    ----------
    parameters : mapping of int to torch.Tensor
        On the meta device, by what they are called in the record.
    budget : Budget
        For all runs of the model.
    """

    def __init__(self, parameters: Mapping[int, torch.Tensor], budget: Budget) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.record = Record()
        self._names = {id(tensor): name for name, tensor in parameters.items()}
        self._parameters = parameters
        self._thread = get_ident()
        self._running: list[nn.Module] = []
        self._budget = budget
        self._outputs: dict[int, int] = {}
        # By address of storages that were written to, kept so that no other gets it.
        self._written: dict[int, tuple[torch.UntypedStorage, Trace]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is run."""
        enter = register_module_forward_pre_hook(self._enter)
        leave = register_module_forward_hook(self._leave, always_call=True)
        try:
            with torch.no_grad(), self:
                yield
        finally:
            enter.remove()
            leave.remove()

    def trace(self, tensor: torch.Tensor) -> Trace:
        """Return where a tensor comes from."""
        if (name := self._names.get(id(tensor))) is not None:
            return Trace(frozenset([name]))
        trace: Trace = getattr(tensor, "_trace", _CONSTANT)
        if not trace.seen and self._written:
            trace = self._written.get(tensor.untyped_storage()._cdata, (None, trace))[1]
        return trace

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Follow one operation."""
        kwargs = kwargs or {}
        self._budget.take()
        tensors = [*tensors_among((*args, *kwargs.values()))]
        if not any(map(self._is_unknown, tensors)):
            counted = func in _COUNTED or (func is _ITEM and tensors[0].dtype != torch.bool)
            self.record.guessed |= counted and any(map(_is_made_up, tensors))
            return _really(func, args, kwargs, tensors)
        self._read(func, tensors)
        if func is _ITEM:
            return torch.zeros((), dtype=tensors[0].dtype).item()
        traces = [self.trace(tensor) for tensor in tensors]
        trace = _followed(func, traces)
        if func in _PRODUCTS:
            trace = self._multiplied(tensors[-2:], traces[-2:])
        elif func in _CHOICES and (dim := _dimension(func, args)) is not None:
            self._chosen(args[0].shape[dim], traces[0])
        out = _on_meta(func, args, kwargs)
        for result in tensors_among([out]):
            if trace is not _CONSTANT and id(result) not in self._names:
                result._trace = trace  # type: ignore[attr-defined]
                if func is aten.clone.default:
                    result._copied = [*zip(args[0].shape, args[0].stride(), strict=True)]  # type: ignore[attr-defined]
                elif func in _RESHAPED and hasattr(args[0], "_copied"):
                    result._copied = args[0]._copied  # type: ignore[attr-defined]
                if any(result is tensor for tensor in tensors):
                    storage = result.untyped_storage()
                    self._written[storage._cdata] = (storage, trace)
        return out

    def _is_unknown(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor has no values, or values that unknown ones were written over."""
        written = self._written and tensor.untyped_storage()._cdata in self._written
        return tensor.is_meta or bool(written)

    def _enter(self, module: nn.Module, *_: object) -> None:
        # The hooks are those of all modules: other threads may run some.
        if get_ident() == self._thread:
            self._running.append(module)

    def _leave(self, *_: object) -> None:
        if get_ident() == self._thread:
            self._running.pop()

    def _read(self, func: Any, tensors: Sequence[torch.Tensor]) -> None:
        """Note who reads which parameter."""
        for tensor in tensors:
            if (name := self._names.get(id(tensor))) is not None:
                self._use(name).readers.add(str(func))

    def _use(self, name: int) -> Use:
        """Return the record of a parameter in the module that is running, or in none of its own."""
        running = self._running[-1] if self._running else None
        tensor = self._parameters[name]
        holds = running is not None and any(tensor is p for p in running._parameters.values())
        return self.record.uses[name, id(running) if holds else 0]

    def _chosen(self, among: int, trace: Trace) -> None:
        """Note a choice by size among all that a matrix has to offer."""
        if routers := {name for name in trace.last if self._outputs.get(name) == among}:
            self.record.routers |= routers
            self.record.choices.add(among)

    def _multiplied(self, factors: Sequence[torch.Tensor], traces: Sequence[Trace]) -> Trace:
        """Note a product: with a parameter, or of two tensors that depend on what is read."""
        left, right = (factor if factor.dim() > 1 else factor[:, None] for factor in factors)
        left = left if factors[0].dim() > 1 else left.mT
        rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
        batch = math.prod(left.shape[:-2])
        flops = 2 * batch * rows * inner * columns
        # Where both come from parameters, as with learnt positions, the second is the matrix.
        second = bool(traces[1].weights)
        if weights := traces[second].weights:
            shape = (columns if second else rows, inner)
            factor, others = (right, rows) if second else (left, columns)
        else:
            if traces[0].seen and traces[1].seen and self._running:
                self.record.scores[id(self._running[-1])] += flops
            return Trace(seen=any(trace.seen for trace in traces))
        self.record.rows = self.record.rows or batch * others
        for name, share in self._shares(weights).items():
            use = self._use(name)
            use.flops += round(flops * share)
            use.shape = shape
            self._outputs[name] = shape[0]
            use.turned = _is_turned(factor, shape[0], second)
        return Trace(seen=True, last=weights)

    def _shares(self, weights: frozenset[int]) -> dict[int, Fraction]:
        """Share a product out over the parameters its matrix comes from; scales get nothing."""
        sizes = {name: self._parameters[name].numel() for name in weights}
        largest = max(sizes.values())
        sizes = {
            name: size
            for name, size in sizes.items()
            if size == largest or min(self._parameters[name].shape[-2:], default=1) > 1
        }
        return {name: Fraction(size, sum(sizes.values())) for name, size in sizes.items()}


def _is_turned(factor: torch.Tensor, outputs: int, second: bool) -> bool:
    """Whether the values of one input lie side by side in memory, as in ``Conv1D``.

    ``Linear`` multiplies by the transpose of its weight. Of a copy, which einsum makes, its
    original's strides tell: the last sizes are those of the outputs if it is the second factor.
    """
    strides = getattr(factor, "_copied", None)
    if strides is None:
        return factor.stride(-1 if second else -2) < factor.stride(-2 if second else -1)
    sizes, step = [size for size in strides if size[0] > 1], -1 if second else 1
    product, among = 1, []
    for size, stride in sizes[::step]:
        if product < outputs:
            product *= size
            among.append(stride)
    return 1 in among


def _followed(func: Any, traces: Sequence[Trace]) -> Trace:
    """Return where the result of an operation comes from."""
    name = func.overloadpacket.__name__
    if _SHAPED.search(name):
        return _CONSTANT
    if func in _LOOKUPS:
        return Trace(seen=True)
    seen = [trace for trace in traces if trace.seen]
    if not seen:
        return Trace(frozenset().union(*(trace.weights for trace in traces)))
    # A norm mixes the values of a row: what comes out is no longer the product that went in.
    kept = (len(seen) == 1 or func in _JOINED) and "norm" not in name
    last = frozenset().union(*(trace.last for trace in seen)) if kept else frozenset()
    return Trace(seen=True, last=last)


def _really(func: Any, args: Any, kwargs: dict[str, Any], tensors: Sequence[torch.Tensor]) -> Any:
    """Compute what depends on no parameter, on the CPU even where the model asks for meta."""
    _check_size(func, args, kwargs, tensors)
    out = func(*args, **kwargs)
    if any(map(_is_made_up, tensors)):
        if func.overloadpacket in _CHECKS:
            return torch.ones_like(out)
        for result in tensors_among([out]):
            result._made_up = True  # type: ignore[attr-defined]
    on_meta = isinstance(out, torch.Tensor) and out.is_meta
    if on_meta and out.numel() <= (_LARGEST if _is_whole(out) else _SMALL):
        return func(*args, **{**kwargs, "device": torch.device("cpu")})
    return out


def _check_size(func: Any, args: Any, kwargs: dict[str, Any], tensors: Sequence[Any]) -> None:
    """Refuse to compute what is so large that only a number in a configuration makes it so."""
    numbers = [n for n in _flat(args) if isinstance(n, int | float)]
    if max((*map(abs, numbers), *(tensor.numel() for tensor in tensors)), default=0) <= _FEW:
        return
    meta = {"device": torch.device("meta")} if not tensors or "device" in kwargs else {}
    try:
        out = func(*_each(_meta, args), **{**kwargs, **meta})
    except Exception:  # what has no size without values, or is wrong and says so when it is run
        return
    _check_largest(tensors_among([out]))


def _check_largest(tensors: Iterable[torch.Tensor]) -> None:
    for tensor in tensors:
        if tensor.numel() > _LARGEST:
            raise ValueError(f"it works with {tensor.numel():,} numbers at a time")


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _on_meta(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return the result of an operation on tensors of which some are on the meta device."""
    written = [
        value
        for value, argument in zip(args, func._schema.arguments, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    if func in _INDEXED:
        args = (args[0], _numbered(args[1]), *args[2:])
    if func.overloadpacket.__name__ in _FILLED and args[0].numel() <= _SMALL:
        return func(*args, **{**kwargs, "device": torch.device("cpu")})
    on_meta = {**kwargs, "device": torch.device("meta")} if "device" in kwargs else kwargs
    out = func(*_each(_meta, args), **on_meta)
    real = [t for t in written if isinstance(t, torch.Tensor) and not t.is_meta]
    if real:
        return real[0]
    if func in _CHOICES:
        return _in_turn(args[0].shape, _dimension(func, args), out)
    return _each(_real, out)


def _dimension(func: Any, args: Any) -> int | None:
    """Return along which dimension is chosen; None where there is no such."""
    place = _CHOICES[func]
    dim: int | None = args[place] if len(args) > place else None if place == 1 else -1
    if dim is None and func is aten.sort.default:
        dim = -1
    return dim if args[0].dim() else None


def _in_turn(shape: Sequence[int], dim: int | None, out: Any) -> Any:
    """Choose the next ones in each row, going on from the row before."""
    values, indices = (None, out) if isinstance(out, torch.Tensor) else out
    if dim is None:
        chosen = torch.zeros(indices.shape, dtype=torch.int64)
    elif indices.dim() < len(shape):
        chosen = torch.arange(indices.numel()).reshape(indices.shape) % shape[dim]
    else:
        moved = indices.movedim(dim, -1).shape
        flat = torch.arange(math.prod(moved)) % max(shape[dim], 1)
        chosen = flat.reshape(moved).movedim(-1, dim)
    return chosen if values is None else type(out)((values, chosen))


def _numbered(indices: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Say by whole numbers what masks of trues and falses pick."""
    numbered: list[torch.Tensor | None] = []
    for index in indices:
        mask = index is not None and index.dtype in {torch.bool, torch.uint8}
        numbered += index.nonzero(as_tuple=True) if index is not None and mask else [index]
    return numbered


def _is_made_up(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, "_made_up")


def tensors_among(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Yield the tensors among arguments or results, which may be in lists."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_among(value)


def _each(change: Callable[[torch.Tensor], torch.Tensor], values: Any) -> Any:
    """Change the tensors among the arguments or results of an operation."""
    if isinstance(values, torch.Tensor):
        return change(values)
    if isinstance(values, list | tuple):
        return [_each(change, value) for value in values]
    return values


def _is_whole(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def _meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_meta else torch.empty_like(tensor, device="meta")


def _real(tensor: torch.Tensor) -> torch.Tensor:
    """Make up whole numbers that are not known."""
    if not (tensor.is_meta and _is_whole(tensor)):
        return tensor
    _check_largest([tensor])
    made_up = torch.zeros(tensor.shape, dtype=tensor.dtype)
    made_up._made_up = True  # type: ignore[attr-defined]
    return made_up
