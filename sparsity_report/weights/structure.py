"""Structure without values: from ``config.json`` alone, or from what another source has opened."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.attention import attention_widths
from sparsity_report.weights.config import read_config
from sparsity_report.weights.describe import describe
from sparsity_report.weights.places import walk
from sparsity_report.weights.tensors import dtype_name
from sparsity_report.weights.weights import Weights

if TYPE_CHECKING:
    import torch
    from torch import nn


class Outline(Weights):
    """Names, shapes, dtypes, FLOPs and dense bytes of a model; its zeros are unknown."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(
            name=weights.name,
            source=weights.source,
            architecture=weights.architecture,
            modules=tuple(
                replace(m, parameters=tuple(replace(p, known=False) for p in m.parameters))
                for m in weights.modules
            ),
            attention_widths=weights.attention_widths,
            notes=weights.notes,
        )

    def tensor(self, name: str) -> torch.Tensor:
        """Refuse."""
        raise SparsityReportError(
            f"{self.name} was opened without values, so {name} cannot be read; load it with them"
        )

    def module(self) -> nn.Module:
        """Refuse."""
        raise SparsityReportError(f"{self.name} was opened without values and cannot be run")


class ConfigWeights(Outline):
    """What a transformers config promises, for a model of which nothing else was fetched."""

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        blacklist: Collection[str],
        groups: Mapping[str, str] | None,
    ) -> None:
        skeleton, notes = read_config(directory)
        if skeleton is None:
            raise SparsityReportError(f"{name} cannot be opened without values: {notes[0]}")
        places = walk(skeleton)
        promised = cast(Any, skeleton).config.dtype
        Weights.__init__(
            self,
            name=name,
            source="config",
            architecture=type(skeleton).__name__,
            modules=describe(
                places,
                blacklist=blacklist,
                rules=groups,
                dtype=(lambda _: dtype_name(promised)) if promised else None,
            ),
            attention_widths=attention_widths(places),
            notes=("structure and dtypes are those that config.json promises",),
        )
