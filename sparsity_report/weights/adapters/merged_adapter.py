"""A model with a LoRA adapter, merged as PEFT's ``merge_and_unload`` does."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsity_report.weights.adapters.lora import Adapter, Pair, base_note
from sparsity_report.weights.anatomy.names_only import ReaderOptions
from sparsity_report.weights.array_dtypes import Array, array_dtype, cast, dtype_name
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
)
from sparsity_report.weights.weights import Parameter, Tokenizer, Weights
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    from torch import nn

# Values of a slice that are computed at a time.
_BUFFER = 2**19


def _add(pair: Pair, values: Array, start: int) -> Array:
    """Return values of a weight, which begin at `start`, with ``scaling · B · A`` added.

    As in PEFT, the sum is rounded once; for an embedding the product is rounded before.
    """
    a, b, width = pair.a, pair.b, pair.shape[1]
    first, last = start // width, math.ceil((start + values.size) / width)
    if pair.transposed:
        left, right = _floats(a, a.columns(first, last)).T, _floats(b, b.rows(0, width)).T
    else:
        left, right = _floats(b, b.rows(first, last)), _floats(a, a.rows())
    # Rounded sums in float64 do not depend on the rows that are computed together.
    name, wide = dtype_name(values.dtype), np.promote_types(values.dtype, np.float32)
    with np.errstate(all="ignore"):
        product = (left @ right).astype(wide).reshape(-1) * wide.type(pair.scaling)
        product = product[start - first * width :][: values.size]
        if pair.embedding:
            product = cast(product, name).astype(wide)
        return cast(product + values.astype(wide), name)


def _floats(part: Entry, raw: Bytes) -> npt.NDArray[np.float64]:
    return raw.view(array_dtype(part.values.dtype)).astype(np.float64)


@dataclass(frozen=True, eq=False)
class AdaptedSlice(Slice):
    """Values of a weight that an adapter changes; small and picklable if all are in files.

    Attributes
    ----------
    values : Slice
        Values of the base, or of the adapter's replacement.
    start : int
        Position of the first value in the weight.
    pair : Pair or None
        Pair whose product is added.
    """

    values: Slice
    start: int
    pair: Pair | None

    def sources(self) -> Sequence[FileSlice]:
        """Return the slices of the base and of both matrices if all are in files."""
        slices = self.values.sources()
        if self.pair is None or not slices:
            return slices
        files = Entry.in_files([self.pair.a, self.pair.b])
        return [*slices, *files] if files else ()

    def pieces(self) -> Iterator[Array]:
        """Yield the changed values."""
        place = self.start
        for piece in self.values.pieces():
            for first in range(0, piece.size, _BUFFER):
                values = cast(piece[first : first + _BUFFER], self.dtype)
                yield values if self.pair is None else _add(self.pair, values, place)
                place += values.size


@dataclass(frozen=True)
class Change:
    """The change of a parameter.

    Attributes
    ----------
    values : Entry or None
        Values that replace those of the base.
    pair : Pair or None
        Pair whose product is added.
    """

    values: Entry | None = None
    pair: Pair | None = None


class AdaptedWeights(Weights):
    """A base model with an adapter merged into it.

    The attribute `base` is the base model.

    Parameters
    ----------
    base : Weights
    adapter : Adapter
    options : ReaderOptions
        Name of the two, and notes on the adapter.

    Raises
    ------
    SparsityReportError
        The adapter belongs to another base, or changes a weight that is not one stored matrix.
    """

    def __init__(self, base: Weights, adapter: Adapter, options: ReaderOptions) -> None:
        changes = _changes(base, adapter)
        modules = tuple(m.changed(partial(_changed, changes=changes)) for m in base.modules)
        folder = base.directory if isinstance(base, CheckpointWeights) else None
        is_unnamed = base.name == base.architecture  # a module without a checkpoint
        config = adapter.file.parent / CONFIG
        doubts = () if is_unnamed else base_note(config, base.name, folder)
        notes = (*base.notes, *options.notes, *_notes(base, adapter), *doubts)
        kind, widths = base.architecture, base.attention_widths
        files = (*base.files, LocalFile.look_up(adapter.file))
        super().__init__(options.name, base.source, kind, modules, widths, notes, files)
        self.base, self._changes = base, changes

    def slices(self, name: str) -> Iterator[Slice]:
        """Yield the values of a parameter with the product added."""
        if (change := self._changes.get(name)) is None:
            yield from self.base.slices(name)
            return
        dtype, start = self[name].dtype, 0
        for part in change.values.slices() if change.values else self.base.slices(name):
            yield AdaptedSlice(part.total, dtype, part, start, change.pair)
            start += part.total

    def array(self, name: str) -> Array:
        """Return the values of a parameter."""
        if name not in self._changes:
            return self.base.array(name)
        return join_slices(self.slices(name), self[name].dtype, self[name].shape)

    def buffers(self) -> dict[str, Array]:
        """Return the buffers of the base."""
        return self.base.buffers()

    def configuration(self) -> dict[str, Any]:
        """Return the configuration of the base."""
        return self.base.configuration()

    def tokenizer(self) -> Tokenizer:
        """Open the tokenizer of the base."""
        return self.base.tokenizer()

    def module(self) -> nn.Module:
        """Return the base as a runnable model with the changed values."""
        from sparsity_report.weights.anatomy.parameter_places import locate, value, walk

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
        if base.architecture:
            pair = replace(pair, transposed=pair.embedding or parameter.transposed)
        _check_shape(base, adapter, parameter, pair.shape)
        tensors = len(base.entries(name)) if isinstance(base, CheckpointWeights) else 1
        if tensors > 1 or parameter.layout != "dense":
            raise adapter.wrong(f"{name!r} of {base.name} is not stored as one dense matrix")
        changes[name] = Change(adapter.replaced.get(name), pair)
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
    in_file = None if change.pair else change.values
    return replace(parameter, packing="", file_bytes=in_file.values.nbytes if in_file else None)


def _check_shape(base: Weights, adapter: Adapter, parameter: Parameter, shape: Shape) -> None:
    if parameter.shape != shape:
        raise adapter.wrong(
            f"it changes {parameter.name!r} of shape {shape}, but in {base.name} its shape is "
            f"{parameter.shape}, so it belongs to another model, or to one that was resized",
        )


def _notes(base: Weights, adapter: Adapter) -> Iterator[str]:
    """Yield notes about the parameters of the base and of the adapter."""
    pairs = adapter.pairs.values()
    parameters = sum(pair.a.total + pair.b.total for pair in pairs)
    figures = {"base_parameters": base.total, "parameters": parameters, "pairs": len(pairs)}
    ranks = sorted({pair.a.shape[0] for pair in pairs})
    yield say("note.adapter_merged", base=base.name, ranks=ranks, **figures)
    if adapter.replaced:
        yield say("note.adapter_replaces", tensors=len(adapter.replaced))
