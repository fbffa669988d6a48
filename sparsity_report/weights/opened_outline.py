"""Outline of a model that is open, and of one that its headers alone do not describe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsity_report.weights.outline import Outline, Tensor, read_outline
from sparsity_report.weights.tensor_slices import Entry, Shape, Slice
from sparsity_report.weights.weights import Parameter, Weights

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class _Values:
    """Values of a parameter of an open model."""

    weights: Weights
    parameter: Parameter

    @property
    def dtype(self) -> str:
        return self.parameter.dtype

    @property
    def nbytes(self) -> int | None:
        return self.parameter.file_bytes

    @property
    def packing(self) -> str:
        return self.parameter.packing

    def cut(self, shape: Shape) -> Iterator[Slice]:  # noqa: ARG002
        return self.weights.as_in_memory(self.parameter.name)


def outline_of(
    model: str | os.PathLike[str] | Weights | nn.Module,
    *,
    base: str | os.PathLike[str] | nn.Module | None = None,
    like: Outline | None = None,
    **files: Any,
) -> Outline:
    """Return the outline of a model, from the headers of its files if they describe it.

    Parameters
    ----------
    model : str, path, Weights or nn.Module
    base : str or path, optional
        Base model of an adapter.
    like : Outline, optional
        Outline with which names are to agree: on disk, or in memory for an open model.
    **files
        ``revision``, ``subfolder``, ``file`` and ``allow_pickle`` of :func:`read_outline`.
    """
    is_open = like is not None and isinstance(like.tensors[0].entry.values, _Values)
    if base is None and isinstance(model, str | os.PathLike) and not is_open:
        return read_outline(model, **files)
    from sparsity_report.weights.loading import load

    weights = load(model, base=base, **files)
    tensors = tuple(
        Tensor(module, _sized(p), Entry(p.name, p.shape, _Values(weights, p)), is_settled)
        for module in weights.modules
        for p in module.parameters
        # Names alone do not tell the direction of a matrix.
        for is_settled in [bool(weights.architecture) or weights.source == "gguf"]
    )
    slices = (each for p in weights.stored for each in weights.slices(p.name))
    files_read = dict.fromkeys(source.file for each in slices for source in each.sources())
    stacks = {m.name: p.experts for m in weights.modules for p in m.parameters if p.experts > 1}
    place = Path(os.fspath(model)) if isinstance(model, str | os.PathLike) else Path("\0")
    return Outline(
        weights.name, weights.source, place, tuple(files_read), weights.configuration(),
        tensors=tensors, stacks=stacks, notes=weights.notes,
    )  # fmt: skip


def _sized(parameter: Parameter) -> Parameter:
    """Return a parameter with the bytes of its values if no file holds them."""
    if parameter.file_bytes is not None:
        return parameter
    return replace(parameter, file_bytes=parameter.total * parameter.itemsize)
