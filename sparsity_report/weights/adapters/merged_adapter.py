"""A model with a LoRA adapter, merged as PEFT's ``merge_and_unload`` does, or beside it."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from sparsity_report.weights.adapters.lora import Adapter, Pair, base_note
from sparsity_report.weights.anatomy.groups import ruled
from sparsity_report.weights.anatomy.names_only import ReaderOptions, on_disk
from sparsity_report.weights.anatomy.parameter_places import locate, value, walk
from sparsity_report.weights.sources.checkpoint import CheckpointWeights
from sparsity_report.weights.sources.model_files import CONFIG
from sparsity_report.weights.tensor_slices import (
    Bytes,
    Entry,
    FileSlice,
    LocalFile,
    Shape,
    Slice,
    join_slices,
    torch_dtype,
)
from sparsity_report.weights.weights import Module, Parameter, Weights
from sparsity_report.words.sentences import say

# Values of a slice that are computed at a time.
_BUFFER = 2**19


@dataclass(frozen=True, eq=False)
class Product:
    """The product ``scaling · B · A`` of a pair, to be added to a weight.

    Attributes
    ----------
    pair : Pair
    transposed : bool
        True if rows of the weight are inputs.
    """

    pair: Pair
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight."""
        outputs, inputs = self.pair.b.shape[0], self.pair.a.shape[1]
        return (inputs, outputs) if self.transposed else (outputs, inputs)

    def add(self, values: torch.Tensor, start: int) -> torch.Tensor:
        """Return values of the weight, which begin at `start`, with the product added.

        As in PEFT, the sum is rounded once; for an embedding the product is rounded before.
        """
        a, b = self.pair.a, self.pair.b
        width = self.shape[1]
        first, last = start // width, math.ceil((start + values.numel()) / width)
        if self.transposed:
            left, right = _floats(a, a.columns(first, last)).T, _floats(b, b.rows(0, width)).T
        else:
            left, right = _floats(b, b.rows(first, last)), _floats(a, a.rows())
        # Rounded sums in float64 do not depend on the rows that are computed together.
        wide = torch.promote_types(values.dtype, torch.float32)
        product = (left @ right).to(wide).mul_(self.pair.scaling).reshape(-1)
        product = product[start - first * width :][: values.numel()]
        if self.pair.embedding:
            product = product.to(values.dtype).to(wide)
        return product.add_(values).to(values.dtype)


def _floats(part: Entry, raw: Bytes) -> torch.Tensor:
    return torch.from_numpy(raw).view(torch_dtype(part.values.dtype)).double()


