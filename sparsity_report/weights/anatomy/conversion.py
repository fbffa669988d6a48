"""Parameters that transformers converts on loading from tensors stored in another form.

Stacked tensors, such as experts, are read one after the other, and parts of a tensor as rows. All
other conversions run transformers' own operation on whole tensors in memory, one rule at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.anatomy.meta_model import first_line
from sparsity_report.weights.packed.packed_tensor import Undecoded
from sparsity_report.weights.packed.part_slices import origin
from sparsity_report.weights.tensor_slices import (
    Entry,
    FileSlice,
    Slice,
    join_slices,
    memory_slices,
)

# Values of a slice yielded at a time.
_BUFFER = 2**19


@dataclass(frozen=True, eq=False)
class Conversion:
    """A conversion rule of transformers, with the tensors it combines.

    Attributes
    ----------
    model : nn.Module
        On the meta device.
    rule : WeightConverter
    name : str
        Name of the resulting parameter, the first of several.
    sources : sequence of (str, Entry)
        Tensors on disk and the patterns of the rule that they match, in transformers' order.
    """

    model: nn.Module
    rule: Any
    name: str
    sources: Sequence[tuple[str, Entry]]

    def entries(self) -> dict[str, list[Entry]]:
        """Return the tensors that make up each parameter, in the order of its values."""
        if stack := self._stacked():
            return {self.name: stack}
        for _, entry in self.sources:
            if isinstance(entry.values, Undecoded):
                raise self._wrong(f"{entry.values.why}; give a checkpoint that is not packed")
        outlines = {
            id(entry): torch.empty(entry.shape, dtype=entry.values.dtype, device="meta")
            for _, entry in self.sources
        }
        results = self.run(lambda entry: outlines[id(entry)])
        totals = [result.numel() for result in results.values()]
        entries, done = {}, 0
        for (name, result), total in zip(results.items(), totals, strict=True):
            entries[name] = [
                self._rows(outlines, result)
                or self._converted(name, result, (done, done + total, sum(totals)))
            ]
            done += total
        return entries

    def run(self, read: Callable[[Entry], torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the parameters that transformers makes of the tensors, by name.

        Raises
        ------
        SparsityReportError
            The tensors do not fit each other or the model.
        """
        rule = deepcopy(self.rule)
        for pattern, entry in self.sources:
            rule.add_tensor(self.name, entry.key, pattern, read(entry))
        try:
            results = rule.convert(self.name, model=self.model, config=self.model.config)
        except Exception as error:  # each operation fails in its own way
            why = f"{first_line(error)}; is it whole, and config.json of the same model?"
            raise self._wrong(why) from error
        # Transformers 5.0 returns errors beside them.
        results = results[0] if isinstance(results, tuple) else results
        return {name: r[0] if isinstance(r, list) else r for name, r in results.items()}

    def _stacked(self) -> list[Entry] | None:
        """Return the tensors in the order of their values if the rule only stacks them."""
        lists: dict[str, list[Entry]] = defaultdict(list)
        for pattern, entry in self.sources:
            lists[pattern].append(entry)
        by_pattern = [lists[pattern] for pattern in self.rule.source_patterns if pattern in lists]
        match [(type(op).__name__, getattr(op, "dim", None)) for op in self.rule.operations]:
            case [("MergeModulelist", 0)] if len(by_pattern) == 1:
                return by_pattern[0]
            case [("MergeModulelist", 0), ("Concatenate", 1)] if len({*map(len, by_pattern)}) == 1:
                return [*chain(*zip(*by_pattern, strict=True))]  # of each expert gate and up
            case [("Concatenate", 0)]:
                return [*chain(*by_pattern)]
        return None

    def _rows(self, outlines: Mapping[int, torch.Tensor], result: torch.Tensor) -> Entry | None:
        """Return a parameter that is a range of rows of one tensor on disk."""
        for _, entry in self.sources:
            outline, values = outlines[id(entry)], entry.values
            if not result.is_contiguous() or (
                result._base is not outline and result is not outline
            ):
                continue
            shape, start, total = tuple(result.shape), int(result.storage_offset()), result.numel()
            if isinstance(values, FileSlice):
                place = values.offset + values.bytes_of(start)
                return replace(
                    entry, shape=shape, values=replace(values, total=total, offset=place)
                )
            if isinstance(values, torch.Tensor):
                part = values.reshape(-1)[start : start + total].view(shape)
                return replace(entry, shape=shape, values=part)
        return None

    def _converted(self, name: str, result: torch.Tensor, span: tuple[int, int, int]) -> Entry:
        values = Converted(result.dtype, self, name, tuple(result.shape), span)
        return Entry(self.sources[0][1].key, values.shape, values)

    def _wrong(self, why: str) -> SparsityReportError:
        entry = self.sources[0][1]
        return SparsityReportError(
            f"{origin(entry)}: transformers makes {self.name!r} of {entry.key!r} on loading, which "
            f"cannot be done: {why}"
        )


@dataclass(frozen=True, eq=False)
class Converted:
    """Values of a parameter as converted by transformers.

    Attributes
    ----------
    dtype : torch.dtype
    conversion : Conversion
    name : str
        Name of the parameter.
    shape : tuple of int
    span : tuple of int
        Start, stop and total among the values that the conversion makes.
    """

    dtype: torch.dtype
    conversion: Conversion
    name: str
    shape: tuple[int, ...]
    span: tuple[int, int, int]

    @property
    def nbytes(self) -> int | None:
        """Share of the bytes of all combined tensors."""
        sizes = [entry.file_bytes for _, entry in self.conversion.sources]
        start, stop, total = self.span
        byte_count = sum(size or 0 for size in sizes)
        return None if None in sizes else byte_count * stop // total - byte_count * start // total

    @property
    def packing(self) -> str:
        """Packing of the source tensors."""
        packings = {entry.packing for _, entry in self.conversion.sources}
        return ", ".join(sorted(packings - {""}))

    def cut(self, shape: tuple[int, ...]) -> Iterator[ConvertedSlice]:  # noqa: ARG002
        """Yield the values in one slice, since the conversion makes all at once."""
        if total := self.span[1] - self.span[0]:
            yield ConvertedSlice(total, self.dtype, self)

    def convert(self) -> torch.Tensor:
        """Read the tensors and return the parameter."""

        def read(entry: Entry) -> torch.Tensor:
            return join_slices(list(entry.slices()), entry.values.dtype, entry.shape)

        return self.conversion.run(read)[self.name]


@dataclass(frozen=True, eq=False)
class ConvertedSlice(Slice):
    """All values of a parameter as converted by transformers."""

    values: Converted

    def pieces(self) -> Iterator[torch.Tensor]:
        """Convert the parameter and yield its values."""
        yield from self.values.convert().reshape(-1).split(_BUFFER)


@dataclass(frozen=True, eq=False)
class Computed:
    """Values that no file holds and transformers computes on loading."""

    tensor: torch.Tensor
    nbytes = 0
    packing = ""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the values."""
        return self.tensor.dtype

    def cut(self, shape: tuple[int, ...]) -> Iterator[Slice]:  # noqa: ARG002
        """Yield the values as slices of whole rows."""
        yield from memory_slices(self.tensor)
