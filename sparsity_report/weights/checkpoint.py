"""Checkpoints in a transformers directory: their tensors matched with the model they belong to.

The model is built from ``config.json`` on the meta device, and transformers' own renaming rules
say which tensor on disk is which parameter in memory; so file and module routes agree. Without a
config, names and shapes alone decide.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.attention import attention_widths
from sparsity_report.weights.describe import describe, describe_names
from sparsity_report.weights.parameters import ONCE, Module
from sparsity_report.weights.places import walk
from sparsity_report.weights.tensors import Entry, Slice, joined
from sparsity_report.weights.weights import Weights


class CheckpointWeights(Weights):
    """Weights read from files on demand; subclasses say where the values of one tensor are."""

    def __init__(
        self,
        path: Path,
        entries: Mapping[str, Entry],
        *,
        name: str,
        source: str,
        skeleton: nn.Module | None,
        keys: Mapping[str, str | None],
        blacklist: Collection[str],
        groups: Mapping[str, str] | None,
        notes: tuple[str, ...] = (),
        experts_used: Fraction = ONCE,
    ) -> None:
        parts: dict[str, list[Entry]] = defaultdict(list)
        for key, target in keys.items():
            if target is not None:
                parts[target].append(entries[key])
        if skeleton is None:
            modules = describe_names(parts, blacklist, groups, experts_used)
        else:
            places = walk(skeleton)
            modules = describe(
                places,
                blacklist=blacklist,
                rules=groups,
                dtype=_dtypes(skeleton, parts),
                known=True,
            )
            _check_complete(name, modules, parts, source == "gguf")
        super().__init__(
            name=name,
            source=source,
            architecture="" if skeleton is None else type(skeleton).__name__,
            modules=modules,
            attention_widths=None if skeleton is None else attention_widths(places),
            notes=notes,
        )
        self.path = path
        self._parts = dict(parts)

    @abstractmethod
    def cut(self, entry: Entry) -> Iterable[Slice]:
        """Return one tensor of a file as slices."""

    def slices(self, name: str) -> Iterator[Slice]:
        """Yield the values of a parameter; of one in several pieces on disk, piece after piece."""
        for entry in self._entries(name):
            yield from self.cut(entry)

    def tokenizer(self) -> Any:
        """Load the tokenizer beside the weights, or inside a GGUF file, with transformers."""
        from transformers import AutoTokenizer

        directory = self.path.parent if self.path.is_file() else self.path
        inside = {"gguf_file": self.path.name} if self.source == "gguf" else {}
        try:
            return AutoTokenizer.from_pretrained(directory, local_files_only=True, **inside)
        except Exception as error:
            raise SparsityReportError(
                f"{directory} has no tokenizer that opens ({error}); pass tokenizer="
            ) from error

    def tensor(self, name: str) -> torch.Tensor:
        """Return the values of a parameter; one kept in several pieces on disk comes stacked."""
        # Counting needs every value once; the exact fused arrangement does not matter to it.
        dtype = getattr(torch, self._entries(name)[0].dtype)
        return joined(list(self.slices(name)), dtype, self[name].shape)

    def _entries(self, name: str) -> list[Entry]:
        if name not in self._parts:
            raise SparsityReportError(f"{self.name} has no tensor for {name!r}")
        return self._parts[name]


def _dtypes(skeleton: nn.Module, parts: Mapping[str, list[Entry]]) -> Any:
    own = {
        name: str(p.dtype).removeprefix("torch.")
        for name, p in skeleton.named_parameters(remove_duplicate=False)
    }
    first = {id(p): n for n, p in skeleton.named_parameters(remove_duplicate=False) if n in parts}
    ties = {n: first.get(id(p), n) for n, p in skeleton.named_parameters(remove_duplicate=False)}

    def dtype(name: str) -> str:
        entries = parts.get(ties.get(name, name))
        return entries[0].dtype if entries else own[name]

    return dtype


def _check_complete(
    name: str, modules: tuple[Module, ...], parts: dict[str, list[Entry]], any_arrangement: bool
) -> None:
    """Every stored parameter must be on disk with its number of elements; move ties to owners."""
    stored = {p.name: p for m in modules for p in m.parameters if p.tied_to is None}
    for module in modules:
        for p in module.parameters:
            if p.tied_to and p.name in parts:
                pieces = parts.pop(p.name)
                parts.setdefault(p.tied_to, pieces)
    missing = [n for n in stored if n not in parts]
    if missing:
        raise SparsityReportError(
            f"{name}: {len(missing)} tensor(s) are missing from the checkpoint, "
            f"first {missing[0]!r}; counting would be wrong, fetch the whole checkpoint"
        )
    for parameter_name, parameter in stored.items():
        entries = parts[parameter_name]
        same = entries[0].shape == parameter.shape or any_arrangement
        if (len(entries) == 1 and not same) or sum(e.total for e in entries) != parameter.total:
            shapes = ", ".join(str(e.shape) for e in entries[:3])
            raise SparsityReportError(
                f"{name}: {parameter_name} has shape {shapes} on disk but {parameter.shape} "
                "in the model of config.json; they are not of the same model"
            )
