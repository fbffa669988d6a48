"""Weights in PyTorch pickles, opened only on request and never allowed to run code."""

from __future__ import annotations

import pickle
import struct
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

from sparsity_report.deferred import torch
from sparsity_report.errors import SparsityReportError, explained, first_line
from sparsity_report.untrusted.gates import check_name
from sparsity_report.weights.tensor_slices import (
    Entry,
    FileSlice,
    HeldSlice,
    LocalFile,
    Stored,
    dtype_name,
    is_strided,
)


def check_allowed(path: Path, allow_pickle: bool) -> None:
    """Refuse a pickle unless pickles are allowed."""
    if not allow_pickle:
        raise SparsityReportError(
            f"{path}: PyTorch pickles are opened only on request; convert to safetensors, or "
            "trust it with allow_pickle=True (--allow-pickle)"
        )


def read_pickle(file: Path) -> list[Entry]:
    """Return the tensors of a state dict, read with ``weights_only=True``.

    Contiguous tensors are read from the file when they are counted. Sparse tensors and views that
    are not contiguous are copied into memory.
    """

    def explain(error: Exception) -> str:
        if isinstance(error, pickle.UnpicklingError):
            return (
                f"{file} holds more than tensors, such as a whole model, or is damaged; its code "
                "is not run, so save model.state_dict() instead"
            )
        return f"{file} cannot be read as a PyTorch state dict: {first_line(error)}; save it again"

    # Torch raises many exceptions for damaged files.
    with explained(explain, Exception):
        origin = LocalFile.look_up(file)
        if not zipfile.is_zipfile(file):
            raise ValueError("it is damaged or older than PyTorch 1.6")
        records = _records(file)
        outline = _outline(file)
        _check_state(file, outline)
        places = {key: _place(tensor, records) for key, tensor in outline.items()}
        others: dict[str, torch.Tensor] = {}
        if None in places.values():
            # An index beyond a matrix would be written beside it; torch 2.13 does not check.
            with torch.sparse.check_sparse_tensor_invariants():
                mapped = _load(file, map_location="cpu", mmap=True)
            others = {key: mapped[key] for key, place in places.items() if place is None}
            # A copy, because access to mapped memory of a truncated file kills the process.
            others = {k: t.clone() if is_strided(t) else t.to_dense() for k, t in others.items()}

    def stored(key: str, tensor: torch.Tensor) -> Stored:
        if (place := places[key]) is None:
            return HeldSlice.from_tensor(others[key])
        return FileSlice(tensor.numel(), dtype_name(tensor.dtype), origin, place)

    return [Entry(key, tuple(t.shape), stored(key, t)) for key, t in outline.items()]


def _check_state(file: Path, state: Any) -> None:
    """Refuse anything but a dict of tensors with valid names."""
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise SparsityReportError(
            f"{file} does not hold a plain state dict of tensors; save model.state_dict()"
        )
    for key in state:
        check_name(key)


def _outline(file: Path) -> Any:
    """Return the tensors without values; sparse indices are checked when they are read."""
    from torch.overrides import TorchFunctionMode

    class Unchecked(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, _: Any, args: Any = (), named: Any = None
        ) -> Any:
            if function.__name__.startswith("_validate_sparse"):
                return None
            return function(*args, **(named or {}))

    with Unchecked():
        return _load(file, map_location="meta")


def _load(file: Path, **how: Any) -> Any:
    with warnings.catch_warnings():
        # Checks of sparse indices are wanted, so torch need not warn about them.
        warnings.filterwarnings("ignore", "Validating sparse tensor", UserWarning)
        return torch.load(file, weights_only=True, **how)


def _records(file: Path) -> dict[int, int]:
    """Return the size of each member of a torch archive by the offset of its content.

    Raises
    ------
    zipfile.BadZipFile
        A member is compressed, or the byte order is not that of this machine.
    """
    records = {}
    with zipfile.ZipFile(file) as archive, file.open("rb") as raw:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise zipfile.BadZipFile(
                    f"{member.filename!r} is compressed, which torch never writes"
                )
            # The directory lacks the length of the local header of a member.
            raw.seek(member.header_offset + 26)
            begin = member.header_offset + 30 + sum(struct.unpack("<HH", raw.read(4)))
            raw.seek(begin)
            order = raw.read(min(member.file_size, 16))
            if member.filename.endswith("/byteorder") and order != sys.byteorder.encode():
                # Torch would swap bytes of mapped or missing memory, which kills the process.
                raise zipfile.BadZipFile("it was written by a machine of another byte order")
            records[begin] = member.file_size
    return records


def _place(tensor: torch.Tensor, records: dict[int, int]) -> int | None:
    """Return the offset of a tensor in the file; None if its bytes there differ from memory."""
    if not is_strided(tensor) or not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        return None
    storage = tensor.untyped_storage()
    # Torch sets the offset of storages that stay in the file; a member must begin there.
    begin = getattr(storage, "_checkpoint_offset", None)
    if begin is None or records.get(begin) != storage.nbytes():
        return None
    offset = int(tensor.storage_offset()) * tensor.dtype.itemsize
    if offset + tensor.numel() * tensor.dtype.itemsize > storage.nbytes():
        return None
    return int(begin) + offset
