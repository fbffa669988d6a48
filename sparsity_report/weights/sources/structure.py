"""Structure without values, from ``config.json`` or from an opened model."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparsity_report.errors import SparsityReportError
from sparsity_report.phrases import phrase
from sparsity_report.weights.anatomy.describe import ReaderOptions, describe
from sparsity_report.weights.anatomy.meta_model import read_config
from sparsity_report.weights.anatomy.parameter_places import walk
from sparsity_report.weights.weights import Module, Weights

if TYPE_CHECKING:
    import torch
    from torch import nn


class Outline(Weights):
    """A model of known names, shapes, dtypes, FLOPs and dense bytes, and unknown zeros."""

    def tensor(self, name: str) -> torch.Tensor:
        """Refuse to read values."""
        raise SparsityReportError(
            f"{self.name} was opened without values, so {name} cannot be read; load it with them"
        )

    def module(self) -> nn.Module:
        """Refuse to run."""
        raise SparsityReportError(
            f"{self.name} was opened without values and cannot be run; load it with them"
        )


def without_values(weights: Weights) -> Outline:
    """Return the structure of an opened model."""
    shown = {field.name: getattr(weights, field.name) for field in fields(Weights)}
    return Outline(**shown | {"modules": _unknown(weights.modules)})


def _unknown(modules: tuple[Module, ...]) -> tuple[Module, ...]:
    return tuple(module.changed(lambda p: replace(p, known=False)) for module in modules)


def from_config(directory: Path, options: ReaderOptions) -> Outline:
    """Return the structure of a model from its transformers config."""
    model, notes = read_config(directory)
    if model is None:
        raise SparsityReportError(
            f"{options.name} cannot be opened without values: {notes[0]}; open it with them"
        )
    description = describe(walk(model), options)
    return Outline(
        name=options.name,
        source="config",
        architecture=type(model).__name__,
        # Some classes create parameters on the CPU even on the meta device.
        modules=_unknown(description.modules),
        attention_widths=description.attention_widths,
        notes=(*options.notes, phrase("note.config_promise"), *description.notes),
    )
