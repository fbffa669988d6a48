"""Tracer of a model run on the meta device: the parameters that multiply its input.

Tensors that depend on a parameter stay on the meta device, so a model of any size runs in the time
of its Python code. Integers are real, so control flow works. An integer that would depend on values
is made up: a router sends tokens to its experts in turn, so that all receive equally many; `all` is
true, and everything else is 0 or false.
"""

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
# Matrix products, whose factors are the last two tensors.
_PRODUCTS = {
    aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default, aten.addmm.default,
    aten.baddbmm.default, aten.addmv.default, aten.addbmm.default,
}  # fmt: skip
# Operations that select by size, and the argument position of the dimension.
_CHOICES = {aten.topk.default: 2, aten.sort.default: 1, aten.argmax.default: 1, aten.max.dim: 1}
# Operations whose result size depends on values.
_COUNTED = {aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor}
_ITEM = aten._local_scalar_dense.default
_CHECKS = {aten.all, aten._is_all_true}
_LOOKUPS = {aten.embedding.default, aten._embedding_bag.default}
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
_RESHAPED = {aten._unsafe_view.default, aten.view.default, aten.unsqueeze.default}
_JOINED = {aten.cat.default, aten.stack.default}
# Operations that use only the shape of a tensor.
_SHAPED = re.compile(r"_like$|^new_")
_FILLED = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}
# Operations computed although their values are unknown.
_SMALL = 2**20
# Limit on made-up integers, half a GB of int64.
_LARGEST = 2**26
# Size below which real operands need no check.
_FEW = 2**12
# Operations of all runs: per parameter, constant, and the maximum of about half a minute.
# Among published models, DBRX needs most: 100,000.
_PER_PARAMETER, _BESIDES, _MOST = 400, 1_000, 250_000


class Trace(NamedTuple):
    """Origin of the values of a tensor.

    Attributes
    ----------
    weights : frozenset of int
        Ids of the parameters it was computed from, independent of the input.
    reads_input : bool
        Whether it depends on the input.
    last : frozenset of int
        Matrices whose products it holds, possibly scaled, shifted, sliced or joined.
    """

    weights: frozenset[int] = frozenset()
    reads_input: bool = False
    last: frozenset[int] = frozenset()


_CONSTANT = Trace()


@dataclass
class Use:
    """Use of a parameter in a run.

    Attributes
    ----------
    flops : int
        FLOPs of the products with it.
    shape : tuple of int or None
        Outputs and inputs of the last product.
    turned : bool
        Whether the inputs come first in memory.
    readers : set of str
        Operations applied to it directly.
    """

    flops: int = 0
    shape: tuple[int, int] | None = None
    turned: bool = False
    readers: set[str] = field(default_factory=set)


@dataclass
class Record:
    """Record of a run.

    Attributes
    ----------
    uses : dict of (int, int) to Use
        Uses by key of the parameter and id of the holding module, 0 for other modules.
    scores : Counter
        FLOPs of products of two input-dependent tensors, by id of the module.
    routers : set of int
        Parameters whose products were selected by size.
    choices : set of int
        Numbers of candidates of selections.
    heads : frozenset of int
        Parameters whose products are the output logits.
    rows : int
        Rows of the first product.
    guessed : bool
        Whether the amount of computation depends on values other than by selection.
    """

    uses: dict[tuple[int, int], Use] = field(default_factory=lambda: defaultdict(Use))
    scores: Counter[int] = field(default_factory=Counter)
    routers: set[int] = field(default_factory=set)
    choices: set[int] = field(default_factory=set)
    heads: frozenset[int] = frozenset()
    rows: int = 0
    guessed: bool = False


def most_operations(parameters: int) -> int:
    """Return how many operations all runs of a model of so many parameters may take.

    Only an extreme number in a configuration exceeds it, such as a layer repeated a million
    times.
    """
    return min(_PER_PARAMETER * parameters + _BESIDES, _MOST)


