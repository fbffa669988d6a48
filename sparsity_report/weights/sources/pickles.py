"""Weights in PyTorch pickles, opened only when asked for and never allowed to run code."""

from __future__ import annotations

import pickle
import struct
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.untrusted.gates import check_name
from sparsity_report.weights.anatomy.meta_model import first_line
from sparsity_report.weights.anatomy.parameter_places import is_strided
from sparsity_report.weights.tensor_slices import Entry, FileSlice, LocalFile


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
    """Return the tensors of a state dict, read with ``weights_only=True``.

    Those that stand in the file as they are, nearly always all, are read from there when they are
    counted; views that are not contiguous and sparse tensors are in memory from now on.
    """
    try:
        origin = LocalFile.of(file)
        if not zipfile.is_zipfile(file):
            raise ValueError("it is none that PyTorch 1.6 or later writes, or is damaged")
        records = _records(file)
        outline = _load(file, map_location="meta")
        _check_state(file, outline)
        places = {key: _place(tensor, records) for key, tensor in outline.items()}
        others: dict[str, torch.Tensor] = {}
        if None in places.values():
            mapped = _load(file, map_location="cpu", mmap=True)
            others = {key: mapped[key] for key, place in places.items() if place is None}
            # A copy: the file may be cut short, and what is mapped of it then ends the process.
            others = {k: t.clone() if is_strided(t) else t.to_dense() for k, t in others.items()}
    except SparsityReportError:
        raise
    except pickle.UnpicklingError as error:
        raise SparsityReportError(
            f"{file} holds more than a state dict of tensors, or is damaged; no code of it is run"
        ) from error
    except Exception as error:  # a damaged one can fail anywhere inside torch
        raise SparsityReportError(
            f"{file} cannot be read as a PyTorch state dict: {first_line(error)}"
        ) from error
    entries = []
    for key, tensor in outline.items():
        values: FileSlice | torch.Tensor
        if (place := places[key]) is None:
            values = others[key]
        else:
            values = FileSlice(tensor.numel(), tensor.dtype, origin, place)
        entries.append(Entry(key, tuple(tensor.shape), values))
    return entries


def _check_state(file: Path, state: Any) -> None:
    """Refuse what is no state dict, with names that are names."""
    named = isinstance(state, dict) and all(isinstance(key, str) for key in state)
    if not named or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SparsityReportError(f"{file} does not hold a plain state dict of tensors")
    try:
        for key in state:
            check_name(key)
    except ValueError as error:
        raise SparsityReportError(f"{file}: {error}") from error


def _load(file: Path, **how: Any) -> Any:
    with warnings.catch_warnings():
        # That indices of sparse tensors are checked, as they are to be, is no news to the user.
        warnings.filterwarnings("ignore", "Validating sparse tensor", UserWarning)
        return torch.load(file, weights_only=True, **how)


def _records(file: Path) -> dict[int, int]:
    """Return the bytes of each member of an archive of torch, by where its content begins.

    Raises
    ------
    zipfile.BadZipFile
        It is no such archive, or its members are not what is in memory.
    """
    records = {}
    with zipfile.ZipFile(file) as archive, file.open("rb") as raw:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise zipfile.BadZipFile(f"{member.filename!r} is compressed, as torch writes none")
            # Of a member's own header, whose length the directory does not tell.
            raw.seek(member.header_offset + 26)
            begin = member.header_offset + 30 + sum(struct.unpack("<HH", raw.read(4)))
            raw.seek(begin)
            order = raw.read(min(member.file_size, 16))
            if member.filename.endswith("/byteorder") and order != sys.byteorder.encode():
                # Torch would turn what is mapped, or is not there at all: the process would end.
                raise zipfile.BadZipFile("it was written by a machine of another byte order")
            records[begin] = member.file_size
    return records


def _place(tensor: torch.Tensor, records: dict[int, int]) -> int | None:
    """Return the first byte of a tensor in the file; None where it is not as in memory."""
    if not is_strided(tensor) or not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        return None
    storage = tensor.untyped_storage()
    # Torch tells it of storages that it leaves in the file; here it must be a member's.
    begin = getattr(storage, "_checkpoint_offset", None)
    if begin is None or records.get(begin) != storage.nbytes():
        return None
    offset = int(tensor.storage_offset()) * tensor.dtype.itemsize
    if offset + tensor.numel() * tensor.dtype.itemsize > storage.nbytes():
        return None
    return int(begin) + offset