@dataclass(frozen=True, eq=False)
class AdaptedSlice(Slice):
    """Values of a weight that an adapter changes; small and picklable if all are in files.

    Attributes
    ----------
    values : Slice
        Values of the base, or of the adapter's replacement.
    start : int
        Position of the first value in the weight.
    product : Product or None
    """

    values: Slice
    start: int
    product: Product | None

    def sources(self) -> Sequence[FileSlice]:
        """Return the slices of the base and of both matrices if all are in files."""
        parts = [self.product.pair.a.values, self.product.pair.b.values] if self.product else []
        files = [part for part in parts if isinstance(part, FileSlice)]
        slices = self.values.sources()
        return [*slices, *files] if slices and len(files) == len(parts) else ()

    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield the changed values."""
        place = self.start
        for piece in self.values.pieces():
            for part in piece.split(_BUFFER):
                values = part.to(torch_dtype(self.dtype))
                yield values if self.product is None else self.product.add(values, place)
                place += part.numel()


@dataclass(frozen=True)
class Change:
    """The change of a parameter, or a parameter of the adapter itself.

    Attributes
    ----------
    values : Entry or None
        Values that replace those of the base.
    product : Product or None
        Product to add.
    """

    values: Entry | None = None
    product: Product | None = None


class AdaptedWeights(Weights):
    """A base model with an adapter, merged or beside it.

    The attribute `base` is the base model.

    Parameters
    ----------
    base : Weights
    adapter : Adapter
    options : ReaderOptions
        Name of the two, groups of matrices beside the base, and whether both are merged.

    Raises
    ------
    SparsityReportError
        The adapter belongs to another base, or changes a weight that is not one stored matrix.
    """

    def __init__(self, base: Weights, adapter: Adapter, options: ReaderOptions) -> None:
        changes, merge = _changes(base, adapter), options.merge
        if not merge:
            changes = {name: Change(entry) for name, entry in adapter.replaced.items()}
        modules = tuple(m.changed(partial(_changed, changes=changes)) for m in base.modules)
        if not merge:
            modules = tuple(m for each in modules for m in _with_pair(each, adapter, options))
            changes |= {
                f"{module}.{leaf}": Change(entry)
                for module, pair in adapter.pairs.items()
                for leaf, entry in pair.beside.items()
            }
        folder = base.directory if isinstance(base, CheckpointWeights) else None
        is_unnamed = base.name == base.architecture  # a module without a checkpoint
        config = adapter.file.parent / CONFIG
        doubts = () if is_unnamed else base_note(config, base.name, folder)
        notes = (*base.notes, *options.notes, *_notes(base, adapter, merge), *doubts)
        kind, widths = base.architecture, base.attention_widths
        files = (*base.files, LocalFile.look_up(adapter.file))
        super().__init__(options.name, base.source, kind, modules, widths, notes, files)
        self.base, self._changes, self._merged = base, changes, merge

    def slices(self, name: str) -> Iterator[Slice]:
        """Yield the values of a parameter with the product added."""
        if (change := self._changes.get(name)) is None:
            yield from self.base.slices(name)
            return
        dtype, start = self[name].dtype, 0
        for part in change.values.slices() if change.values else self.base.slices(name):
            yield AdaptedSlice(part.total, dtype, part, start, change.product)
            start += part.total

    def tensor(self, name: str) -> torch.Tensor:
        """Return the values of a parameter."""
        if name not in self._changes:
            return self.base.tensor(name)
        return join_slices(self.slices(name), self[name].dtype, self[name].shape)

    def buffers(self) -> dict[str, torch.Tensor]:
        """Return the buffers of the base."""
        return self.base.buffers()

    def configuration(self) -> dict[str, Any]:
        """Return the configuration of the base."""
        return self.base.configuration()

    def tokenizer(self) -> Any:
        """Open the tokenizer of the base."""
        return self.base.tokenizer()

    @torch.no_grad()
    def module(self) -> nn.Module:
        """Return the base as a runnable model with the changed values."""
        if not self._merged:
            raise self.wrong("is counted beside its base and cannot be run; open it merged")
        model = self.base.module()
        places = locate(walk(model))
        for name in self._changes:
            value(*places[name]).copy_(self.tensor(name))
        return model


def _changes(base: Weights, adapter: Adapter) -> dict[str, Change]:
    """Return the changes of an adapter to a base by parameter."""
    if base.source == "gguf":
        raise adapter.wrong(
            f"{base.name} is GGUF, whose matrices are arranged in another way: give the base as "
            "safetensors",
        )
    parameters = {p.name: p for p in base.parameters}
    shared = {p.tied_to for p in parameters.values()}

    def find_parameter(name: str, entry: Entry) -> Parameter:
        if (parameter := parameters.get(name)) is None:
            raise adapter.wrong(f"{entry.key!r} belongs to no parameter of {base.name}")
        if parameter.tied_to or name in shared:
            raise adapter.wrong(
                f"{entry.key!r} changes {name!r}, which is tied to another parameter of "
                f"{base.name}, so the result depends on how they are merged",
            )
        return parameter

    changes = {name: Change(entry) for name, entry in adapter.replaced.items()}
    for name, entry in adapter.replaced.items():
        _check_shape(base, adapter, find_parameter(name, entry), entry.shape)
    for module, pair in adapter.pairs.items():
        name = f"{module}.weight"
        parameter = find_parameter(name, pair.a)
        transposed = parameter.transposed if base.architecture else adapter.transposed
        product = Product(pair, pair.embedding or transposed)
        _check_shape(base, adapter, parameter, product.shape)
        tensors = len(base.entries(name)) if isinstance(base, CheckpointWeights) else 1
        if tensors > 1 or parameter.layout != "dense":
            raise adapter.wrong(f"{name!r} of {base.name} is not stored as one dense matrix")
        changes[name] = Change(adapter.replaced.get(name), product)
    _check_whole(parameters, adapter)
    return changes


def _check_whole(names: Iterable[str], adapter: Adapter) -> None:
    """Refuse an adapter that lacks tensors of a module that its configuration names."""
    for name in names:
        module = name.rpartition(".")[0]
        owners = (module[: dot.start()] for dot in re.finditer(r"\.|$", module))
        is_saved = any(owner.endswith(adapter.settings.saved) for owner in owners)
        is_adapted = name == f"{module}.weight" and adapter.settings.adapts(module)
        if (is_saved and name not in adapter.replaced) or (
            is_adapted and module not in adapter.pairs
        ):
            raise adapter.wrong(f"{CONFIG} names {module!r}, for which it lacks tensors")


def _changed(parameter: Parameter, changes: Mapping[str, Change]) -> Parameter:
    """Return a parameter after its change; computed values have no file bytes."""
    if (change := changes.get(parameter.name)) is None:
        return parameter
    in_file = None if change.product else change.values
    return replace(parameter, packing="", file_bytes=in_file.values.nbytes if in_file else None)


def _check_shape(base: Weights, adapter: Adapter, parameter: Parameter, shape: Shape) -> None:
    if parameter.shape != shape:
        raise adapter.wrong(
            f"it changes {parameter.name!r} of shape {shape}, but in {base.name} its shape is "
            f"{parameter.shape}, so it belongs to another model, or to one that was resized",
        )


def _with_pair(module: Module, adapter: Adapter, options: ReaderOptions) -> tuple[Module, ...]:
    """Return a module, followed by the matrices of an adapter for it."""
    if (pair := adapter.pairs.get(module.name)) is None:
        return (module,)
    beneath = next(p for p in module.parameters if p.name == f"{module.name}.weight")
    uses, once = beneath.uses, beneath.uses_per_sequence
    matrices = []
    for leaf, entry in pair.beside.items():
        name = f"{module.name}.{leaf}"
        owner = name.rpartition(".")[0]
        # The first matrix of an embedding pair is a lookup table.
        matrix = None if pair.embedding and entry is pair.a else (entry.shape[0], entry.shape[1])
        parameter = Parameter(
            name, entry.shape, matrix=matrix, uses=uses, uses_per_sequence=once, **on_disk([entry])
        )
        group = ruled(owner, options.groups) or module.group
        class_name = "ParameterDict" if pair.embedding else "Linear"
        matrices.append(Module(owner, class_name, group, (parameter,)))
    return (module, *matrices)


def _notes(base: Weights, adapter: Adapter, merge: bool) -> Iterator[str]:
    """Yield notes about the parameters of the base and of the adapter."""
    pairs = adapter.pairs.values()
    yield say(
        "note.adapter_merged" if merge else "note.adapter_beside",
        base=base.name,
        base_parameters=sum(p.total for p in base.stored),
        parameters=sum(pair.a.total + pair.b.total for pair in pairs),
        pairs=len(pairs),
        ranks=sorted({pair.a.shape[0] for pair in pairs}),
    )
    if adapter.replaced:
        yield say("note.adapter_replaces", tensors=len(adapter.replaced))
    if adapter.ignored:
        yield say("note.adapter_ignored", tensors=len(adapter.ignored), names=list(adapter.ignored))
