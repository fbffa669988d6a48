"""Weights in PyTorch pickles, opened only on request and never allowed to run code."""

import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from sparsity_report.errors import (
    SparsityReportError,
    explained,
    first_line,
    printable,
    within_memory,
)
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_name
from sparsity_report.weights.tensor_slices import Entry, FileSlice, LocalFile, Stored
from sparsity_report.weights.torch_tensors import (
    TensorSlice,
    is_strided,
    sparse_bytes,
    tensor_dtype,
)

# Beginnings of a local header in an archive and of the 22 bytes at its end.
_LOCAL, _END = b"PK\3\4", b"PK\5\6\0\0\0\0"


def read_pickle(file: Path) -> list[Entry]:
    """Return the tensors of a state dict, read with ``weights_only=True``.

    Contiguous tensors are read from the file when they are counted. For sparse tensors and views
    that are not contiguous, torch reads the whole file, and they stay in memory.
    """

    def explain(error: Exception) -> str:
        if isinstance(error, pickle.UnpicklingError):
            return (
                f"{file} holds more than tensors, such as a whole model, or is damaged; its code "
                "is not run, so save model.state_dict() instead"
            )
        reason = printable(first_line(error), 200)
        return f"{file} cannot be read as a PyTorch state dict: {reason}; save it again"

    # Torch raises many exceptions for damaged files.
    advice = "open it on a larger machine"
    with explained(explain, Exception), within_memory(f"{file} cannot be opened", advice):
        origin = LocalFile.look_up(file)
        outline, records = _outline(file)
        _check_state(file, outline)
        values: dict[str, Stored] = {}
        for key, tensor in outline.items():
            if (place := _place(tensor, records)) is not None:
                dtype = tensor_dtype(tensor.dtype)
                values[key] = FileSlice(tensor.numel(), dtype, origin, place)
        if others := [key for key in outline if key not in values]:
            values |= _read_held(file, outline, others)
    return [Entry(key, tuple(t.shape), values[key]) for key, t in outline.items()]


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


def _outline(file: Path) -> tuple[Any, dict[int, tuple[int, int]]]:
    """Return the tensors without values, and the records that their storages name.

    Torch computes offsets from the order of storages and compares no sizes. It is given a copy of
    the archive with empty records instead, so that an offset in the copy tells which record a
    storage names. Sparse indices are checked when they are read.

    Returns
    -------
    state : object
    records : dict
        Offset and size in the file of each record, by its offset in the copy.
    """

    class Unchecked(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, _: Any, args: Any = (), named: Any = None
        ) -> Any:
            if function.__name__.startswith("_validate_sparse"):
                return None
            return function(*args, **(named or {}))

    copy = BytesIO()
    records = _copy_outline(file, copy)
    copy.seek(0)
    with Unchecked():
        return _load(copy, map_location="meta"), records


def _copy_outline(file: Path, copy: BytesIO) -> dict[int, tuple[int, int]]:
    """Write an archive without the bytes of storages; return the place of each in the file.

    Raises
    ------
    ValueError
        A member is compressed or has the name of another one, the pickle is too large, or the
        byte order is not that of this machine.
    """
    records, names = {}, set[str]()
    with file.open("rb") as raw, zipfile.ZipFile(copy, "w") as outline:
        begins = raw.read(4) == _LOCAL
        raw.seek(max(file.stat().st_size - 22, 0))
        if not begins or raw.read(8) != _END:
            raise ValueError("it is damaged or older than PyTorch 1.6")
        archive = zipfile.ZipFile(raw)
        for member in archive.infolist():
            name, content = member.filename, b""
            packing = member.compress_type, member.compress_size, member.volume
            if packing != (zipfile.ZIP_STORED, member.file_size, 0):
                raise ValueError(f"{name!r} is compressed or split, which torch never writes")
            if name.lower() in names:
                raise ValueError(f"it holds {name!r} twice")
            names.add(name.lower())
            if "/data/" not in name:
                if member.file_size > limits.PICKLE_BYTES:
                    raise ValueError(f"{name!r} has more than {limits.PICKLE_BYTES:,} bytes")
                content = archive.read(member)
            if name.endswith("/byteorder") and content != sys.byteorder.encode():
                raise ValueError("it was written by a machine of another byte order")
            if name.endswith("/.format_version"):
                continue  # with it, torch computes offsets
            outline.writestr(name, content)
            # The directory lacks the length of the local header of a member.
            raw.seek(member.header_offset)
            magic, *lengths = struct.unpack("<4s22xHH", raw.read(30))
            if magic != _LOCAL:
                raise ValueError(f"{name!r} has no header")
            records[copy.tell()] = member.header_offset + 30 + sum(lengths), member.file_size
    return records


def _load(source: Path | BytesIO, **how: Any) -> Any:
    with warnings.catch_warnings():
        # Checks of sparse indices are wanted, so torch need not warn about them.
        warnings.filterwarnings("ignore", "Validating sparse tensor", UserWarning)
        return torch.load(source, weights_only=True, **how)


def _place(tensor: torch.Tensor, records: Mapping[int, tuple[int, int]]) -> int | None:
    """Return the offset of a tensor in the file; None if its bytes there differ from memory."""
    if not is_strided(tensor) or not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        return None
    storage = tensor.untyped_storage()
    begin, size = records.get(getattr(storage, "_checkpoint_offset", -1), (0, -1))
    offset = int(tensor.storage_offset()) * tensor.dtype.itemsize
    if size != storage.nbytes() or offset + tensor.numel() * tensor.dtype.itemsize > size:
        return None
    return begin + offset


def _read_held(
    file: Path, outline: Mapping[str, torch.Tensor], keys: Sequence[str]
) -> dict[str, TensorSlice]:
    """Return tensors whose bytes in the file differ from memory, unfolded.

    Raises
    ------
    ValueError
        A tensor has no values, or together they take far more memory than the file.
    """
    size = sum(outline[key].numel() * outline[key].dtype.itemsize for key in keys)
    if size > max(limits.UNFOLDED_BYTES, limits.UNFOLDED * file.stat().st_size):
        raise ValueError(f"sparse or repeated values unfold to {size:,} bytes")
    # An index beyond a matrix would be written beside it; torch 2.13 does not check.
    with torch.sparse.check_sparse_tensor_invariants():
        state = _load(file, map_location="cpu")
    if lacking := [key for key in keys if state[key].is_meta]:
        raise ValueError(f"{lacking[0]!r} is a meta tensor, which has no values")
    return {key: _held(state[key]) for key in keys}


def _held(tensor: torch.Tensor) -> TensorSlice:
    """Return values in memory, with the bytes that they take in the file."""
    if is_strided(tensor):
        size = min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
        return TensorSlice.from_tensor(tensor.clone(), size)
    return TensorSlice.from_tensor(tensor.to_dense(), sparse_bytes(tensor))
