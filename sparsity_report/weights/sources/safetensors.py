"""Weights in safetensors files: one file, or shards named by an index."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, check_name, parse_json, read_json
from sparsity_report.weights.packed.part_slices import E8M0, FP4
from sparsity_report.weights.tensor_slices import Entry, FileSlice, LocalFile, Origin, read_at

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Bytes of a header that come with its length.
_FIRST = 2**16
# Bytes of the name of a file.
_LONGEST = 255

# https://github.com/huggingface/safetensors: names of dtypes in the header.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
# Read as bytes.
_BYTES = (E8M0, FP4)
# Four to three bytes, in an order of bits that the format does not state.
_FP6 = ("F6_E2M3", "F6_E3M2")


@dataclass(frozen=True)
class Shards:
    """The safetensors files of a checkpoint.

    Attributes
    ----------
    files : sequence of Path or Origin
    weight_map : mapping of str to str, optional
        The file that an index places each tensor in.
    """

    files: Sequence[Path | Origin]
    weight_map: Mapping[str, str] | None = None

    def read(self, file: Path | Origin) -> list[Entry]:
        """Return the tensors of a file, which are those that the index places there.

        Raises
        ------
        SparsityReportError
            The file lacks a tensor, or holds one that the index does not place there.
        """
        entries = read_header(file)
        if self.weight_map is None:
            return entries
        held = {entry.key for entry in entries}
        placed = {key for key, name in self.weight_map.items() if name == file.name}
        if lacking := sorted(placed - held):
            raise SparsityReportError(
                f"{file} lacks {len(lacking)} tensor(s) that {INDEX} places in it, "
                f"first {lacking[0]!r}; fetch both again"
            )
        for stray in sorted(held - placed)[:1]:
            other = self.weight_map.get(stray)
            where = f"places it in {other}: which one counts?" if other else "does not name it:"
            raise SparsityReportError(
                f"{file} holds tensor {stray!r}, but {INDEX} {where} Fetch both again"
            )
        return entries


def find_shards(directory: Path) -> Shards:
    """Return the safetensors files of a checkpoint directory, shard names checked."""
    index, single = directory / INDEX, directory / SINGLE
    if not index.is_file():
        files = [single] if single.is_file() else sorted(directory.glob("*.safetensors"))
        if len(files) > 1:
            raise SparsityReportError(
                f"{directory} holds {len(files)} safetensors files and no {INDEX}; "
                "name the one to open"
            )
        return Shards(files)
    weight_map = read_index(index)
    names = sorted(set(weight_map.values()))
    if single.is_file() and SINGLE not in names:
        raise SparsityReportError(
            f"{directory} holds {SINGLE}, and {INDEX} names other files; which ones count? "
            f"Name {SINGLE}, or move one of the two away"
        )
    for name in names:
        if not _stays_inside(directory / name):
            raise SparsityReportError(
                f"{directory / name} is a link that leads out of its folder; put the file there"
            )
        if not (directory / name).exists():
            raise SparsityReportError(
                f"{directory / name} is missing, but {INDEX} names it; fetch the whole checkpoint"
            )
    return Shards([directory / name for name in names], weight_map)


def read_index(index: Path) -> dict[str, str]:
    """Return which tensor is in which file, the names of files checked."""
    try:
        weight_map = read_json(index, once=True)["weight_map"]
        names = sorted(set(weight_map.values()), key=str)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SparsityReportError(f"{index} is not a safetensors index: {error!r}") from error
    if not names:
        raise SparsityReportError(f"{index} names no tensor; fetch it again")
    for name in names:
        # Untrusted: only a plain file name inside the directory may be opened.
        plain = isinstance(name, str) and Path(name).name == name and "\\" not in name
        plain = plain and name.isprintable() and len(name.encode()) <= _LONGEST
        if not plain or not name.endswith(".safetensors"):
            raise SparsityReportError(f"{index} names a shard outside its folder: {name!r}")
    return cast(dict[str, str], weight_map)


def _stays_inside(file: Path) -> bool:
    """Whether a link stays in its folder, or in the blobs of its own Hub cache entry."""
    try:
        home, target = file.parent.resolve(), file.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return False
    allowed = {home}
    if home.parent.name == "snapshots":
        allowed.add(home.parent.parent / "blobs")
    return target.parent in allowed


def read_header(file: Path | Origin) -> list[Entry]:
    """Return the tensors of one safetensors file in the order of their values.

    Layout: https://github.com/huggingface/safetensors#format
    """
    entries = []
    try:
        origin = LocalFile.of(file) if isinstance(file, Path) else file
        text = _header(origin)
        for key, told, shape, begin in _tensors(text, origin.size - 8 - len(text)):
            try:
                shape, dtype = _held(shape, told)
            except ValueError as error:
                raise SparsityReportError(f"{file}: tensor {key!r} {error}") from error
            values = FileSlice(math.prod(shape), dtype, origin, 8 + len(text) + begin)
            entries.append(Entry(key, shape, values, told if told in _BYTES else ""))
    except SparsityReportError:
        raise
    except (OSError, ValueError) as error:
        raise SparsityReportError(
            f"{file} cannot be read as safetensors: {error}; it may be truncated, fetch it again"
        ) from error
    return entries


def _held(shape: tuple[int, ...], told: str) -> tuple[tuple[int, ...], torch.dtype]:
    """Return shape and dtype of what a file holds of a tensor; ValueError where it is not known."""
    if told in _FP6:
        raise ValueError(
            f"has dtype {told}, of which the format does not state in which order its bits stand, "
            "so it cannot be counted; give a checkpoint that is not packed"
        )
    if told == FP4:
        if 0 in shape or shape[-1] % 2:
            raise ValueError(f"has dtype {told} and shape {shape}, not rows of whole bytes")
        return (*shape[:-1], shape[-1] // 2), torch.uint8
    if told not in _DTYPES and told not in _BYTES:
        raise ValueError(f"has dtype {told[:40]}, which is not known")
    return shape, _DTYPES.get(told, torch.uint8)


def _header(origin: Origin) -> bytes:
    """Read the JSON at the begin of a file."""
    if origin.size < 8:
        raise ValueError(f"it has {origin.size} bytes")
    with origin.opened(0, min(origin.size, _FIRST)) as raw:
        (length,) = struct.unpack("<Q", read_at(raw, 0, 8).tobytes())
    if length > origin.size - 8:
        raise ValueError(f"its header announces {length:,} bytes, the file has {origin.size:,}")
    if length > limits.HEADER_BYTES:
        raise ValueError(
            f"its header announces {length:,} bytes, more than the {limits.HEADER_BYTES:,} that "
            "the format allows"
        )
    with origin.opened(8, 8 + length) as raw:
        return read_at(raw, 8, length).tobytes()


def _tensors(text: bytes, size: int) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Return name, dtype, shape and first byte of each tensor in the order of their values.

    What the safetensors library refuses is refused, and names that are there twice: the values
    fill what follows the header, all `size` bytes of it, without gaps and without overlaps.
    """
    if text[:1] != b"{":
        raise ValueError("its header is no JSON object")
    header = parse_json(text, once=True, finite=True)
    match header.pop("__metadata__", None):
        case None:
            pass
        case dict(told) if all(isinstance(value, str) for value in told.values()):
            pass
        case _:
            raise ValueError("its metadata is no mapping of texts")
    if len(header) > limits.TENSORS:
        raise ValueError(
            f"it announces {len(header):,} tensors, more than the {limits.TENSORS:,} that are "
            "opened together"
        )
    tensors = [(key, *_told(key, facts)) for key, facts in header.items()]
    tensors.sort(key=lambda tensor: tensor[3:])
    reached = 0
    for key, _, _, begin, end in tensors:
        if begin != reached:
            raise ValueError(f"the values of {key!r} begin at {begin:,}, not at {reached:,}")
        reached = end
    if reached != size:
        raise ValueError(f"its header tells of {reached:,} bytes of values, the file has {size:,}")
    return [tensor[:4] for tensor in tensors]


def _told(key: str, facts: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Return dtype, shape, first byte and end of a tensor, if they fit each other."""
    match facts:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]}:
            check_name(key)
        case _:
            raise ValueError(f"it does not tell dtype, shape and place of {key!r}")
    what = f"shape or place of {key!r}"
    for number in (*shape, begin, end):
        check_integer(number, what)
    if len(shape) > limits.DIMENSIONS:
        raise ValueError(f"{key!r} has {len(shape):,} dimensions")
    if math.prod(max(n, 1) for n in shape) > limits.VALUES:
        raise ValueError(f"the shape of {key!r} is beyond counting")
    digits = re.search(r"\d{1,3}", dtype)
    bits = math.prod(shape) * (8 if dtype == "BOOL" else int(digits[0]) if digits else 0)
    if bits != 8 * (end - begin):
        raise ValueError(f"{key!r} takes {end - begin:,} bytes for {dtype[:40]} {tuple(shape)}")
    return dtype, tuple(shape), begin, end
