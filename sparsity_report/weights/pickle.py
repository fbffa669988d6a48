"""Weights in PyTorch pickles, opened only when asked for and never allowed to run code."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.foreign import check_name, check_regular
from sparsity_report.weights.config import first_line
from sparsity_report.weights.places import is_strided
from sparsity_report.weights.tensors import Entry


def pickle_files(directory: Path) -> list[Path]:
    """Return the PyTorch pickles of a transformers directory."""
    return sorted(directory.glob("pytorch_model*.bin"))


def check_allowed(path: Path, allow_pickle: bool) -> None:
    """Refuse a pickle that was not asked for."""
    if not allow_pickle:
        raise SparsityReportError(
            f"{path}: PyTorch pickles are not opened unless asked for; convert to safetensors, "
            "or trust it with allow_pickle=True (--allow-pickle)"
        )


def read_pickle(file: Path) -> list[Entry]:
    """Return the tensors of a state dict, read with ``weights_only=True`` and mapped."""
    try:
        check_regular(file.stat())
        if not zipfile.is_zipfile(file):
            raise ValueError("it is none that PyTorch 1.6 or later writes, or is damaged")
        with warnings.catch_warnings():
            # That indices of sparse tensors are checked, as they are to be, is no news to the user.
            warnings.filterwarnings("ignore", "Validating sparse tensor", UserWarning)
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise SparsityReportError(
            f"{file} holds more than a state dict of tensors, or is damaged; no code of it is run"
        ) from error
    except Exception as error:  # a damaged one can fail anywhere inside torch
        raise SparsityReportError(
            f"{file} cannot be read as a PyTorch state dict: {first_line(error)}"
        ) from error
    named = isinstance(state, dict) and all(isinstance(key, str) for key in state)
    if not named or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SparsityReportError(f"{file} does not hold a plain state dict of tensors")
    try:
        for key in state:
            check_name(key)
    except ValueError as error:
        raise SparsityReportError(f"{file}: {error}") from error
    return [
        Entry(key, tuple(tensor.shape), tensor if is_strided(tensor) else tensor.to_dense())
        for key, tensor in state.items()
    ]
