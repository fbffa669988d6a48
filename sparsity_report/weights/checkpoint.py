"""Checkpoints in a transformers directory: their tensors matched with the model they belong to.

The model is built from ``config.json`` on the meta device, and transformers' own renaming rules
say which tensor on disk is which parameter in memory; so file and module routes agree. Without a
config, names and shapes alone decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.attention import attention_widths
from sparsity_report.weights.config import read_config
from sparsity_report.weights.describe import describe, describe_names
from sparsity_report.weights.names import memory_names
from sparsity_report.weights.options import ReaderOptions
from sparsity_report.weights.parameters import ONCE, Module
from sparsity_report.weights.places import walk
from sparsity_report.weights.tensors import Entry, Slice, dtype_name, joined
from sparsity_report.weights.weights import Weights


@dataclass(frozen=True)
class Contents:
    """What the files of a checkpoint hold, and which model they are of.

    Attributes
    ----------
    entries : mapping of str to Entry
        Tensors by their key on disk.
    model : nn.Module or None
        On the meta device; None where transformers does not know it.
    names : mapping of str to str or None
        The parameter in memory that each tensor is, or is a piece of; None for what is ignored.
    notes : tuple of str
        What a careful reader should know.
    experts_used : Fraction
        Share of fused experts that a token is sent to, where no model says it.
    """

    entries: Mapping[str, Entry]
    model: nn.Module | None
    names: Mapping[str, str | None]
    notes: tuple[str, ...] = ()
    experts_used: Fraction = ONCE

    @classmethod
    def of(cls, entries: Mapping[str, Entry], directory: Path) -> Contents:
        """Match tensors with the model that the directory's ``config.json`` describes."""
        model, notes = read_config(directory)
        return cls(entries, model, memory_names(model, entries), notes)


class CheckpointWeights(Weights):
    """Weights read from files on demand.

    Attributes
    ----------
    path : pathlib.Path
        File or directory that was opened.
    """

    def __init__(self, path: Path, options: ReaderOptions, source: str, contents: Contents) -> None:
        parts: dict[str, list[Entry]] = defaultdict(list)
        for key, name in contents.names.items():
            if name is not None:
                parts[name].append(contents.entries[key])
        model = contents.model
        if model is None:
            modules = describe_names(parts, options, contents.experts_used)
        else:
            places = walk(model)
            modules = describe(places, options, dtype=_dtypes(model, parts), known=True)
            _check_complete(options.name, modules, parts, source == "gguf")
        super().__init__(
            name=options.name,
            source=source,
            architecture="" if model is None else type(model).__name__,
            modules=modules,
            attention_widths=None if model is None else attention_widths(places),
            notes=options.notes + contents.notes,
        )
        self.path = path
        self._parts = dict(parts)

    @property
    def directory(self) -> Path:
        """Where config and tokenizer lie."""
        return self.path.parent if self.path.is_file() else self.path

    def cut(self, entry: Entry) -> Iterable[Slice]:
        """Return one tensor of a file as slices."""
        return entry.slices()

    def slices(self, name: str) -> Iterator[Slice]:
        """Yield the values of a parameter; of one in several pieces on disk, piece after piece."""
        for entry in self.entries(name):
            yield from self.cut(entry)

    def tensor(self, name: str) -> torch.Tensor:
        """Return the values of a parameter; one kept in several pieces on disk comes stacked."""
        # Counting needs every value once; the exact fused arrangement does not matter to it.
        dtype = self.entries(name)[0].values.dtype
        return joined(list(self.slices(name)), dtype, self[name].shape)

    def entries(self, name: str) -> list[Entry]:
        """Return the tensors on disk that make up a parameter."""
        if name not in self._parts:
            raise SparsityReportError(f"{self.name} has no tensor for {name!r}")
        return self._parts[name]

    def tokenizer(self) -> Any:
        """Load the tokenizer beside the weights, or inside a GGUF file, with transformers."""
        from transformers import AutoTokenizer

        inside = {"gguf_file": self.path.name} if self.source == "gguf" else {}
        try:
            return AutoTokenizer.from_pretrained(self.directory, local_files_only=True, **inside)
        except Exception as error:
            raise SparsityReportError(
                f"{self.directory} has no tokenizer that opens ({error}); pass tokenizer="
            ) from error

    def module(self) -> nn.Module:
        """Load the model with transformers, in the checkpoint's own dtype."""
        return self.load_with_transformers()

    def load_with_transformers(self, **options: Any) -> nn.Module:
        """Load a runnable model and refuse one with missing or mismatched tensors."""
        import transformers

        if not self.architecture:
            raise SparsityReportError(
                f"{self.name} can be counted but not run: transformers knows no class for it"
            )
        model, info = getattr(transformers, self.architecture).from_pretrained(
            self.directory,
            dtype="auto",
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
        if bad := [*info["missing_keys"], *info["mismatched_keys"]]:
            raise SparsityReportError(
                f"{self.name}: {len(bad)} tensor(s) missing or mis-shaped on loading, "
                f"first {bad[0]}"
            )
        assert isinstance(model, nn.Module)
        return model.eval()


def _dtypes(model: nn.Module, parts: Mapping[str, list[Entry]]) -> Any:
    """Return what says the dtype of a parameter on disk; of one not there, that of its twin."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    first = {id(p): name for name, p in parameters.items() if name in parts}

    def dtype(name: str) -> str:
        parameter = parameters.get(name)
        entries = parts.get(name if parameter is None else first.get(id(parameter), name))
        return entries[0].dtype if entries else dtype_name(parameters[name].dtype)

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
