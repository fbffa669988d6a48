"""Weights in PyTorch pickles, opened only when asked for and never allowed to run code."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.checkpoint import CheckpointWeights, Contents
from sparsity_report.weights.options import ReaderOptions
from sparsity_report.weights.tensors import Entry


class PickleWeights(CheckpointWeights):
    """A state dict saved by ``torch.save``, read with ``weights_only=True`` and mapped."""

    def __init__(self, path: Path, options: ReaderOptions) -> None:
        entries = {
            key: Entry(key, tuple(tensor.shape), tensor)
            for file in ([path] if path.is_file() else pickle_files(path))
            for key, tensor in _read(file).items()
        }
        directory = path.parent if path.is_file() else path
        super().__init__(path, options, "pickle", Contents.of(entries, directory))


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