class Watch(TorchDispatchMode):
    """Dispatch mode that records a run as a :class:`Record`.

    Parameters
    ----------
    parameters : mapping of int to torch.Tensor
        Parameters on the meta device, by their keys in the record.
    operations : iterator of int
        Those left for all runs of the model, see :func:`most_operations`.
    """

    def __init__(self, parameters: Mapping[int, torch.Tensor], operations: Iterator[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.record = Record()
        self._names = {id(tensor): name for name, tensor in parameters.items()}
        self._parameters = parameters
        self._thread = get_ident()
        self._running: list[nn.Module] = []
        self._operations = operations
        self._outputs: dict[int, int] = {}
        # Written storages by address, kept alive so that no other gets the address.
        self._written: dict[int, tuple[torch.UntypedStorage, Trace]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record the modules that run inside the block."""
        enter = register_module_forward_pre_hook(self._enter)
        leave = register_module_forward_hook(self._leave, always_call=True)
        try:
            with torch.no_grad(), self:
                yield
        finally:
            enter.remove()
            leave.remove()

    def trace(self, tensor: torch.Tensor) -> Trace:
        """Return the origin of a tensor."""
        if (name := self._names.get(id(tensor))) is not None:
            return Trace(frozenset([name]))
        trace: Trace = getattr(tensor, "_trace", _CONSTANT)
        if not trace.reads_input and self._written:
            trace = self._written.get(tensor.untyped_storage()._cdata, (None, trace))[1]
        return trace

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Trace one operation."""
        kwargs = kwargs or {}
        if next(self._operations, None) is None:
            raise ValueError("it takes far more operations than models of so many parameters do")
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
        """Return whether the values of a tensor are unknown."""
        written = self._written and tensor.untyped_storage()._cdata in self._written
        return tensor.is_meta or bool(written)

    def _enter(self, module: nn.Module, *_: object) -> None:
        # The hooks are global: other threads may run modules too.
        if get_ident() == self._thread:
            self._running.append(module)

    def _leave(self, *_: object) -> None:
        if get_ident() == self._thread:
            self._running.pop()

    def _read(self, func: Any, tensors: Sequence[torch.Tensor]) -> None:
        """Record the operations that read parameters."""
        for tensor in tensors:
            if (name := self._names.get(id(tensor))) is not None:
                self._use(name).readers.add(str(func))

    def _use(self, name: int) -> Use:
        """Return the record of a parameter for the running module that holds it, or for none."""
        running = self._running[-1] if self._running else None
        tensor = self._parameters[name]
        holds = running is not None and any(tensor is p for p in running._parameters.values())
        return self.record.uses[name, id(running) if holds else 0]

    def _chosen(self, among: int, trace: Trace) -> None:
        """Record a selection by size among all outputs of a matrix."""
        if routers := {name for name in trace.last if self._outputs.get(name) == among}:
            self.record.routers |= routers
            self.record.choices.add(among)

    def _multiplied(self, factors: Sequence[torch.Tensor], traces: Sequence[Trace]) -> Trace:
        """Record a product with a parameter, or of two input-dependent tensors."""
        left, right = (factor if factor.dim() > 1 else factor[:, None] for factor in factors)
        left = left if factors[0].dim() > 1 else left.mT
        rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
        batch = math.prod(left.shape[:-2])
        flops = 2 * batch * rows * inner * columns
        # If both factors come from parameters, as with learned positions, the second is the matrix.
        second = bool(traces[1].weights)
        if weights := traces[second].weights:
            shape = (columns if second else rows, inner)
            factor, others = (right, rows) if second else (left, columns)
        else:
            if traces[0].reads_input and traces[1].reads_input and self._running:
                self.record.scores[id(self._running[-1])] += flops
            return Trace(reads_input=any(trace.reads_input for trace in traces))
        self.record.rows = self.record.rows or batch * others
        for name, share in self._shares(weights).items():
            use = self._use(name)
            use.flops += round(flops * share)
            use.shape = shape
            self._outputs[name] = shape[0]
            use.turned = _is_turned(factor, shape[0], second)
        return Trace(reads_input=True, last=weights)

    def _shares(self, weights: frozenset[int]) -> dict[int, Fraction]:
        """Distribute a product over the parameters of its matrix; scales get nothing."""
        sizes = {name: self._parameters[name].numel() for name in weights}
        largest = max(sizes.values())
        sizes = {
            name: size
            for name, size in sizes.items()
            if size == largest or min(self._parameters[name].shape[-2:], default=1) > 1
        }
        return {name: Fraction(size, sum(sizes.values())) for name, size in sizes.items()}


def _is_turned(factor: torch.Tensor, outputs: int, second: bool) -> bool:
    """Return whether the values of one input are adjacent in memory, as in ``Conv1D``.

    ``Linear`` multiplies by the transpose of its weight. For a copy made by einsum, the strides of
    the original decide: the last sizes are outputs if it is the second factor.
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
    """Return the origin of the result of an operation."""
    name = func.overloadpacket.__name__
    if _SHAPED.search(name):
        return _CONSTANT
    if func in _LOOKUPS:
        return Trace(reads_input=True)
    dependent = [trace for trace in traces if trace.reads_input]
    if not dependent:
        return Trace(frozenset().union(*(trace.weights for trace in traces)))
    # A norm mixes the values of a row: its result is no longer the product.
    kept = (len(dependent) == 1 or func in _JOINED) and "norm" not in name
    last = frozenset().union(*(trace.last for trace in dependent)) if kept else frozenset()
    return Trace(reads_input=True, last=last)


def _really(func: Any, args: Any, kwargs: dict[str, Any], tensors: Sequence[torch.Tensor]) -> Any:
    """Compute an operation without parameters on the CPU, even if the model asks for meta."""
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
    """Refuse sizes that only an extreme number in a configuration causes."""
    numbers = [n for n in _flat(args) if isinstance(n, int | float)]
    if max((*map(abs, numbers), *(tensor.numel() for tensor in tensors)), default=0) <= _FEW:
        return
    meta = {"device": torch.device("meta")} if not tensors or "device" in kwargs else {}
    try:
        out = func(*_each(_meta, args), **{**kwargs, **meta})
    except Exception:  # operations without a known size, or wrong ones that fail when run
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
    """Return the result of an operation with tensors on the meta device."""
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
    """Return the dimension of a selection, or None."""
    place = _CHOICES[func]
    dim: int | None = args[place] if len(args) > place else None if place == 1 else -1
    if dim is None and func is aten.sort.default:
        dim = -1
    return dim if args[0].dim() else None


def _in_turn(shape: Sequence[int], dim: int | None, out: Any) -> Any:
    """Return consecutive choices for each row, continuing from the row before."""
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
    """Return index tensors for boolean masks."""
    numbered: list[torch.Tensor | None] = []
    for index in indices:
        mask = index is not None and index.dtype in {torch.bool, torch.uint8}
        numbered += index.nonzero(as_tuple=True) if index is not None and mask else [index]
    return numbered


def _is_made_up(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, "_made_up")


def tensors_among(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Yield the tensors in arguments or results, lists included."""
    return (value for value in _flat(values) if isinstance(value, torch.Tensor))


def _each(change: Callable[[torch.Tensor], torch.Tensor], values: Any) -> Any:
    """Return arguments or results with a function applied to each tensor."""
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
    """Return made-up integers in place of unknown ones."""
    if not (tensor.is_meta and _is_whole(tensor)):
        return tensor
    _check_largest([tensor])
    made_up = torch.zeros(tensor.shape, dtype=tensor.dtype)
    made_up._made_up = True  # type: ignore[attr-defined]
    return made_up
