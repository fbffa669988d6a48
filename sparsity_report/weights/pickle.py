"""Weights in PyTorch pickles, opened only when asked for and never allowed to run code."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.checkpoint import CheckpointWeights
from sparsity_report.weights.config import read_config
from sparsity_report.weights.names import memory_names
from sparsity_report.weights.safetensors import load_with_transformers
from sparsity_report.weights.tensors import Entry, Slice, dtype_name, held


class PickleWeights(CheckpointWeights):
    """A state dict saved by ``torch.save``, read with ``weights_only=True``."""

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        blacklist: Collection[str] = ("lm_head",),
        groups: Mapping[str, str] | None = None,
    ) -> None:
        files = [path] if path.is_file() else pickle_files(path)
        self._tensors: dict[str, torch.Tensor] = {}
        entries: dict[str, Entry] = {}
        for file in files:
            for key, tensor in _read(file).items():
                self._tensors[key] = tensor
                entries[key] = Entry(file, key, tuple(tensor.shape), dtype_name(tensor.dtype))
        self._directory = path.parent if path.is_file() else path
        skeleton, notes = read_config(self._directory)
        super().__init__(
            path,
            entries,
            name=name,
            source="pickle",
            skeleton=skeleton,
            keys=memory_names(skeleton, entries),
            blacklist=blacklist,
            groups=groups,
            notes=notes,
        )

    def cut(self, entry: Entry) -> Iterator[Slice]:
        """Yield one tensor, mapped from its file."""
        return held(self._tensors[entry.key])

    def module(self) -> nn.Module:
        """Load the model with transformers, in the checkpoint's own dtype."""
        return load_with_transformers(self, self._directory)


def pickle_files(directory: Path) -> list[Path]:
    """Return the PyTorch pickles of a transformers directory."""
    return sorted(directory.glob("pytorch_model*.bin"))


def _read(file: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "unreadable"
        raise SparsityReportError(
            f"{file} cannot be read as a PyTorch state dict: {reason}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise SparsityReportError(f"{file} does not hold a plain state dict of tensors")
    return state
